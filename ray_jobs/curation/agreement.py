"""Does the arm do what the commands say? A regression of state change on command, without knowing the kinematics.

Two forms: "per axis" where state and action have the same axes (joint targets), and "coupled" where they have not
(end-effector deltas). Within an episode it tells how well and with what delay the arm follows; its sums, kept in the ledger, let
the verdicts fit one model over a fleet, under which a flipped axis shows.
"""

from dataclasses import dataclass

import numpy as np

PER_AXIS, COUPLED = 0.0, 1.0
COUPLED_MAX = 8  # more axes than this, and their products outnumber an episode's samples
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


def agreement(state_t: np.ndarray, state: np.ndarray, action_t: np.ndarray, action: np.ndarray) -> Agreement | None:
    """Times in s (increasing), state [n, s], action [m, a]; None where there is too little motion or data to tell."""
    if len(action_t) < 12 or len(state_t) < 12:
        return None
    period = float(np.median(np.diff(action_t)))
    if period <= 0:
        return None
    action_t, action = thinned(action_t, action, max(1, round(PERIOD_S / period)))
    period = float(np.median(np.diff(action_t))) if len(action_t) >= 12 else 0.0
    if period <= 0:
        return None
    times, command = action_t[:-1], action[:-1]
    here = sample(state_t, state, times)
    lags = np.arange(min(-1, round(LAGS_S[0] / period)), max(1, round(LAGS_S[1] / period)) + 1)
    explained = []
    for lag in lags:
        start = here if lag == 0 else sample(state_t, state, times + lag * period)
        change = sample(state_t, state, times + (lag + 1) * period) - start
        inside = (times + lag * period >= state_t[0] - 1e-6) & (times + (lag + 1) * period <= state_t[-1] + 1e-6)
        explained.append(_explained(command[inside], start[inside], change[inside]))
    curve = np.array(explained)
    if not np.isfinite(curve).any():
        return None
    best = int(np.nanargmax(curve))
    now = int(np.flatnonzero(lags == 0)[0])
    change = sample(state_t, state, times + period) - here
    return Agreement(float(curve[best]), float((lags[best] + peak_offset(curve, best)) * period), float(curve[now]), sums(command, here, change))


def thinned(times: np.ndarray, values: np.ndarray, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over `every` samples, at the time of the first of them."""
    count = len(times) // every * every
    return times[:count:every], values[:count].reshape(-1, every, values.shape[1]).mean(axis=1)


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


def _explained(command: np.ndarray, state: np.ndarray, change: np.ndarray) -> float:
    """Mean R2, adjusted for the number of regressors, over the axes that move; NaN where none does."""
    spread = change.std(axis=0) if len(change) else np.zeros(0)
    if not len(spread) or len(change) < 12 or spread.max() < 1e-7:
        return float("nan")
    moving = np.flatnonzero(spread > 0.1 * spread.max())
    if command.shape[1] == state.shape[1]:
        matched = float(paired_r2(command[:, moving], state[:, moving], change[:, moving]).mean())
        if command.shape[1] > COUPLED_MAX or matched > 0.3:
            return matched
    if command.shape[1] > COUPLED_MAX:
        return float("nan")
    return float(np.mean([adjusted_r2(command, change[:, axis]) for axis in moving]))


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


def sums(command: np.ndarray, state: np.ndarray, change: np.ndarray) -> np.ndarray:
    """[kind, actions, states, samples, blocks of (X'X, X'Y, sum y, y'y)]: regressions of different episodes add up.

    Per axis: one block per axis, X = [1, a, s], Y = that axis. Coupled: one block, X = [1, a, s, a x s], Y = all axes.
    """
    actions, states = command.shape[1], state.shape[1]
    if actions == states:
        blocks = [_block(np.stack([np.ones(len(change)), command[:, axis], state[:, axis]], axis=1), change[:, axis : axis + 1]) for axis in range(states)]
        kind = PER_AXIS
    elif max(actions, states) <= COUPLED_MAX:
        products = (command[:, :, None] * state[:, None, :]).reshape(len(change), -1)
        blocks = [_block(np.concatenate([np.ones((len(change), 1)), command, state, products], axis=1), change)]
        kind = COUPLED
    else:
        return np.zeros(0)
    return np.concatenate([[kind, actions, states, len(change)], *blocks])


def _block(regressors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    parts = (regressors.T @ regressors, regressors.T @ targets, targets.sum(axis=0), (targets**2).sum(axis=0))
    return np.concatenate([part.ravel() for part in parts])
