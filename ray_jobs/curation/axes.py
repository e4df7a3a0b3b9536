"""What each axis of a state or an action did: ranges, spikes, jumps, noise, standing still, saturation, grippers."""

import re

import numpy as np
from scipy.ndimage import median_filter

STILL = 1e-6  # of the axis' span: less is no motion
PAUSE_MIN_S = 0.3
IDLE_SHARE = 0.05  # slower than this share of the episode's own fast pace is standing still
END_S = 0.3
GRIPPER = re.compile(r"grip|finger|hand|jaw|claw|thumb|pinch|suction", re.IGNORECASE)
FEW = 4  # an axis with no more different values than this is a switch


def in_order(t_ns: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples by time, one per instant."""
    times, first = np.unique(t_ns, return_index=True)
    return times, values[first]


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """[first, last) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def switches(values: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """[d] bool: axes that are grippers by name, or that only ever stand at few values or at either end of their span."""
    named = np.array([bool(GRIPPER.search(name)) for name in names]) if len(names) == values.shape[1] else np.zeros(values.shape[1], bool)
    span = np.maximum(np.ptp(values, axis=0), 1e-12)
    place = (values - values.min(axis=0)) / span
    ends = ((place < 0.1) | (place > 0.9)).mean(axis=0) > 0.85
    few = np.array([len(np.unique(column[:: max(1, len(column) // 512)])) <= FEW for column in values.T], bool)
    return np.asarray(named | ends | few)


def ranges(values: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """values [n, d], n >= 3 -> scores and per-axis vectors.

    span, still_axes (share of axes), roughness (RMS second difference over RMS first), repeats (share of samples equal to the one before);
    low, high, first, last, step (largest absolute), noise (1.4826 MAD of third differences / sqrt(20): the deviation of white noise on a smooth
    curve), pinned (share of the samples in motion at which the axis is at its own extreme).
    """
    span = np.ptp(values, axis=0)
    steps = np.diff(values, axis=0)
    bends = np.diff(steps, axis=0)
    moving = span > 1e-6
    rough = np.sqrt((bends[:, moving] ** 2).mean() / max((steps[:, moving] ** 2).mean(), 1e-18)) if moving.any() and len(bends) else 0.0
    edge = STILL * np.maximum(span, 1e-12)
    at_edge = (values >= values.max(axis=0) - edge) | (values <= values.min(axis=0) + edge)
    pace = np.abs(steps) / np.maximum(np.percentile(np.abs(steps), 95, axis=0), 1e-12)
    busy = np.concatenate([[False], np.where(moving, np.minimum(pace, 1.0), 0.0).max(axis=1) > 0.1])  # in a pause every axis stands somewhere
    pinned = at_edge[busy].mean(axis=0) if busy.any() else np.zeros(len(span))
    third = np.diff(bends, axis=0)
    noise = 1.4826 * np.median(np.abs(third - np.median(third, axis=0)), axis=0) / np.sqrt(20) if len(third) else np.zeros(len(span))
    scores = {
        "span": float(span.max()),
        "still_axes": float(np.mean(~moving)),
        "roughness": float(rough),
        "repeats": float(np.mean((steps == 0).all(axis=1))),
    }
    vectors = {
        "low": values.min(axis=0),
        "high": values.max(axis=0),
        "first": values[0],
        "last": values[-1],
        "step": np.abs(steps).max(axis=0),
        "noise": noise,
        "pinned": np.where(moving, pinned, 0.0),
    }
    return scores, vectors


def spikes(values: np.ndarray) -> np.ndarray:
    """[d]: the largest excursion of one or two samples (against a running median of five) over what the axis usually does in a step.

    Usual: twice its own upper quartile of steps (three glitches of a short episode must not hide each other), and a hundredth of the largest
    span of all axes (a coarse encoder's last digit is no spike).
    """
    if len(values) < 8:
        return np.zeros(values.shape[1])
    away = np.abs(values - median_filter(values, size=(5, 1), mode="nearest"))
    away[[0, 1, -2, -1]] = 0  # the running median is not itself at the ends
    return np.asarray(away.max(axis=0) / _usual_step(values))


def jumps(values: np.ndarray) -> np.ndarray:
    """[d]: the largest step that does not come back, over the fastest of the steps around it and the axis' usual step.

    A turn of an angle past +-pi (or 180 degrees), and a vector that changes its sign as a whole (a quaternion), are no jumps.
    """
    steps = np.diff(values, axis=0)
    if len(steps) < 12:
        return np.zeros(values.shape[1])
    size = np.abs(steps)
    for turn in (2 * np.pi, 360.0):
        wrapped = (np.abs(size - turn) < 0.1 * turn) & (np.abs(values).max(axis=0) < 0.6 * turn)
        size[wrapped] = 0
    mirrored = np.abs(values[1:] + values[:-1]) < 0.2 * np.abs(steps)
    size[mirrored & (mirrored.sum(axis=1) >= 2)[:, None]] = 0
    around = np.zeros_like(size)
    for shift in (1, 2, 3):
        around[shift:] = np.maximum(around[shift:], size[:-shift])
        around[:-shift] = np.maximum(around[:-shift], size[shift:])
    usual = np.percentile(np.abs(steps), 95, axis=0) + 0.01 * np.ptp(values, axis=0).max() + 1e-9  # an idle finger that snaps shut is ordinary
    ratio = size / (around + usual)
    return np.asarray(ratio.max(axis=0))


def _usual_step(values: np.ndarray) -> np.ndarray:
    steps = np.abs(np.diff(values, axis=0))
    return np.asarray(2 * np.percentile(steps, 75, axis=0) + 0.01 * np.ptp(values, axis=0).max() + 1e-9)


def stuck(t_ns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[d]: the longest time (s of the others' motion) for which an axis keeps one exact value while other axes move."""
    seconds = np.diff(t_ns) / 1e9
    steps = np.abs(np.diff(values, axis=0))
    pace = steps / np.maximum(np.percentile(steps, 95, axis=0), 1e-12)
    pace[:, np.ptp(values, axis=0) <= 1e-6] = 0
    busy = np.minimum(pace, 1.0)
    longest = np.zeros(values.shape[1])
    for axis in range(values.shape[1]):
        others = np.delete(busy, axis, axis=1).max(axis=1, initial=0.0) > 0.2
        moved = np.concatenate([[0.0], np.cumsum(seconds * others)])
        if values[:, axis].max() - values[:, axis].min() <= 1e-6:
            continue  # still from beginning to end: the fleet knows whether it should move
        longest[axis] = max((moved[last] - moved[first] for first, last in runs(steps[:, axis] == 0) if last - first >= 3), default=0.0)
    return longest


def idleness(t_ns: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """fraction: share of the time standing still; longest_s: longest such stretch; start_pace, end_pace: speed in the first and the last
    0.3 s over the episode's fast pace (90th percentile)."""
    seconds = np.diff(t_ns) / 1e9
    scale = np.maximum(np.ptp(values, axis=0), 1e-9)
    moving_axes = np.ptp(values, axis=0) > 1e-6
    if not moving_axes.any():
        return {"idle.fraction": 1.0, "idle.longest_s": float(seconds.sum())}
    speed = np.linalg.norm(np.diff(values, axis=0)[:, moving_axes] / scale[moving_axes], axis=1) / seconds
    fast = np.percentile(speed, 90)
    still = speed < IDLE_SHARE * fast
    lengths = [float(seconds[first:last].sum()) for first, last in runs(still)]
    count = min(len(speed), max(2, round(END_S / max(float(np.median(seconds)), 1e-6))))
    return {
        "idle.fraction": sum(length for length in lengths if length >= PAUSE_MIN_S) / max(float(seconds.sum()), 1e-9),
        "idle.longest_s": max(lengths, default=0.0),
        "idle.start_pace": float(speed[:count].mean() / max(fast, 1e-12)),
        "idle.end_pace": float(speed[-count:].mean() / max(fast, 1e-12)),
    }


def events(values: np.ndarray) -> float:
    """How often one axis goes from one end of its span to the other (hysteresis at a quarter and three quarters)."""
    span = float(np.ptp(values))
    if span < 1e-6:
        return 0.0
    place = (values - values.min()) / span
    side = place[(place < 0.25) | (place > 0.75)] > 0.5
    return float(np.count_nonzero(np.diff(side.astype(np.int8))))
