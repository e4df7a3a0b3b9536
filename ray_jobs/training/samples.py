"""From aligned episodes to training rows: moments as they follow each other, the windows that are cut from them, and their statistics."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ray_jobs.training.features import Observation
from ray_jobs.training.spec import Statistics

SMALLEST_STD = 1e-4  # below, an observation or action is constant and stays 0 when normalised


@dataclass(frozen=True)
class Batch:
    """seen: name -> [n, window, ...]; actions f32 [n, chunk, a]; valid f32 [n, chunk]: 0 beyond the episode's end, or where a number was NaN or infinite."""

    seen: Observation
    actions: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Moments:
    """Consecutive moments of one or more episodes.

    seen: name -> [m, ...]; actions f32 [m, a]; first, last int64 [m]: where, in this array, the moment's episode begins and ends (a piece of a long one:
    with as many moments around it as windows reach); good bool [m]: all its numbers are finite (others are zeroed here); learn bool [m]: a row begins here.
    """

    seen: Observation
    actions: np.ndarray
    first: np.ndarray
    last: np.ndarray
    good: np.ndarray
    learn: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def rows(self) -> np.ndarray:
        """Moments at which a row begins."""
        return np.flatnonzero(self.learn)

    def batch(self, rows: np.ndarray, window: int, chunk: int) -> Batch:
        """The rows at these moments: what was seen up to then (the first moment repeated where the episode has just begun), and what is done from then on."""
        begin, end = self.first[rows][:, None], self.last[rows][:, None]
        past = np.maximum(rows[:, None] + np.arange(1 - window, 1), begin)
        later = rows[:, None] + np.arange(chunk)
        valid = (later <= end) & self.good[past].all(axis=1, keepdims=True)
        later = np.minimum(later, end)
        valid &= self.good[later]
        return Batch({name: values[past] for name, values in self.seen.items()}, self.actions[later], valid.astype(np.float32))

    def piece(self, start: int, stop: int, window: int, chunk: int) -> "Moments":
        """Of a single episode: the rows that begin in [start, stop), with the moments around them that their windows reach."""
        low, high = max(0, start + 1 - window), min(len(self), stop + chunk - 1)
        part = Moments({name: values[low:high] for name, values in self.seen.items()}, *(each[low:high] for each in self._each()))
        learn = part.learn.copy()
        learn[: start - low] = learn[stop - low :] = False
        return replace(part, first=part.first * 0, last=part.last * 0 + (high - low - 1), learn=learn)

    def _each(self) -> tuple[np.ndarray, ...]:
        return self.actions, self.first, self.last, self.good, self.learn

    def columns(self) -> dict[str, np.ndarray]:
        """For a table; `from_columns` reads them."""
        seen = {f"seen/{name}": values for name, values in self.seen.items()}
        return {**seen, "actions": self.actions, "first": self.first, "last": self.last, "good": self.good, "learn": self.learn}

    @staticmethod
    def from_columns(columns: Any) -> "Moments":
        seen = {name.removeprefix("seen/"): values for name, values in columns.items() if name.startswith("seen/")}
        return Moments(seen, *(columns[name] for name in ("actions", "first", "last", "good", "learn")))


def moments(seen: Observation, actions: np.ndarray, learn: slice = slice(None)) -> Moments:
    """Of one episode, or of a piece with its surroundings, of which `learn` is the piece. seen: name -> [n, ...]; actions [n, a]."""
    count = len(actions)
    actions = actions.astype(np.float32)
    good = np.isfinite(actions).all(axis=1)
    clean = {}
    for name, values in seen.items():
        if values.dtype == np.uint8:
            clean[name] = values
            continue
        finite = np.isfinite(values)
        good &= finite.reshape(count, -1).all(axis=1)
        clean[name] = np.where(finite, values, 0).astype(np.float32)
    chosen = np.zeros(count, bool)
    chosen[learn] = True
    bounds = np.zeros(count, np.int64), np.full(count, count - 1, np.int64)
    return Moments(clean, np.where(np.isfinite(actions), actions, 0), *bounds, good, chosen)


def join(parts: Iterable[Moments]) -> Moments:
    """One after another. Raises ValueError where there is nothing to join."""
    kept = [part for part in parts if len(part)]
    offsets = np.cumsum([0, *(len(part) for part in kept)])[:-1]
    return Moments(
        {name: np.concatenate([part.seen[name] for part in kept]) for name in kept[0].seen} if kept else {},
        np.concatenate([part.actions for part in kept]),
        np.concatenate([part.first + offset for part, offset in zip(kept, offsets, strict=True)]),
        np.concatenate([part.last + offset for part, offset in zip(kept, offsets, strict=True)]),
        np.concatenate([part.good for part in kept]),
        np.concatenate([part.learn for part in kept]),
    )


def statistics(parts: Iterable[Moments]) -> Statistics:
    """Mean and standard deviation of every column over the rows, in one pass over the parts. Raises ValueError without any row."""
    rows = 0
    sums: dict[str, list[np.ndarray]] = {}
    binary: np.ndarray | None = None
    for part in parts:
        chosen = part.good & part.learn
        if not chosen.any():
            continue
        columns = {name: values for name, values in part.seen.items() if values.dtype != np.uint8} | {"": part.actions}
        for name, values in columns.items():
            exact = values[chosen].astype(np.float64)
            added = [exact.sum(axis=0), (exact**2).sum(axis=0)]
            sums[name] = [one + other for one, other in zip(sums[name], added, strict=True)] if name in sums else added
        now = part.actions[chosen]
        flags = ((now == 0) | (now == 1)).all(axis=0)
        binary = flags if binary is None else binary & flags
        rows += int(chosen.sum())
    if binary is None:
        raise ValueError("statistics of no rows")
    mean = {name: total / rows for name, (total, _) in sums.items()}
    std = {name: _deviation(mean[name], square / rows) for name, (_, square) in sums.items()}
    return Statistics(
        rows=rows,
        mean={name: tuple(values.tolist()) for name, values in mean.items() if name},
        std={name: tuple(values.tolist()) for name, values in std.items() if name},
        action_mean=tuple(mean[""].tolist()),
        action_std=tuple(std[""].tolist()),
        binary=tuple(bool(flag) and value != 1.0 for flag, value in zip(binary, std[""], strict=True)),
    )


def _deviation(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    """1 where the column is constant."""
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return np.where(std > SMALLEST_STD * np.maximum(1, np.abs(mean)), std, 1.0)
