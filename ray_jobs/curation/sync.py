"""Do the pictures move when the joints do?"""

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.optimize import nnls

from ray_jobs.curation.agreement import peak_offset, sample

LAG_S = 1.0
LAG_STEP_S = 0.05
LAG_AXES = 12  # those that move most; an arm hides behind fewer where a hand has many
SMOOTH_S = 0.2  # a camera slower than the recording repeats frames: its change comes in bursts
LEAST = 20  # frames


def clock_lag(t_ns: np.ndarray, change: np.ndarray, joints: np.ndarray) -> tuple[float, float, float] | None:
    """How much later the picture shows a motion than the joints do (s), the R2 there, and what it gains on no lag.

    The square root of the picture's change (a running mean: large motions would outweigh all others) is explained by that of how far each
    joint went, with weights of the episode's own, at each lag within +-1 s. None where one of them hardly varies or time does not run evenly.
    """
    if len(t_ns) < LEAST or joints.shape[1] == 0:
        return None
    seconds = (t_ns - t_ns[0]) / 1e9
    period = float(np.median(np.diff(seconds)))
    if period <= 0 or (np.diff(seconds) <= 0).any() or seconds[-1] > 3 * period * len(seconds):
        return None
    if not np.isfinite(change).any():
        return None
    width = max(1, round(SMOOTH_S / period))
    moved = np.sqrt(uniform_filter1d(np.where(np.isfinite(change), change, np.nanmedian(change)), width))
    strides = np.maximum(uniform_filter1d(np.abs(np.diff(joints, axis=0, prepend=joints[:1])), width, axis=0), 0)
    axes = np.argsort(-strides.std(axis=0), kind="stable")[:LAG_AXES]
    axes = axes[strides[:, axes].std(axis=0) > 1e-7]
    if not len(axes) or moved.std() < 1e-4:
        return None
    step = max(period, LAG_STEP_S)
    reach = min(round(LAG_S / step), int(len(seconds) * period / step) // 4)
    lags = np.arange(-reach, reach + 1) * step
    inside = (seconds >= seconds[0] + reach * step + period - 1e-6) & (seconds <= seconds[-1] - reach * step + 1e-6)
    if inside.sum() < 12:
        return None
    rooted = np.sqrt(strides[:, axes])
    curve = [explained(sample(seconds, rooted, seconds[inside] - lag), moved[inside]) for lag in lags]  # the same frames at every lag
    best = int(np.argmax(curve))
    return float(lags[best] + peak_offset(np.array(curve), best) * step), float(curve[best]), float(curve[best] - curve[reach])


def explained(strides: np.ndarray, change: np.ndarray) -> float:
    """R2 of the picture's change on the strides with weights of at least 0: a joint that moves cannot calm the picture."""
    scale = np.maximum(strides.std(axis=0), 1e-9)
    _, residual = nnls(np.concatenate([strides / scale, np.ones((len(strides), 1))], axis=1), change)
    total = float(((change - change.mean()) ** 2).sum())
    return 1 - residual**2 / total if total > 1e-9 else 0.0
