"""Command axes beside the state axes that they command: direction, order, scale, offset and delay, from one episode alone.

Only for robots whose actions name the same axes as the state (or are as many). Slow parts are removed by subtracting a running mean, since
two axes that both drift correlate by chance; what is left is compared at the delay that fits best over all axes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from ray_jobs.curation.agreement import sample
from ray_jobs.curation.rows import Table

HIGHPASS_S = 1.5
PERIOD_S = 0.04  # faster streams are thinned to this
LAGS_S = (-0.8, 1.2)  # positive: the state follows the command
LEAST = 25  # grid samples
Form = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


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


def pairs(
    state_t: np.ndarray, state: np.ndarray | Table, action_t: np.ndarray, action: np.ndarray | Table, matched: tuple[tuple[int, int], ...]
) -> Pairs | None:
    """Times in s (increasing), state [n, s], action [m, a]; None where too little moves to tell."""
    if not matched or len(state_t) < LEAST or len(action_t) < LEAST:
        return None
    period = max(float(np.median(np.diff(action_t))), PERIOD_S)
    low, high = max(state_t[0], action_t[0]), min(state_t[-1], action_t[-1])
    if (high - low) / period < LEAST:
        return None
    grid = np.arange(low, high + 1e-9, period)
    command, answer = _at(action_t, action, [pair[0] for pair in matched], grid), _at(state_t, state, [pair[1] for pair in matched], grid)
    ordered, follows = (np.subtract(*table.ends()[::-1]) for table in (command, answer))
    moving = (ordered > 1e-6) & (follows > 1e-6)
    if moving.sum() < 2:
        return None
    lags = list(range(round(LAGS_S[0] / period), round(LAGS_S[1] / period) + 1))
    width = max(3, round(HIGHPASS_S / period))
    fits = []
    for form in (_places, _strides):
        each = np.zeros((len(lags), len(matched)))
        for axes, told, done in _beside(command, answer, form, width):
            each[:, axes] = [_fit(told, done, lag) for lag in lags]
        curve = np.median(np.abs(each[:, moving]), axis=1)  # a flipped minority does not hide the delay
        fits.append((float(curve.max()), lags[int(np.argmax(curve))], form))
    level = fits[0][0] > fits[1][0] - 0.05
    r, lag, form = fits[0 if level else 1]
    table = _correlations(command, answer, form, width, lag)
    diagonal = np.where(moving, np.diag(table), 0.0)
    slope, bias, frozen_s = np.zeros(len(matched)), np.zeros(len(matched)), np.zeros(len(matched))
    for axes, told, done in _beside(command, answer, _as_they_are, width):
        frozen_s[axes] = _frozen(told, done, ordered[axes], period)
        if level:
            ahead, behind = _shifted(told, done, lag)
            centred = ahead - ahead.mean(axis=0)
            slope[axes] = np.where(moving[axes], (centred * behind).sum(axis=0) / np.maximum((centred**2).sum(axis=0), 1e-12), 0.0)
            bias[axes] = np.median(ahead - behind, axis=0)
    swap, swapped = _swap(table, diagonal, moving)
    return Pairs(matched, r, lag * period, level, diagonal, slope, bias, swap, swapped, frozen_s)


def _at(times: np.ndarray, values: np.ndarray | Table, chosen: list[int], grid: np.ndarray) -> Table:
    """The chosen axes on the grid."""
    parts = Table.of(values).parts(chosen)
    return Table.made(len(grid), len(chosen), ((axes, sample(times, part, grid)) for axes, part in parts), np.float64)


def _places(told: np.ndarray, done: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The command is a position: both without their slow parts."""
    return told - uniform_filter1d(told, width, axis=0), done - uniform_filter1d(done, width, axis=0)


def _strides(told: np.ndarray, done: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The command is a velocity or a step."""
    return told[:-1], np.diff(done, axis=0)


def _as_they_are(told: np.ndarray, done: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    return told, done


def _beside(command: Table, answer: Table, form: Form, width: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    for axes, told in command.parts():
        yield axes, *form(told, answer.axes(range(axes.start, axes.stop)), width)


def _shifted(told: np.ndarray, done: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `told` beside the rows of `done` that come `lag` later."""
    count = len(told)
    return (told[: count - lag], done[lag:]) if lag >= 0 else (told[-lag:], done[: count + lag])


def _fit(told: np.ndarray, done: np.ndarray, lag: int) -> np.ndarray:
    """[k]: correlation of each axis."""
    ahead, behind = _shifted(told, done, lag)
    return _paired(ahead, behind) if len(ahead) >= LEAST // 2 else np.zeros(told.shape[1])


def _paired(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    scale = np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
    return np.asarray(np.where(scale > 1e-15, (one * other).sum(axis=0) / np.maximum(scale, 1e-15), 0.0))


def _correlations(command: Table, answer: Table, form: Form, width: int, lag: int) -> np.ndarray:
    """[d, d]: row i, column j: command i beside state j."""
    count = len(command) - (form is _strides) - abs(lag)
    ahead, behind = Table(count, command.shape[1], np.float64), Table(count, command.shape[1], np.float64)
    sizes = np.zeros((2, command.shape[1]))
    for axes, told, done in _beside(command, answer, form, width):
        for number, (table, part) in enumerate(zip((ahead, behind), _shifted(told, done, lag), strict=True)):
            centred = part - part.mean(axis=0)
            sizes[number, axes] = (centred**2).sum(axis=0)
            table.write(axes, centred)
    scale = np.sqrt(np.outer(*sizes))
    products = np.zeros(scale.shape)
    for first, last in ahead.stretches():
        products += ahead.rows(first, last).T @ behind.rows(first, last)
    return np.asarray(np.where(scale > 1e-15, products / np.maximum(scale, 1e-15), 0.0))


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
