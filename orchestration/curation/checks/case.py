"""What a check is given: one episode's scores, and what it may be compared with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestration.curation.context import Usual
from orchestration.curation.fleet_model import FleetModel
from orchestration.curation.thresholds import Thresholds


@dataclass(frozen=True)
class Case:
    """One episode before the checks. `usual` (the robot's), `habit` (its in this task) and `model` are None where there is too little to compare with."""

    row: dict[str, Any]
    scores: dict[str, float]
    vectors: dict[str, list[float]]
    usual: Usual | None
    habit: Usual | None
    model: FleetModel | None
    limits: Thresholds

    def each(self, prefix: str) -> Iterator[tuple[str, float]]:
        """(what follows the colon, value) of every score `prefix:<stream or camera>`."""
        for name, value in sorted(self.scores.items()):
            if name.startswith(prefix + ":"):
                yield name.split(":", 1)[1], value

    def middle(self, name: str) -> float | None:
        return self.usual.middle.get(name) if self.usual else None

    def vector(self, name: str) -> np.ndarray | None:
        return np.asarray(self.vectors[name]) if name in self.vectors else None

    def comparable(self, name: str, usual: Usual | None) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """(the episode's vector, the usual one, its widened spread) where the fleet has one of the same length."""
        if usual is None or name not in self.vectors or name not in usual.shape or len(self.vectors[name]) != len(usual.shape[name]):
            return None
        return np.asarray(self.vectors[name]), usual.shape[name], usual.shape_spread[name] * usual.widening

    @property
    def caution(self) -> float:
        """By which the margins of single axes and views are multiplied: 1, or 2 where few episodes are known and there are many axes to differ."""
        return 2.0 if self.usual is not None and self.usual.episodes < self.limits.fit_at_least else 1.0

    def switches(self, stream: str) -> np.ndarray | None:
        """[d] bool: axes that are grippers or switches, by the episode itself."""
        found = self.vector(f"{stream}.switch")
        return None if found is None else found > 0.5


WIDE = 0.5  # of the widest axis: an axis that hardly moves is judged by the others' range as well as by its own

Check = Callable[[Case], Iterator[str]]


def listed(axes: Any) -> str:
    return ", ".join(str(int(axis)) for axis in axes)
