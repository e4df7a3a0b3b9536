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
TIGHT = 0.06  # of the axes' range: less variation along a direction is a relation


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


def joint_offset(model: FleetModel, sums: Sums) -> tuple[np.ndarray, np.ndarray] | None:
    """Which constant error of each joint reading explains an episode's motion best, and its standard error: two [states] arrays.

    The model says change = sum_i a_i (w_i0 + sum_j w_ij s_j) + ...; with readings s + d it is off by sum_ij a_i w_ij d_j, linear in d. None for
    models per axis, in which a constant does not show, and where the episode does not determine it.
    """
    if sums.kind != 1:
        return None
    square, cross, _, squared = sums.blocks[0]
    weights, spread = model.weights[0], model.spread[0]
    used = spread > MOVING
    first = 1 + sums.actions + sums.states
    # What an offset of a joint adds to the weights of [1, actions].
    columns = [[1 + sums.actions + joint, *(first + axis * sums.states + joint for axis in range(sums.actions))] for joint in range(sums.states)]
    shifts = np.stack([-weights[rows] for rows in columns])
    scale = 1 / np.sqrt(np.where(used, spread, np.inf))
    seen = slice(0, 1 + sums.actions)
    rows = square[seen, seen]
    missed = cross[seen] - square[seen] @ weights
    scaled = shifts * scale
    normal = np.einsum("jam,ab,kbm->jk", scaled, rows, scaled)
    target = np.einsum("jam,am->j", scaled, missed * scale)
    residual = squared - 2 * (weights * cross).sum(axis=0) + (weights * (square @ weights)).sum(axis=0)
    variance = float((residual * scale**2).sum()) / max(sums.samples * int(used.sum()), 1)
    if not np.isfinite(normal).all() or np.linalg.cond(normal + 1e-12 * np.eye(len(normal))) > 1e8:
        return None
    inverse = np.linalg.inv(normal)
    return inverse @ target, np.sqrt(np.maximum(np.diag(inverse) * variance, 0.0))


@dataclass(frozen=True)
class Relations:
    """Linear relations that a robot's joints keep in every episode (a tool held upright, two coupled fingers).

    middle [d]: the usual mean pose; scale [d]: the usual range of an axis; directions [k, d]: combinations of scaled axes that hardly vary;
    spread [k]: 1.4826 MAD of the episodes' means along them.
    """

    middle: np.ndarray
    scale: np.ndarray
    directions: np.ndarray
    spread: np.ndarray

    def off(self, mean: np.ndarray) -> tuple[float, np.ndarray]:
        """How many spreads the worst relation is off (spreads of at least a thousandth of the range), and the distances [k]."""
        away = self.directions @ ((mean - self.middle) / self.scale)
        return float(np.max(np.abs(away) / np.maximum(self.spread, 1e-3), initial=0.0)), away


def relations(moments: list[np.ndarray], least: int) -> Relations | None:
    """From the episodes' [d + d * d] means and covariances. None with fewer than `least` episodes of the same axes."""
    lengths = [len(one) for one in moments]
    if not lengths:
        return None
    usual = max(set(lengths), key=lambda length: (lengths.count(length), length))
    table = np.stack([one for one in moments if len(one) == usual])
    axes = round((np.sqrt(1 + 4 * usual) - 1) / 2)
    if len(table) < least or axes * axes + axes != usual or axes < 2:
        return None
    middle = np.median(table[:, :axes], axis=0)
    within = np.median(table[:, axes:], axis=0).reshape(axes, axes)
    between = (1.4826 * np.median(np.abs(table[:, :axes] - middle), axis=0)) ** 2
    scale = np.sqrt(np.maximum(np.diag(within) + between, 1e-18)) * 4
    values, vectors = np.linalg.eigh(within / np.outer(scale, scale))
    tight = vectors.T[values < TIGHT**2]
    means = ((table[:, :axes] - middle) / scale) @ tight.T
    spread = 1.4826 * np.median(np.abs(means - np.median(means, axis=0)), axis=0)
    kept = spread < TIGHT  # a direction that is quiet within an episode and moves between them ties nothing
    return Relations(middle, scale, tight[kept], spread[kept])
