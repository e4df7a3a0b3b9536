"""Are two recordings copies of each other? Their tracks, laid over one another by cutting and stretching.

A copy that was encoded again, brightened, cut or played at another pace follows the same path of joints and shows the same change of
picture, once its time is mapped onto the other's by a straight line. Two honest demonstrations of one task do neither.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

PICTURE_WIDTH = 16  # numbers per moment, as the embedding stage writes them
SAMPLES = 32  # moments that are compared
REACH, STEPS = 0.4, 17  # how far a start or an end may be cut off, and the grid of the first search
ROUNDS = 4  # of halving the grid around the best
FEWEST = 0.5  # of the shorter one's time must be compared


@dataclass(frozen=True)
class Track:
    """A recording's path of joints [n, a] with the axes' numbers [a], and its picture's [m, 16]; either is None where there is none."""

    axes: np.ndarray | None
    path: np.ndarray | None
    picture: np.ndarray | None

    @classmethod
    def of(cls, vectors: dict[str, Any]) -> "Track | None":
        """From the ledger's vectors; None where the embedding stage found nothing to follow."""
        path, axes, picture = (np.asarray(vectors.get(name) or [], np.float64) for name in ("path", "path.axes", "embedding"))
        moves = len(axes) > 0 and len(path) > 0
        if not moves and not len(picture):
            return None
        return cls(
            axes.astype(int) if moves else None, path.reshape(-1, len(axes)) if moves else None, picture.reshape(-1, PICTURE_WIDTH) if len(picture) else None
        )


@dataclass(frozen=True)
class Likeness:
    """path: root mean square distance of the joints, as a share of what each axis travels (mean over axes); picture: share of the picture's
    change over time that the other's does not explain; scene: distance of the mean pictures over their size. None: not comparable.
    shared: share of the shorter one's time that was laid over the other."""

    path: float | None
    picture: float | None
    scene: float | None
    shared: float


@dataclass(frozen=True)
class Near:
    """An episode that another is like."""

    episode_id: str
    day: str
    upload: str
    likeness: Likeness


def compare(one: Track, other: Track) -> Likeness:
    """The likeness at the best straight map of time: by the joints where both have them, else by the picture."""
    both = np.intersect1d(one.axes, other.axes) if one.axes is not None and other.axes is not None else np.zeros(0, int)
    paths = None
    if len(both) and one.path is not None and other.path is not None and one.axes is not None and other.axes is not None:
        paths = one.path[:, np.isin(one.axes, both)], other.path[:, np.isin(other.axes, both)]
        missing = max(len(one.axes), len(other.axes)) - len(both)
        if missing > len(both):
            paths = None
    pictures = (one.picture, other.picture) if one.picture is not None and other.picture is not None else None
    leading = paths or pictures
    if leading is None:
        return Likeness(None, None, None, 0.0)
    cuts = _search(*leading)
    picture, scene = (
        _pictures(
            *(_at(*pictures, cuts[None])),
        )
        if pictures
        else (None, None)
    )
    path = float(_distance(*_at(*paths, cuts[None]), _span(*paths))[0]) if paths else None
    return Likeness(path, picture, scene, float(_shared(cuts[None])[0]))


def _search(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[2]: what is cut off at the start and at the end, as a share of the time; above 0 of `one`, below of `other`."""
    span = _span(one, other)
    best, step = np.zeros(2), 2 * REACH / (STEPS - 1)
    offsets = np.linspace(-REACH, REACH, STEPS)
    for _ in range(1 + ROUNDS):
        grid = np.stack(np.meshgrid(best[0] + offsets, best[1] + offsets, indexing="ij"), axis=-1).reshape(-1, 2)
        grid = np.clip(grid, -REACH, REACH)
        far = _distance(*_at(one, other, grid), span) + np.where(_shared(grid) < FEWEST, np.inf, 0.0)
        best = grid[int(np.argmin(far))]
        offsets, step = np.linspace(-step, step, 5), step / 2
    return np.asarray(best)


def _at(one: np.ndarray, other: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both tracks at SAMPLES moments of what is left by each of the cuts [k, 2]: [k, SAMPLES, d] each."""
    along = np.linspace(0, 1, SAMPLES)
    made = []
    for track, sign in ((one, 1), (other, -1)):
        start, end = np.maximum(sign * cuts[:, :1], 0), 1 - np.maximum(sign * cuts[:, 1:], 0)
        where = np.clip((start + along * (end - start)) * len(track) - 0.5, 0, len(track) - 1)  # boxes stand for their middles
        low = np.minimum(where.astype(int), len(track) - 2)
        share = (where - low)[..., None]
        made.append(track[low] * (1 - share) + track[low + 1] * share)
    return made[0], made[1]


def _shared(cuts: np.ndarray) -> np.ndarray:
    """[k]: how much of the shorter one is compared."""
    left = 1 - np.maximum(cuts, 0).sum(axis=1), 1 - np.maximum(-cuts, 0).sum(axis=1)
    return np.asarray(np.maximum(*left) if len(cuts) else np.zeros(0))


def _span(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.maximum(np.maximum(np.ptp(one, axis=0), np.ptp(other, axis=0)), 1e-6)


def _distance(one: np.ndarray, other: np.ndarray, span: np.ndarray) -> np.ndarray:
    """[k]: root mean square of the difference over `span`, mean over axes."""
    return np.asarray(np.sqrt((((one - other) / span) ** 2).mean(axis=1)).mean(axis=-1))


def _pictures(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """(share of the change that is not explained, distance of the means over their size) of [1, SAMPLES, d] each."""
    means = one[0].mean(axis=0), other[0].mean(axis=0)
    moved, other_moved = one[0] - means[0], other[0] - means[1]
    change = min((moved**2).sum(), (other_moved**2).sum())
    size = np.sqrt((means[0] ** 2).sum() * (means[1] ** 2).sum()) ** 0.5
    left = ((moved - other_moved) ** 2).sum() / change if change > 1e-9 else np.inf
    return float(left), float(np.sqrt(((means[0] - means[1]) ** 2).sum()) / max(size, 1e-9))
