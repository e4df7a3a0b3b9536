"""A plot of the moment that a reason is about, and how its episode's names and runs are found. Pure of how episodes are stored."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

WIDEST_S = 20.0  # longer episodes are shown around the moment only
AROUND_S = 5.0


@dataclass(frozen=True)
class Line:
    """x [n] in s from the episode's start, y [n] in the plot's unit; NaN breaks the line."""

    name: str
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Moment:
    """A plot. `begin` and `end` in s from the episode's start, where the reason is about a time; `camera` whose clip shows it."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    begin: float | None = None
    end: float | None = None
    camera: str | None = None

    def window(self) -> tuple[float, float]:
        """What is shown, in s."""
        ends = [(float(np.nanmin(line.x)), float(np.nanmax(line.x))) for line in self.lines if len(line.x)]
        first, last = min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=1.0)
        if self.begin is None or self.end is None or last - first <= WIDEST_S:
            return first, max(last, first + 1e-3)
        return max(first, self.begin - AROUND_S), min(last, self.end + AROUND_S)


def named(evidence: str, names: Iterable[str]) -> str | None:
    """The longest of `names` that the evidence mentions as a word."""
    spoken = [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", evidence)]
    return max(spoken, key=len, default=None)


def longest(mask: np.ndarray) -> tuple[int, int] | None:
    """[first, last) of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))).reshape(-1, 2)
    return tuple(edges[np.argmax(edges[:, 1] - edges[:, 0])].tolist()) if len(edges) else None
