"""Where a recording without markers becomes several episodes: where the recorder paused, and, of a long one, where nothing moved."""

from collections.abc import Sequence
from dataclasses import dataclass

from ray_jobs.ingest.log import Survey
from ray_jobs.seam.configs import Cuts

SECOND = 1_000_000_000
LONGEST_PAUSE_S = 86_400.0  # what is longer is a clock that was set, and no pause
STILL_PART, STILL_LEAST = 0.01, 1e-3  # a joint moves when it leaves its place by this part of its range, and by this much


@dataclass(frozen=True)
class Cut:
    """The open episode ends here, by this rule; `begin`: the next one begins at once."""

    rule: str
    begin: bool


class Cutter:
    """Asked before every message of an unmarked log, in recorded order. `waits`: between episodes, for a movement."""

    def __init__(self, cuts: Cuts, survey: Survey, marked: bool):
        self.cuts, self.marked, self.waits = cuts, marked, False
        span_ns = (survey.end_ns or 0) - (survey.start_ns or 0)
        self.by_stillness = not marked and cuts.long_s * SECOND < span_ns
        self._last_ns: int | None = None
        self._moved_ns: int | None = None
        self._places: dict[int, tuple[list[float], list[float], list[float]]] = {}  # topic's id -> where it rests, lowest, highest

    def passed(self, log_ns: int) -> Cut | None:
        """Time as the next message tells it."""
        last, self._last_ns = self._last_ns, log_ns
        if self.marked or last is None or not self.cuts.gap_s * SECOND < log_ns - last < LONGEST_PAUSE_S * SECOND:
            return None
        self.waits, self._moved_ns = False, log_ns
        return Cut(f"cut by a gap: no message for {(log_ns - last) / SECOND:.1f} s (cuts.gap_s is {self.cuts.gap_s:g})", begin=True)

    def moved(self, topic: int, values: Sequence[float], log_ns: int) -> Cut | None:
        """A state as the next message tells it."""
        if not self.by_stillness:
            return None
        since = self._moved_ns = log_ns if self._moved_ns is None else self._moved_ns
        if self._moves(topic, values):
            self._moved_ns = log_ns
            if not self.waits:
                return None
            self.waits = False
            return Cut(f"cut by stillness: begins with a movement, and {(log_ns - since) / SECOND:.1f} s since the last one belong to no episode", begin=True)
        if self.waits or log_ns - since < self.cuts.still_s * SECOND:
            return None
        self.waits = True
        return Cut(f"cut by stillness: nothing moved for {self.cuts.still_s:g} s (cuts.still_s), in a recording longer than cuts.long_s", begin=False)

    def _moves(self, topic: int, values: Sequence[float]) -> bool:
        known = self._places.get(topic)
        if known is None or len(known[0]) != len(values):
            self._places[topic] = (list(values), list(values), list(values))
            return known is None
        rest, low, high = known
        moves = False
        for at, value in enumerate(values):
            low[at], high[at] = min(low[at], value), max(high[at], value)
            moves = moves or abs(value - rest[at]) > max(STILL_LEAST, STILL_PART * (high[at] - low[at]))
        if moves:
            rest[:] = values
        return moves
