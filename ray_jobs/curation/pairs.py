"""Command axes beside the state axes that they command: direction, order, scale, offset and delay, from one episode alone.

Only for robots whose actions name the same axes as the state (or are as many). Slow parts are removed by subtracting a running mean, since
two axes that both drift correlate by chance; what is left is compared at the delay that fits best over all axes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

HIGHPASS_S = 1.5
PERIOD_S = 0.04  # faster streams are thinned to this
LAGS_S = (-0.8, 1.2)  # positive: the state follows the command
LEAST = 25  # grid samples


@dataclass(frozen=True)
class Pairs:
    """names: paired axes as (action, state) columns. r: median correlation of the moving pairs; lag_s: their delay; level: the command is a
    position (else a velocity or a step). corr, slope, bias [pairs]: correlation, and (positions only) regression slope of state on command and
    median of command less state; 0 where the pair does not move. swap: evidence that two columns changed places, their numbers; frozen_s [pairs]:
    longest time for which the state axis keeps one value while its command goes on."""

    names: tuple[tuple[int, int], ...]
    r: float
    lag_s: float
    level: bool
    corr: np.ndarray
    slope: np.ndarray
    bias: np.ndarray
    swap: float
    swapped: tuple[int, int]
    frozen_s: np.ndarray


def match_names(action: tuple[str, ...], state: tuple[str, ...], actions: int, states: int) -> tuple[tuple[int, int], ...]:
    """Pairs of (action column, state column): by equal names where at least half of the actions have one, else by place where they are as many."""
    if len(action) == actions and len(state) == states and len(set(state)) == states:
        places = {name: number for number, name in enumerate(state)}
        named = tuple((number, places[name]) for number, name in enumerate(action) if name in places)
        if 2 * len(named) >= actions:
            return named
    return tuple((number, number) for number in range(actions)) if actions == states else ()


def pairs(state_t: np.ndarray, state: np.ndarray, action_t: np.ndarray, action: np.ndarray, matched: tuple[tuple[int, int], ...]) -> Pairs | None:
    """Times in s (increasing), state [n, s], action [m, a]; None where too little moves to tell."""
    if not matched or len(state_t) < LEAST or len(action_t) < LEAST:
        return None
    period = max(float(np.median(np.diff(action_t))), PERIOD_S)
    low, high = max(state_t[0], action_t[0]), min(state_t[-1], action_t[-1])
    if (high - low) / period < LEAST:
        return None
    grid = np.arange(low, high + 1e-9, period)
    command = _at(action_t, action[:, [pair[0] for pair in matched]], grid)
    answer = _at(state_t, state[:, [pair[1] for pair in matched]], grid)
    ordered, follows = np.ptp(command, axis=0), np.ptp(answer, axis=0)
    moving = (ordered > 1e-6) & (follows > 1e-6)
    if moving.sum() < 2:
        return None
    lags = list(range(round(LAGS_S[0] / period), round(LAGS_S[1] / period) + 1))
    width = max(3, round(HIGHPASS_S / period))
    fits = []
    for told, done in (
        (command - uniform_filter1d(command, width, axis=0), answer - uniform_filter1d(answer, width, axis=0)),  # a position
        (command[:-1], np.diff(answer, axis=0)),  # a velocity or a step
    ):
        curve = [_fit(told[:, moving], done[:, moving], lag) for lag in lags]
        fits.append((max(curve), lags[int(np.argmax(curve))], told, done))
    level = fits[0][0] > fits[1][0] - 0.05
    r, lag, told, done = fits[0 if level else 1]
    ahead, behind = _shifted(told, done, lag)
    table = _correlations(ahead, behind)
    diagonal = np.where(moving, np.diag(table), 0.0)
    raw_ahead, raw_behind = _shifted(command, answer, lag)
    slope = np.zeros(len(matched))
    bias = np.zeros(len(matched))
    if level:
        centred = raw_ahead - raw_ahead.mean(axis=0)
        slope = np.where(moving, (centred * raw_behind).sum(axis=0) / np.maximum((centred**2).sum(axis=0), 1e-12), 0.0)
        bias = np.median(raw_ahead - raw_behind, axis=0)
    swap, swapped = _swap(table, diagonal, moving)
    return Pairs(matched, r, lag * period, level, diagonal, slope, bias, swap, swapped, _frozen(command, answer, ordered, period))


def _at(times: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(grid, times, column) for column in values.T], axis=1)


def _shifted(told: np.ndarray, done: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `told` beside the rows of `done` that come `lag` later."""
    count = len(told)
    return (told[: count - lag], done[lag:]) if lag >= 0 else (told[-lag:], done[: count + lag])


def _fit(told: np.ndarray, done: np.ndarray, lag: int) -> float:
    """Median over the axes of |correlation|: a flipped minority does not hide the delay."""
    ahead, behind = _shifted(told, done, lag)
    if len(ahead) < LEAST // 2:
        return 0.0
    return float(np.median(np.abs(_paired(ahead, behind))))


def _paired(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    scale = np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
    return np.asarray(np.where(scale > 1e-15, (one * other).sum(axis=0) / np.maximum(scale, 1e-15), 0.0))


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[d, d]: row i, column j: command i beside state j."""
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    scale = np.sqrt(np.outer((one**2).sum(axis=0), (other**2).sum(axis=0)))
    return np.asarray(np.where(scale > 1e-15, one.T @ other / np.maximum(scale, 1e-15), 0.0))


def _swap(table: np.ndarray, diagonal: np.ndarray, moving: np.ndarray) -> tuple[float, tuple[int, int]]:
    """How much better two commands fit each other's axis than their own: the least of both crosswise correlations less the larger own."""
    cross = np.minimum(table, table.T)
    own = np.maximum(diagonal[:, None], diagonal[None, :])
    gain = np.where(moving[:, None] & moving[None, :] & ~np.eye(len(diagonal), dtype=bool), cross - own, -2.0)
    place = int(np.argmax(gain))
    first, second = divmod(place, len(diagonal))
    return float(gain.max()), (first, second)


def _frozen(command: np.ndarray, answer: np.ndarray, ordered: np.ndarray, period: float) -> np.ndarray:
    """[d] s: longest stand of a state axis in which its command covers more than a fifth of its own span."""
    longest = np.zeros(len(ordered))
    same = np.abs(np.diff(answer, axis=0)) < 1e-9
    for axis in np.flatnonzero(ordered > 1e-6):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same[:, axis], [False]]).astype(np.int8)))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            if (last - first) * period > longest[axis] and np.ptp(command[first : last + 1, axis]) > 0.2 * ordered[axis]:
                longest[axis] = (last - first) * period
    return longest
