"""States and actions as they come in, and how what several topics say becomes one state with named axes."""

from array import array

import numpy as np

from ray_jobs.episode import Stream
from ray_jobs.ingest.topics import telling

FRESH_PERIODS = 5.0  # a held value is older than that many of its own periods, and than FRESH_NS: its topic is silent
FRESH_NS = 100_000_000
JOINED = 0.9  # of the leading topic's samples must find a fresh value, or the other topic is not joined
QUATERNION = ("qx", "qy", "qz", "qw")


class Samples:
    """A growing stream in compact arrays: times in ns and, of one width, values."""

    def __init__(self, names: tuple[str, ...] = (), width: int = 0, topic: str = ""):
        self.names, self.width, self.topic = names, width, topic
        self.t, self.log, self.values = array("q"), array("q"), array("f")

    def add(self, t_ns: int, log_ns: int) -> None:
        self.t.append(t_ns)
        self.log.append(log_ns)

    def stream(self) -> Stream:
        values = np.frombuffer(self.values, np.float32).reshape(len(self.t), self.width) if self.width else np.zeros((len(self.t), 0), np.float32)
        return Stream(np.frombuffer(self.t, np.int64), np.frombuffer(self.log, np.int64), values)


class Vectors:
    """A state or action, in one set of samples per topic and set of joints (an arm and a gripper may share a topic).

    Within a set the order of the recording's first message holds, so joints that change places keep their columns.
    """

    def __init__(self, orders: dict[tuple[str, tuple[str, ...]], tuple[str, ...]], rank: dict[str, int]):
        self._orders, self._rank = orders, rank
        self._sets: dict[tuple[str, int, tuple[str, ...]], Samples] = {}
        self._seen: dict[tuple[str, int, tuple[str, ...]], tuple[Samples, list[int] | None]] = {}

    def add(self, topic: str, names: tuple[str, ...], values: list[float], t_ns: int, log_ns: int) -> None:
        known = self._seen.get((topic, len(values), names))
        if known is None:
            order = self._orders.setdefault((topic, tuple(sorted(names))), names)
            samples = self._sets.setdefault((topic, len(values), order), Samples(order, len(values), topic))
            known = self._seen[topic, len(values), names] = (samples, None if order == names else [names.index(name) for name in order])
        samples, places = known
        samples.add(t_ns, log_ns)
        samples.values.extend(values if places is None else [values[place] for place in places])

    def joined(self, what: str, held: bool, notes: list[str]) -> tuple[Stream, tuple[str, ...]] | None:
        """One stream and the names of its columns, or None where there is nothing.

        The fullest set of the leading topic gives the times; a set with other joints adds its newest value at each of
        them. `held`: a value counts until the next (a command does); else only while its topic is not silent, and a row
        without a fresh value is left out, so that a gap stays a gap. What cannot be joined is noted.
        """
        ranked = sorted(self._sets.values(), key=lambda samples: (self._rank.get(samples.topic, 0), -len(samples.values), samples.names))
        if not ranked:
            return None
        lead, others = ranked[0], ranked[1:]
        names = {id(samples): _named(samples, lead, ranked, what) for samples in ranked}
        stream = lead.stream()
        columns, taken = [stream.values], list(names[id(lead)])
        kept = np.ones(len(stream.t_ns), bool)
        for other in others:
            if not set(names[id(other)]).isdisjoint(taken) or (not other.names and other.topic == lead.topic):
                notes.append(f"{len(other.t)} messages with another set of {other.width} {what} values were not kept")
                continue
            values, fresh = _at(other.stream(), stream.log_ns, held)
            if (kept & fresh).mean() < JOINED:
                notes.append(f"{what} of {other.topic} not joined: it has values for {fresh.mean():.0%} of {lead.topic}'s samples")
                continue
            kept &= fresh
            columns.append(values)
            taken += names[id(other)]
        if len(columns) > 1:
            topics = sorted({samples.topic for samples in ranked if set(names[id(samples)]) <= set(taken)})
            notes.append(f"{what} joined of {len(columns)} sets of {', '.join(topics)}" + (f", {int((~kept).sum())} rows left out" if not kept.all() else ""))
            stream = Stream(stream.t_ns[kept], stream.log_ns[kept], np.concatenate(columns, axis=1)[kept])
        return Stream(stream.t_ns, stream.log_ns, _continuous(stream.values, taken)), tuple(taken)


def _named(samples: Samples, lead: Samples, ranked: list[Samples], what: str) -> tuple[str, ...]:
    """Names of the columns. Topics that differ in one part alone (left, right) lend it to names that both use."""
    own = samples.names or tuple(f"{what}_{number}" for number in range(samples.width))
    for other in ranked:
        theirs = other.names or tuple(f"{what}_{number}" for number in range(other.width))
        part = telling(samples.topic, other.topic)
        if part and not set(own).isdisjoint(theirs):
            return tuple(f"{part}_{name}" for name in own)
    if own[:1] in (("x",), ("vx",)) and samples.topic != lead.topic:  # a base beside an arm
        return tuple(f"base_{name}" for name in own)
    if not samples.names and samples.topic != lead.topic:
        return tuple(f"{samples.topic.strip('/').replace('/', '_')}_{number}" for number in range(samples.width))
    return own


def _at(stream: Stream, times_ns: np.ndarray, held: bool) -> tuple[np.ndarray, np.ndarray]:
    """([n, d] newest value at each time, [n] whether it is fresh), by the logger's clock, which all topics share."""
    logged = np.maximum.accumulate(stream.log_ns)
    steps = np.diff(logged)
    period = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    limit = max(FRESH_PERIODS * period, FRESH_NS)
    row = np.searchsorted(logged, times_ns, side="right") - 1
    first = np.clip(row, 0, None)
    age = times_ns - logged[first]
    early = row < 0  # before its first message: that message counts where it is near enough
    fresh = np.where(early, -age <= limit, True if held else age <= limit)
    return stream.values[first], fresh


def _continuous(values: np.ndarray, names: list[str]) -> np.ndarray:
    """Rotations as they turn: q and -q are one rotation, and so are a heading and a whole turn more, so neither jumps."""
    for at, name in enumerate(names):
        if name.endswith("theta"):
            values = values.copy()
            known = np.isfinite(values[:, at])
            values[known, at] = np.unwrap(values[known, at].astype(np.float64))
        elif name.endswith("qx") and tuple(each[-2:] for each in names[at : at + 4]) == QUATERNION:
            block = values[:, at : at + 4]
            flips = np.where(np.einsum("ij,ij->i", block[1:], block[:-1]) < 0, -1.0, 1.0)
            values = values.copy()
            values[1:, at : at + 4] *= np.cumprod(flips)[:, None].astype(np.float32)
    return values
