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
LAGS = np.arange(-4, 9)  # in action periods; positive: the arm answers later than the command says


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
    times, command = action_t[:-1], action[:-1]
    here = sample(state_t, state, times)
    explained = []
    for lag in LAGS:
        change = sample(state_t, state, times + (lag + 1) * period) - sample(state_t, state, times + lag * period)
        inside = (times + lag * period >= state_t[0]) & (times + (lag + 1) * period <= state_t[-1])
        explained.append(_explained(command[inside], here[inside], change[inside]))
    curve = np.array(explained)
    if not np.isfinite(curve).any():
        return None
    best = int(np.nanargmax(curve))
    now = int(np.flatnonzero(LAGS == 0)[0])
    change = sample(state_t, state, times + period) - here
    return Agreement(float(curve[best]), float((LAGS[best] + peak_offset(curve, best)) * period), float(curve[now]), sums(command, here, change))


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
        matched = [adjusted_r2(np.stack([command[:, axis], state[:, axis]], axis=1), change[:, axis]) for axis in moving]
        if command.shape[1] > COUPLED_MAX or np.mean(matched) > 0.3:
            return float(np.mean(matched))
    if command.shape[1] > COUPLED_MAX:
        return float("nan")
    return float(np.mean([adjusted_r2(command, change[:, axis]) for axis in moving]))


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
