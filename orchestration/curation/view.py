"""Has the camera moved? A background against the fleet's usual one."""

import numpy as np

REACH = 8  # pixels of the descriptor
GREY_NOISE = 6.0
FLAT = 0.02  # of correlation between the best and the worst place: without structure all match alike


def view_shift(background: np.ndarray, usual: np.ndarray, spread: np.ndarray) -> float:
    """By which share of the width the picture is displaced: the shift of the best match (weighted correlation, sub-pixel by parabola).

    background, usual, spread: [n*n] greys. Pixels that differ from episode to episode (objects, the arm) weigh little.
    """
    size = round(len(usual) ** 0.5)
    if size * size != len(usual) or len(background) != len(usual):
        return 0.0
    picture, reference = background.reshape(size, size), usual.reshape(size, size)
    weight = 1 / (GREY_NOISE**2 + spread.reshape(size, size) ** 2)
    scores = np.full((2 * REACH + 1, 2 * REACH + 1), -1.0)
    for down in range(-REACH, REACH + 1):
        for right in range(-REACH, REACH + 1):
            scores[down + REACH, right + REACH] = _match(picture, reference, weight, down, right)
    if np.ptp(scores) < FLAT:
        return 0.0
    row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
    offset = (row - REACH + _peak(scores[:, column], int(row)), column - REACH + _peak(scores[row, :], int(column)))
    return float(np.hypot(*offset) / size)


def _match(picture: np.ndarray, reference: np.ndarray, weight: np.ndarray, down: int, right: int) -> float:
    size = len(reference)
    rows, columns = slice(max(down, 0), size + min(down, 0)), slice(max(right, 0), size + min(right, 0))
    back_rows, back_columns = slice(max(-down, 0), size - max(down, 0)), slice(max(-right, 0), size - max(right, 0))
    one, other, share = picture[rows, columns], reference[back_rows, back_columns], weight[back_rows, back_columns]
    share = share / share.sum()
    one, other = one - (share * one).sum(), other - (share * other).sum()
    scale = np.sqrt((share * one**2).sum() * (share * other**2).sum())
    return float((share * one * other).sum() / scale) if scale > 1e-9 else 0.0


def _peak(curve: np.ndarray, best: int) -> float:
    if not 0 < best < len(curve) - 1:
        return 0.0
    left, middle, right = curve[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0
