"""What each axis of a state or an action did: ranges, spikes, jumps, noise, standing still, saturation, grippers."""

import re

import numpy as np
from scipy.ndimage import median_filter

from ray_jobs.curation.rows import Table

STILL = 1e-6  # of the axis' span: less is no motion
PAUSE_MIN_S = 0.3
IDLE_SHARE = 0.05  # slower than this share of the episode's own fast pace is standing still
END_S = 0.3
GRIPPER = re.compile(r"grip|finger|hand|jaw|claw|thumb|pinch|suction", re.IGNORECASE)
FEW = 4  # an axis with no more different values than this is a switch
Values = np.ndarray | Table  # [n, d]


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """[first, last) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def switches(values: Values, names: tuple[str, ...]) -> np.ndarray:
    """[d] bool: axes that are grippers by name, or that only ever stand at few values or at either end of their span."""
    table = Table.of(values)
    found = np.array([bool(GRIPPER.search(name)) for name in names]) if len(names) == table.shape[1] else np.zeros(table.shape[1], bool)
    for axes, part in table.parts():
        span = np.maximum(np.ptp(part, axis=0), 1e-12)
        place = (part - part.min(axis=0)) / span
        ends = ((place < 0.1) | (place > 0.9)).mean(axis=0) > 0.85
        few = np.array([len(np.unique(column[:: max(1, len(column) // 512)])) <= FEW for column in part.T], bool)
        found[axes] |= ends | few
    return found


def ranges(values: Values) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """values [n, d], n >= 3 -> scores and per-axis vectors.

    span, still_axes (share of axes), roughness (RMS second difference over RMS first), repeats (share of samples equal to the one before);
    low, high, first, last, step (largest absolute), noise (1.4826 MAD of third differences / sqrt(20): the deviation of white noise on a smooth
    curve), pinned (share of the samples in motion at which the axis is at its own extreme).
    """
    table = Table.of(values)
    count, width = table.shape
    low, high = table.ends()
    span = high - low
    moving = span > 1e-6
    step, noise, pinned = np.zeros(width), np.zeros(width), np.zeros(width)
    busy, same = np.zeros(count, bool), np.ones(count - 1, bool)  # in a pause every axis stands somewhere
    bent, gone = 0.0, 0.0  # sums of squares
    for axes, part in table.parts():
        steps = np.diff(part, axis=0)
        bends = np.diff(steps, axis=0)
        size = np.abs(steps)
        step[axes] = size.max(axis=0)
        same &= (steps == 0).all(axis=1)
        bent, gone = bent + float((bends[:, moving[axes]] ** 2).sum()), gone + float((steps[:, moving[axes]] ** 2).sum())
        busy[1:] |= ((size / np.maximum(np.percentile(size, 95, axis=0), 1e-12) > 0.1) & moving[axes]).any(axis=1)
        third = np.diff(bends, axis=0)
        if len(third):
            noise[axes] = 1.4826 * np.median(np.abs(third - np.median(third, axis=0)), axis=0) / np.sqrt(20)
    if busy.any():
        edge = STILL * np.maximum(span, 1e-12)
        for axes, part in table.parts():
            pinned[axes] = ((part >= (high - edge)[axes]) | (part <= (low + edge)[axes]))[busy].mean(axis=0)
    known = max(int(moving.sum()), 1)
    scores = {
        "span": float(span.max()),
        "still_axes": float(np.mean(~moving)),
        "roughness": float(np.sqrt(bent / max(count - 2, 1) / known / max(gone / (count - 1) / known, 1e-18))),
        "repeats": float(np.mean(same)),
    }
    ends = {"first": table.rows(0, 1)[0], "last": table.rows(count - 1, count)[0]}
    return scores, {"low": low, "high": high, **ends, "step": step, "noise": noise, "pinned": np.where(moving, pinned, 0.0)}


def spikes(values: Values) -> np.ndarray:
    """[d]: the largest excursion of one or two samples (against a running median of five) over what the axis usually does in a step.

    Usual: twice its own upper quartile of steps (three glitches of a short episode must not hide each other), and a hundredth of the largest
    span of all axes (a coarse encoder's last digit is no spike).
    """
    table = Table.of(values)
    found = np.zeros(table.shape[1])
    if len(table) < 8:
        return found
    widest = _widest(table)
    for axes, part in table.parts():
        away = np.abs(part - median_filter(part, size=(5, 1), mode="nearest"))
        away[[0, 1, -2, -1]] = 0  # the running median is not itself at the ends
        usual = 2 * np.percentile(np.abs(np.diff(part, axis=0)), 75, axis=0) + 0.01 * widest + 1e-9
        found[axes] = away.max(axis=0) / usual
    return found


def glitches(values: Values) -> np.ndarray:
    """[d]: the largest distance of a sample from the cubic through the two on either side, over what is usual on the axis.

    Usual: twice its own upper quartile, and a hundredth of the largest span of all axes. Finer than `spikes`, since motion is smooth, and of use
    only beside other episodes of the robot, since contacts are not.
    """
    table = Table.of(values)
    found = np.zeros(table.shape[1])
    if len(table) < 8:
        return found
    widest = _widest(table)
    for axes, part in table.parts():
        away = np.abs(part[2:-2] - (4 * (part[1:-3] + part[3:-1]) - part[:-4] - part[4:]) / 6)
        found[axes] = away.max(axis=0) / (2 * np.percentile(away, 75, axis=0) + 0.01 * widest + 1e-9)
    return found


def jumps(values: Values) -> np.ndarray:
    """[d]: the largest step that does not come back, over the fastest of the steps around it and the axis' usual step.

    A turn of an angle past +-pi (or 180 degrees), and a vector that changes its sign as a whole (a quaternion), are no jumps.
    """
    table = Table.of(values)
    found = np.zeros(table.shape[1])
    if len(table) < 13:
        return found
    widest = _widest(table)
    turned = np.zeros(len(table) - 1, np.int32)  # axes that change their sign in a step
    for _, part in table.parts():
        turned += _mirrored(part).sum(axis=1)
    for axes, part in table.parts():
        size = np.abs(np.diff(part, axis=0))
        usual = np.percentile(size, 95, axis=0) + 0.01 * widest + 1e-9  # an idle finger that snaps shut is ordinary
        for turn in (2 * np.pi, 360.0):
            wrapped = (np.abs(size - turn) < 0.1 * turn) & (np.abs(part).max(axis=0) < 0.6 * turn)
            size[wrapped] = 0
        size[_mirrored(part) & (turned >= 2)[:, None]] = 0
        around = np.zeros_like(size)
        for shift in (1, 2, 3):
            around[shift:] = np.maximum(around[shift:], size[:-shift])
            around[:-shift] = np.maximum(around[:-shift], size[shift:])
        found[axes] = (size / (around + usual)).max(axis=0)
    return found


def _mirrored(part: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(part[1:] + part[:-1]) < 0.2 * np.abs(np.diff(part, axis=0)))


def _widest(table: Table) -> float:
    low, high = table.ends()
    return float((high - low).max(initial=0.0))


def stuck(t_ns: np.ndarray, values: Values) -> np.ndarray:
    """[d]: the longest time (s of the others' motion) for which an axis keeps one exact value while other axes move."""
    table = Table.of(values)
    seconds = np.diff(t_ns) / 1e9
    at_work = np.zeros(len(table) - 1, np.int32)  # axes
    for _, part in table.parts():
        at_work += _at_work(part).sum(axis=1)
    longest = np.zeros(table.shape[1])
    for axes, part in table.parts():
        span, own = np.ptp(part, axis=0), _at_work(part)
        for place in np.flatnonzero(span > 1e-6):  # still from beginning to end: the fleet knows whether it should move
            moved = np.concatenate([[0.0], np.cumsum(seconds * (at_work - own[:, place] > 0))])
            stands = runs(np.diff(part[:, place]) == 0)
            longest[axes.start + place] = max((moved[last] - moved[first] for first, last in stands if last - first >= 3), default=0.0)
    return longest


def _at_work(part: np.ndarray) -> np.ndarray:
    """[n - 1, k] bool: steps of at least a fifth of the axis' fast ones."""
    steps = np.abs(np.diff(part, axis=0))
    return np.asarray((steps / np.maximum(np.percentile(steps, 95, axis=0), 1e-12) > 0.2) & (np.ptp(part, axis=0) > 1e-6))


def speeds(values: Values, by_span: bool) -> np.ndarray:
    """[n - 1]: the length of each step, or of the step of the axes that move, each over its span."""
    table = Table.of(values)
    squares = np.zeros(max(len(table) - 1, 0))
    for _, part in table.parts():
        steps = np.diff(part, axis=0)
        if by_span:
            span = np.ptp(part, axis=0)
            steps = steps[:, span > 1e-6] / np.maximum(span, 1e-9)[span > 1e-6]
        squares += (steps**2).sum(axis=1)
    return np.sqrt(squares)


def idleness(t_ns: np.ndarray, values: Values) -> dict[str, float]:
    """fraction: share of the time standing still; longest_s: longest such stretch; start_pace, end_pace: speed in the first and the last
    0.3 s over the episode's fast pace (90th percentile)."""
    seconds = np.diff(t_ns) / 1e9
    if _widest(table := Table.of(values)) <= 1e-6:
        return {"idle.fraction": 1.0, "idle.longest_s": float(seconds.sum())}
    speed = speeds(table, by_span=True) / seconds
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
