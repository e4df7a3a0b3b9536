"""One model of how this kind of robot answers to commands, from the sums that the ledger keeps of each episode.

The sums are `command.sums` of the signal stage: [kind, actions, states, samples, blocks of (X'X, X'Y, sum y, y'y)], kind 0 "per axis"
(a block per axis, X = [1, a, s]) or 1 "coupled" (one block, X = [1, a, s, a x s]). Sums of episodes add up, so no raw data is read.
"""

from dataclasses import dataclass

import numpy as np

RIDGE = 1e-3
TRIM = 0.25
ROUNDS = 3
MOVING = 1e-12  # variance of a step under which an axis stands still


@dataclass(frozen=True)
class Sums:
    kind: int
    actions: int
    states: int
    samples: float
    blocks: tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], ...]

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.actions}/{self.states}"

    @classmethod
    def of(cls, vector: list[float] | None) -> "Sums | None":
        if not vector or len(vector) < 4:
            return None
        numbers = np.asarray(vector, np.float64)
        kind, actions, states = (int(value) for value in numbers[:3])
        width, targets, count = (3, 1, states) if kind == 0 else (1 + actions + states + actions * states, states, 1)
        size = width * width + width * targets + 2 * targets
        if len(numbers) != 4 + count * size or not np.isfinite(numbers).all():
            return None
        blocks = []
        for part in numbers[4:].reshape(count, size):
            square, cross, total, squared = np.split(part, np.cumsum([width * width, width * targets, targets]))
            blocks.append((square.reshape(width, width), cross.reshape(width, targets), total, squared))
        return cls(kind, actions, states, float(numbers[3]), tuple(blocks))

    def columns(self, axis: int) -> list[int]:
        """Which regressors of a coupled block carry the action's axis."""
        first = 1 + self.actions + self.states
        return [1 + axis, *range(first + axis * self.states, first + (axis + 1) * self.states)]


@dataclass(frozen=True)
class FleetModel:
    """weights: one [p, m] per block; spread: variance [m] of the state's step per block; r2: the median episode's."""

    weights: tuple[np.ndarray, ...]
    spread: tuple[np.ndarray, ...]
    r2: float


def fit(episodes: list[Sums]) -> FleetModel | None:
    """Ridge regression over all, then again without the quarter that fits worst, so that a flipped minority does not teach."""
    kept = episodes
    model: FleetModel | None = None
    for _ in range(ROUNDS):
        if not kept:
            return None
        weights, spread = [], []
        samples = sum(sums.samples for sums in kept)
        for number in range(len(kept[0].blocks)):
            square, cross, total, squared = (sum(sums.blocks[number][part] for sums in kept) for part in range(4))
            scale = np.sqrt(np.maximum(np.diag(square) / samples, 1e-18))
            normal = square / samples / np.outer(scale, scale) + RIDGE * np.eye(len(scale))
            weights.append(np.linalg.solve(normal, cross / samples / scale[:, None]) / scale[:, None])
            spread.append(np.maximum(squared / samples - (total / samples) ** 2, 0.0))
        model = FleetModel(tuple(weights), tuple(spread), 0.0)
        order = sorted(range(len(episodes)), key=lambda index: -explained(model, episodes[index]))
        kept = [episodes[index] for index in order[: max(3, round(len(order) * (1 - TRIM)))]]
    assert model is not None
    return FleetModel(model.weights, model.spread, float(np.median([explained(model, sums) for sums in episodes])))


def explained(model: FleetModel, sums: Sums, flipped: tuple[int, ...] = ()) -> float:
    """R2 of an episode under the fleet's model, mean over axes weighted by motion; `flipped` action axes count negatively."""
    left, whole = 0.0, 0.0
    for number, (square, cross, total, squared) in enumerate(sums.blocks):
        weights, spread = model.weights[number].copy(), model.spread[number]
        for axis in flipped:
            if sums.kind == 1:
                weights[sums.columns(axis)] *= -1
            elif axis == number:
                weights[1] *= -1
        used = spread > MOVING
        residual = squared - 2 * (weights * cross).sum(axis=0) + (weights * (square @ weights)).sum(axis=0)
        around = squared - total**2 / max(sums.samples, 1)
        left += float((residual[used] / spread[used]).sum())
        whole += float((around[used] / spread[used]).sum())
    return 1 - left / whole if whole > 1e-9 else 0.0
