"""Do the pictures move when the joints do?"""

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.optimize import nnls

from ray_jobs.curation.agreement import peak_offset, sample
from ray_jobs.curation.rows import Table

LAG_S = 1.0
LAG_STEP_S = 0.05
LAG_AXES = 12  # those that move most; an arm hides behind fewer where a hand has many
SMOOTH_S = 0.2  # a camera slower than the recording repeats frames: its change comes in bursts
LEAST = 20  # frames
STRETCH = 1 << 14  # frames


def clock_lag(t_ns: np.ndarray, change: np.ndarray, joints: np.ndarray | Table) -> tuple[float, float, float] | None:
    """How much later the picture shows a motion than the joints do (s), the R2 there, and what it gains on no lag.

    The square root of the picture's change (a running mean: large motions would outweigh all others) is explained by that of how far each
    joint went, with weights of the episode's own, at each lag within +-1 s. None where one of them hardly varies or time does not run evenly.
    """
    table = Table.of(joints)
    if len(t_ns) < LEAST or table.shape[1] == 0:
        return None
    seconds = (t_ns - t_ns[0]) / 1e9
    period = float(np.median(np.diff(seconds)))
    if period <= 0 or (np.diff(seconds) <= 0).any() or seconds[-1] > 3 * period * len(seconds):
        return None
    if not np.isfinite(change).any():
        return None
    width = max(1, round(SMOOTH_S / period))
    moved = np.sqrt(uniform_filter1d(np.where(np.isfinite(change), change, np.nanmedian(change)), width))
    strides, spread = Table(len(table), table.shape[1], np.float64), np.zeros(table.shape[1])
    for axes, part in table.parts():
        smooth = np.maximum(uniform_filter1d(np.abs(np.diff(part, axis=0, prepend=part[:1])), width, axis=0), 0)
        spread[axes] = smooth.std(axis=0)
        strides.write(axes, np.sqrt(smooth))
    chosen = np.argsort(-spread, kind="stable")[:LAG_AXES]
    chosen = chosen[spread[chosen] > 1e-7]
    if not len(chosen) or moved.std() < 1e-4:
        return None
    step = max(period, LAG_STEP_S)
    reach = min(round(LAG_S / step), int(len(seconds) * period / step) // 4)
    lags = np.arange(-reach, reach + 1) * step
    inside = (seconds >= seconds[0] + reach * step + period - 1e-6) & (seconds <= seconds[-1] - reach * step + 1e-6)
    if inside.sum() < 12:
        return None
    curve = _curve(seconds, strides, chosen, moved, np.flatnonzero(inside), lags)  # the same frames at every lag
    best = int(np.argmax(curve))
    return float(lags[best] + peak_offset(curve, best) * step), float(curve[best]), float(curve[best] - curve[reach])


def _curve(seconds: np.ndarray, strides: Table, axes: np.ndarray, moved: np.ndarray, frames: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """R2 at each lag, of the picture's change on the strides with weights of at least 0: a joint that moves cannot calm the picture.

    Least squares need no more of a long recording than the products of its columns, which add up stretch by stretch.
    """
    products = np.zeros((len(lags), len(axes) + 2, len(axes) + 2))
    for first in range(0, len(frames), STRETCH):
        some = frames[first : first + STRETCH]
        low, high = np.searchsorted(seconds, (seconds[some[0]] - lags[-1], seconds[some[-1]] - lags[0]))
        low, high = max(low - 1, 0), min(high + 1, len(seconds))
        near = strides.rows(low, high)[:, axes]
        for place, lag in enumerate(lags):
            here = sample(seconds[low:high], near, seconds[some] - lag)
            rows = np.concatenate([here, np.ones((len(some), 1)), moved[some, None]], axis=1)
            products[place] += rows.T @ rows
    total = float(((moved[frames] - moved[frames].mean()) ** 2).sum())
    return np.array([_explained(each, total) for each in products])


def _explained(products: np.ndarray, total: float) -> float:
    """From X'X of the columns, the last of them being what is explained: any root of it has the same least squares."""
    scale = np.sqrt(np.maximum(np.diag(products), 1e-18))
    values, vectors = np.linalg.eigh(products / np.outer(scale, scale))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    _, residual = nnls(root[:, :-1], root[:, -1])
    return 1 - (residual * scale[-1]) ** 2 / total if total > 1e-9 else 0.0
