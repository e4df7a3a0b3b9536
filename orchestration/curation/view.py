"""Has the camera moved? A background against the fleet's usual one."""

from typing import NamedTuple

import numpy as np

REACH = 8  # pixels of the descriptor
GREY_NOISE = 6.0
FLAT = 0.02  # of correlation between the best and the worst place: without structure all match alike
MEMBERS = 12  # of the fleet's own backgrounds, by which the habit of a view is known


class Match(NamedTuple):
    """shift: share of the width by which the picture is displaced; match: weighted correlation there, in [-1, 1]."""

    shift: float
    match: float


class ViewHabit(NamedTuple):
    """How far the fleet's own backgrounds lie from their median: medians and spreads (1.4826 MAD) of shift and match."""

    shift: float
    shift_spread: float
    match: float
    match_spread: float


def view_match(background: np.ndarray, usual: np.ndarray, spread: np.ndarray) -> Match:
    """The best match over all displacements within a quarter of the width (weighted correlation, sub-pixel by parabola).

    background, usual, spread: [n*n] greys. Pixels that differ from episode to episode (objects, the arm) weigh little.
    """
    size = round(len(usual) ** 0.5)
    if size * size != len(usual) or len(background) != len(usual):
        return Match(0.0, 1.0)
    scores = _scores(background.reshape(size, size), usual.reshape(size, size), 1 / (GREY_NOISE**2 + spread.reshape(size, size) ** 2))
    if np.ptp(scores) < FLAT:
        return Match(0.0, float(scores.max()))
    row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
    offset = (row - REACH + _peak(scores[:, column], int(row)), column - REACH + _peak(scores[row, :], int(column)))
    return Match(float(np.hypot(*offset) / size), float(scores.max()))


def unmoved_match(background: np.ndarray, usual: np.ndarray, spread: np.ndarray) -> float:
    """The weighted correlation at no displacement; 1 where the sizes differ."""
    size = round(len(usual) ** 0.5)
    if size * size != len(usual) or len(background) != len(usual):
        return 1.0
    scores = _scores(background.reshape(size, size), usual.reshape(size, size), 1 / (GREY_NOISE**2 + spread.reshape(size, size) ** 2))
    return float(scores[REACH, REACH])


def view_habit(backgrounds: list[np.ndarray], usual: np.ndarray, spread: np.ndarray) -> ViewHabit:
    """From at most MEMBERS of the fleet's backgrounds, evenly picked."""
    picks = [backgrounds[index] for index in np.unique(np.linspace(0, len(backgrounds) - 1, MEMBERS).round().astype(int))]
    table = np.array([view_match(background, usual, spread) for background in picks])
    middle = np.median(table, axis=0)
    around = 1.4826 * np.median(np.abs(table - middle), axis=0)
    return ViewHabit(float(middle[0]), float(around[0]), float(middle[1]), float(around[1]))


def turned(background: np.ndarray, how: str) -> np.ndarray:
    """The background upside down (turned by half a turn) or mirrored left to right."""
    size = round(len(background) ** 0.5)
    picture = background[: size * size].reshape(size, size)
    return np.asarray(picture[::-1, ::-1] if how == "upside down" else picture[:, ::-1]).ravel()


def _scores(picture: np.ndarray, reference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[2 * REACH + 1, 2 * REACH + 1]: the weighted correlation of what overlaps at each displacement of the picture, all at once by FFT."""
    size = len(reference)
    picture, reference = picture - picture.mean(), reference - reference.mean()
    shape = (size + REACH, size + REACH)
    mine = [np.fft.rfft2(part, shape) for part in (np.ones_like(picture), picture, picture**2)]
    theirs = [np.conj(np.fft.rfft2(weight * part, shape)) for part in (np.ones_like(reference), reference, reference**2)]
    places = np.arange(-REACH, REACH + 1)

    def slid(one: int, other: int) -> np.ndarray:
        return np.asarray(np.fft.irfft2(mine[one] * theirs[other], shape)[np.ix_(places, places)])

    total = np.maximum(slid(0, 0), 1e-12)
    mean, other_mean = slid(1, 0) / total, slid(0, 1) / total
    variance = np.maximum(slid(2, 0) / total - mean**2, 0.0) * np.maximum(slid(0, 2) / total - other_mean**2, 0.0)
    return np.where(variance > 1e-9, (slid(1, 1) / total - mean * other_mean) / np.sqrt(np.maximum(variance, 1e-12)), 0.0)


def _peak(curve: np.ndarray, best: int) -> float:
    if not 0 < best < len(curve) - 1:
        return 0.0
    left, middle, right = curve[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0
