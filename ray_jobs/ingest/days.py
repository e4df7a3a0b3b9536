"""Which day a recording belongs to. A clock that cannot be right gives way to the upload's own time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ray_jobs.seam.configs import IngestSettings

DAY_NS = 86_400 * 1_000_000_000
HOUR_NS = 3_600 * 1_000_000_000
LONGEST_DAYS = 31  # a recording that claims to be longer has a broken clock


def day_of(t_ns: int, settings: IngestSettings) -> str:
    """YYYY-MM-DD of a time in ns since 1970 UTC; a day begins at `day_starts_at_hour`."""
    days = (t_ns - settings.day_starts_at_hour * HOUR_NS) // DAY_NS
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)).strftime("%Y-%m-%d")


def is_absurd(t_ns: int, modified_ns: int, settings: IngestSettings) -> bool:
    """Before the earliest day that counts, or more than a day after the upload itself."""
    return t_ns > modified_ns + DAY_NS or day_of(t_ns, settings) < settings.earliest_day


def upload_days(start_ns: int | None, end_ns: int | None, modified_ns: int, settings: IngestSettings) -> list[str]:
    """Every day that the recording touches, and the upload's day where a clock is absent or absurd."""
    own = day_of(modified_ns, settings)
    known = [t_ns for t_ns in (start_ns, end_ns) if t_ns is not None]
    sane = [t_ns for t_ns in known if not is_absurd(t_ns, modified_ns, settings)]
    if len(sane) < 2 or sane[1] - sane[0] > LONGEST_DAYS * DAY_NS or sane[1] < sane[0]:
        return sorted({own, *(day_of(t_ns, settings) for t_ns in sane)})
    first, last = (t_ns - settings.day_starts_at_hour * HOUR_NS for t_ns in sane)
    return [day_of(day * DAY_NS + settings.day_starts_at_hour * HOUR_NS, settings) for day in range(first // DAY_NS, last // DAY_NS + 1)]


def episode_day(start_ns: int | None, modified_ns: int, named: Sequence[str], settings: IngestSettings) -> tuple[str, str]:
    """(day, day_source) of an episode. It is always one of the days that the index names for its upload."""
    if start_ns is None or is_absurd(start_ns, modified_ns, settings):
        own = day_of(modified_ns, settings)
        return (own if own in named or not named else named[-1]), "upload"
    day = day_of(start_ns, settings)
    if day in named or not named:
        return day, "recording"
    earlier = [name for name in named if name < day]
    return (earlier[-1] if earlier else named[0]), "recording"
