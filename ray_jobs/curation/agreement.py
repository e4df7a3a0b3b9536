"""Does the arm do what the commands say? A regression of state change on command, without knowing the kinematics.

Two forms: "per axis" where state and action have the same axes (joint targets), and "coupled" where they have not
(end-effector deltas). Within an episode it tells how well and with what delay the arm follows; its sums, kept in the ledger, let
the verdicts fit one model over a fleet, under which a flipped axis shows.
"""

from dataclasses import dataclass

import numpy as np

from ray_jobs.curation.rows import Table

PER_AXIS, COUPLED = 0.0, 1.0
COUPLED_MAX = 8  # more axes than this, and their products outnumber an episode's samples
PAIRED_R2 = 0.3  # where the axes explain less by their own commands, all commands are asked
RIDGE = 1e-3
LAGS_S = (-0.6, 0.8)  # positive: the arm answers later than the command says
PERIOD_S = 0.05  # faster commands are averaged over this: a step must be larger than the encoder's noise


@dataclass(frozen=True)
class Agreement:
    """r2: share of the state change that the command explains at the best delay, in [0, 1]; lag_s: that delay;
    r2_now: the share at no delay; sums: the regression's sums at no delay (see `sums`)."""

    r2: float
    lag_s: float
    r2_now: float
    sums: np.ndarray


def agreement(state_t: np.ndarray, state: np.ndarray | Table, action_t: np.ndarray, action: np.ndarray | Table) -> Agreement | None:
    """Times in s (increasing), state [n, s], action [m, a]; None where there is too little motion or data to tell."""
    if len(action_t) < 12 or len(state_t) < 12:
        return None
    period = float(np.median(np.diff(action_t)))
    if period <= 0:
        return None
    state, (action_t, action) = Table.of(state), thinned(action_t, Table.of(action), max(1, round(PERIOD_S / period)))
    period = float(np.median(np.diff(action_t))) if len(action_t) >= 12 else 0.0
    if period <= 0:
        return None
    times = action_t[:-1]
    lags = np.arange(min(-1, round(LAGS_S[0] / period)), max(1, round(LAGS_S[1] / period)) + 1)
    curve = np.array([_explained(*each) for each in zip(*_by_axis(state_t, state, times, action, lags * period, period), strict=True)])
    if not np.isfinite(curve).any():
        return None
    best = int(np.nanargmax(curve))
    now = int(np.flatnonzero(lags == 0)[0])
    found = sums(action, state, state_t, times, period)
    return Agreement(float(curve[best]), float((lags[best] + peak_offset(curve, best)) * period), float(curve[now]), found)


def _by_axis(
    state_t: np.ndarray, state: Table, times: np.ndarray, action: Table, lags_s: np.ndarray, period: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[lags, states] each: deviation of the state's change; what of it the axis' own command explains, and all commands do. NaN: not asked for."""
    spread, own, coupled = (np.full((len(lags_s), state.shape[1]), np.nan) for _ in range(3))
    inside = [(times + lag >= state_t[0] - 1e-6) & (times + lag + period <= state_t[-1] + 1e-6) for lag in lags_s]
    told = action.rows(0, len(times)) if action.shape[1] <= COUPLED_MAX else None
    paired = action.shape[1] == state.shape[1]
    for again in (False, True):
        asked = [bool(there.sum() >= 12) and not (again and _matched(*each) > PAIRED_R2) for there, *each in zip(inside, spread, own, strict=True)]
        if again and not (paired and told is not None and any(asked)):
            break
        for axes, part in state.parts():
            command = action.axes(range(axes.start, axes.stop))[:-1] if paired and not again else None
            for place in np.flatnonzero(asked):
                there = inside[place]
                start = sample(state_t, part, times[there] + lags_s[place])
                change = sample(state_t, part, times[there] + lags_s[place] + period) - start
                spread[place, axes] = change.std(axis=0)
                if command is not None:
                    own[place, axes] = paired_r2(command[there], start, change)
                elif told is not None:
                    coupled[place, axes] = [adjusted_r2(told[there], column) for column in change.T]
    return spread, own, coupled


def thinned(times: np.ndarray, values: Table, every: int) -> tuple[np.ndarray, Table]:
    """Means over `every` samples, at the time of the first of them."""
    count = len(times) // every * every
    means = ((axes, part[:count].reshape(-1, every, part.shape[1]).mean(axis=1)) for axes, part in values.parts())
    return times[:count:every], Table.made(count // every, values.shape[1], means, np.float64)


def sample(times: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values [n, d] at the wanted times, linear between samples."""
    return np.stack([np.interp(wanted, times, column) for column in values.T], axis=1)


def peak_offset(curve: np.ndarray, best: int) -> float:
    """Where the parabola through a peak and its neighbours is highest, in steps within [-0.5, 0.5]."""
    if not 0 < best < len(curve) - 1 or not np.isfinite(curve[best - 1 : best + 2]).all():
        return 0.0
    left, middle, right = curve[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _explained(spread: np.ndarray, own: np.ndarray, coupled: np.ndarray) -> float:
    """Mean R2, adjusted for the number of regressors, over the axes that move; NaN where none does."""
    matched = _matched(spread, own)
    return matched if matched > PAIRED_R2 or not np.isfinite(coupled).any() else _matched(spread, coupled)


def _matched(spread: np.ndarray, explained: np.ndarray) -> float:
    return float(explained[moving].mean()) if (moving := _moving(spread)).any() else float("nan")


def _moving(spread: np.ndarray) -> np.ndarray:
    known = bool(np.isfinite(spread).all()) and spread.max(initial=0.0) >= 1e-7
    return np.asarray(spread > 0.1 * spread.max()) if known else np.zeros(len(spread), bool)


def paired_r2(command: np.ndarray, state: np.ndarray, change: np.ndarray) -> np.ndarray:
    """[d]: for each axis the share of its change that its command and its state explain together, adjusted for two regressors, at least 0."""
    told, here, moved = (_unit(values) for values in (command, state, change))
    with_command, with_state, both = (told * moved).sum(axis=0), (here * moved).sum(axis=0), (told * here).sum(axis=0)
    rest = np.maximum(1 - both**2, RIDGE)
    r2 = np.where(both**2 > 1 - RIDGE, with_command**2, (with_command**2 + with_state**2 - 2 * with_command * with_state * both) / rest)
    count = len(change)
    return np.asarray(np.clip(1 - (1 - r2) * (count - 1) / (count - 3), 0.0, 1.0))


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0))
    return np.asarray(centred / np.where(scale > 1e-12, scale, np.inf))


def adjusted_r2(regressors: np.ndarray, target: np.ndarray) -> float:
    """Share of the target's variance that a ridge regression on [n, p] regressors explains, adjusted for p; at least 0."""
    centred = regressors - regressors.mean(axis=0)
    scale = centred.std(axis=0)
    used = centred[:, scale > 1e-9] / scale[scale > 1e-9]
    count, width = used.shape
    total = float(((target - target.mean()) ** 2).sum())
    if total <= 0 or width == 0 or count <= width + 2:
        return 0.0
    weights = np.linalg.solve(used.T @ used + RIDGE * count * np.eye(width), used.T @ (target - target.mean()))
    left = float(((target - target.mean() - used @ weights) ** 2).sum())
    return max(0.0, 1 - (left / (count - width - 1)) / (total / (count - 1)))


def sums(action: Table, state: Table, state_t: np.ndarray, times: np.ndarray, period: float) -> np.ndarray:
    """[kind, actions, states, samples, blocks of (X'X, X'Y, sum y, y'y)]: regressions of different episodes add up.

    Per axis: one block per axis, X = [1, a, s], Y = that axis. Coupled: one block, X = [1, a, s, a x s], Y = all axes. Y: the state's change within `period`.
    """
    actions, states, count = action.shape[1], state.shape[1], len(times)
    if actions == states:
        kind, blocks = PER_AXIS, []
        for axes, part in state.parts():
            command, here = action.axes(range(axes.start, axes.stop))[:-1], sample(state_t, part, times)
            change = sample(state_t, part, times + period) - here
            each = zip(command.T, here.T, change.T, strict=True)
            blocks += [_block(np.stack([np.ones(count), told, at], axis=1), moved[:, None]) for told, at, moved in each]
    elif max(actions, states) <= COUPLED_MAX:
        kind, total = COUPLED, None
        whole = state.axes(range(states))  # at most eight
        for first, last in action.stretches((1 + actions) * (1 + states)):
            some = times[first:last]
            command, here = action.rows(first, min(last, count)), sample(state_t, whole, some)
            products = (command[:, :, None] * here[:, None, :]).reshape(len(some), actions * states)
            block = _block(np.concatenate([np.ones((len(some), 1)), command, here, products], axis=1), sample(state_t, whole, some + period) - here)
            total = block if total is None else total + block
        blocks = [] if total is None else [total]
    else:
        return np.zeros(0)
    return np.concatenate([[kind, actions, states, count], *blocks])


def _block(regressors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    parts = (regressors.T @ regressors, regressors.T @ targets, targets.sum(axis=0), (targets**2).sum(axis=0))
    return np.concatenate([part.ravel() for part in parts])
