"""What one whole job may use: bytes and requests a second, and money for the bytes that leave the source's cloud. Pure: time is given."""

from ray_jobs.seam.configs import CopySettings
from ray_jobs.seam.errors import FlywheelError

GB = 10**9  # bytes, as clouds bill them


class Spent(FlywheelError):
    """The next read would cost more than the job may spend."""


class Bucket:
    """Token bucket of one second's worth. Who takes more than there is goes into debt, and waits until it is paid: nothing is ever too large."""

    def __init__(self, per_s: float | None):
        self._per_s = per_s
        self._level, self._at = per_s or 0.0, 0.0

    def take(self, count: float, now: float) -> float:
        """Seconds to wait before what was taken may be used. `now`: s of a clock that never goes back."""
        if self._per_s is None:
            return 0.0
        self._level = min(self._per_s, self._level + (now - self._at) * self._per_s) - count
        self._at = now
        return max(0.0, -self._level / self._per_s)


class Allowance:
    """The limits of a job. `spent_bytes`: what its earlier executions have read from the source."""

    def __init__(self, settings: CopySettings, spent_bytes: int = 0):
        self.read_bytes = spent_bytes
        self.limited = settings.bytes_per_s is not None or settings.requests_per_s is not None or settings.egress_cap_usd is not None
        self._settings = settings
        self._bytes, self._requests = Bucket(settings.bytes_per_s), Bucket(settings.requests_per_s)

    @property
    def usd(self) -> float:
        return cost_usd(self.read_bytes, self._settings)

    def take(self, size: int, requests: int, now: float) -> float:
        """Seconds to wait before `size` bytes may be read from the source with so many requests to both stores. Raises Spent, and takes nothing."""
        cap, settings = self._settings.egress_cap_usd, self._settings
        if cap is not None and cost_usd(self.read_bytes + size, settings) > cap:
            raise Spent(
                f"stopped before its cap on egress: {self.usd:.4f} of {cap:.4f} USD are spent ({self.read_bytes / GB:.3f} GB at "
                f"{settings.egress_usd_per_gb} USD/GB), and the next read is over it; what is copied stays proven: "
                "raise copying.egress_cap_usd and launch it again"
            )
        self.read_bytes += size
        return max(self._bytes.take(size, now), self._requests.take(requests, now))


def cost_usd(count: int, settings: CopySettings) -> float:
    return count / GB * settings.egress_usd_per_gb
