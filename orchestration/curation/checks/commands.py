"""Checks of commands against joints: alone where command and joint are the same axis, else against the fleet's model."""

from collections.abc import Iterator

import numpy as np

from orchestration.curation.checks.case import WIDE, Case, listed
from orchestration.curation.fleet_model import Sums, explained, joint_offset

FOLLOWS = 0.5  # correlation of a command with its joint


def _together(corr: np.ndarray) -> bool:
    """Whether most of the moving axes follow their commands, at least three: axes that are none of each other's agree by chance, in either direction."""
    moving = corr != 0
    return int((corr > FOLLOWS).sum()) >= max(3, 0.6 * moving.sum())


def beside_joints(case: Case) -> Iterator[str]:
    """Direction, order, scale, delay and standing still of single axes: needs no fleet where most axes follow their command."""
    limits, scores = case.limits, case.scores
    r, corr, axes = scores.get("pair.r"), case.vector("pair.corr"), case.vector("pair.axes")
    if r is None or corr is None or axes is None or r < limits.min_pair_r or not _together(corr):
        return
    states = axes.reshape(-1, 2)[:, 1].astype(int)
    switch = case.switches("state")
    plain = ~switch[states] if switch is not None else np.ones(len(corr), bool)
    usual = case.comparable("pair.corr", case.usual)
    known = usual[1] if usual is not None else np.zeros(len(corr))
    flipped = (corr < limits.max_flip_r) & (plain if usual is None else known > 0.2)
    if flipped.any():
        yield f"axis_flip: action axis {listed(np.flatnonzero(flipped))} goes against its own joint (correlation {corr[flipped].min():.2f})"
    pair = case.vector("pair.swapped")
    if scores.get("pair.swap", -1.0) > limits.max_swap_gain and pair is not None and (case.middle("pair.swap") or -1.0) < limits.max_swap_gain:
        yield f"axes_swapped: action axes {listed(pair)} fit each other's joint better than their own by {scores['pair.swap']:.2f}"
    frozen = case.vector("pair.frozen_s")
    if frozen is not None:
        follows = plain & (corr > 0.4) if usual is None else known > 0.4
        usual_s = case.comparable("pair.frozen_s", case.usual)
        least = limits.max_frozen_state_s if usual_s is None else np.maximum(usual_s[1] + 5 * usual_s[2] + 1.0, 1.0)
        over = np.where(follows | ((corr == 0) & (frozen > 0) & plain), frozen - least, -1.0)
        if np.median(frozen) > limits.max_frozen_all_s:
            yield f"frozen_state: the joints keep one value for {np.median(frozen):.1f} s while their commands go on"
        elif over.max(initial=0.0) > 0:
            yield f"stuck_joint: state axis {states[int(np.argmax(over))]} keeps one value for {frozen[int(np.argmax(over))]:.1f} s while its command goes on"
    yield from _lag(case)
    slope = case.vector("pair.slope")
    if slope is not None and scores.get("pair.level"):
        sure = plain & (corr > 0.8) & (slope > 0)
        if sure.any() and (factor := float(np.median(np.maximum(slope[sure], 1 / slope[sure])))) > limits.max_scale:
            yield f"wrong_unit: joints and their position commands differ by a factor of {factor:.1f}"


def _lag(case: Case) -> Iterator[str]:
    """By the fleet's delay where most of it has one, else by what no robot does."""
    limits, lag = case.limits, case.scores["pair.lag_s"]
    usual, sure = case.middle("pair.lag_s"), case.middle("pair.r")
    if case.usual is not None and usual is not None and sure is not None and sure >= limits.min_pair_r:
        if abs(lag - usual) > max(limits.max_command_lag_s, 6 * case.usual.spread["pair.lag_s"] * case.usual.widening):
            yield f"command_lag: joints and commands are {lag - usual:+.2f} s apart beside the usual"
    elif case.scores["pair.r"] < limits.min_pair_r_alone:
        return
    elif lag < limits.min_early_s:
        yield f"command_lag: the joints move {-lag:.2f} s before their commands"
    elif lag > limits.max_late_s:
        yield f"command_lag: the joints move {lag:.2f} s after their commands"


def offsets(case: Case) -> Iterator[str]:
    """A constant between command and joint that this robot does not have else."""
    bias, level = case.comparable("pair.bias", case.usual), case.scores.get("pair.level")
    low, high, axes = case.comparable("state.low", case.usual), case.comparable("state.high", case.usual), case.vector("pair.axes")
    if bias is None or not level or low is None or high is None or axes is None or case.scores.get("pair.r", 0.0) < case.limits.min_pair_r:
        return
    states = axes.reshape(-1, 2)[:, 1].astype(int)
    span = np.maximum((high[1] - low[1])[states], WIDE * (high[1] - low[1]).max())
    away, spread = np.abs(bias[0] - bias[1]), np.maximum(bias[2], np.median(bias[2]))
    over = away - case.caution * np.maximum(case.limits.min_bias_share * span, case.limits.max_bias_spreads * spread)
    corr = case.comparable("pair.corr", case.usual)
    if corr is not None:
        over[np.minimum(corr[0], corr[1]) < FOLLOWS] = 0.0  # a hand that closes on something lags behind its command by what it holds
    if over.max(initial=0.0) > 0:
        worst = int(np.argmax(over))
        yield f"encoder_offset: state axis {states[worst]} and its command differ by {bias[0][worst]:+.3g}, usually {bias[1][worst]:+.3g}"


def commands(case: Case) -> Iterator[str]:
    """Does the arm follow? Judged against the fleet's own habit; without one nobody is accused. One reason is enough."""
    scores, limits = case.scores, case.limits
    sums = Sums.of(case.vectors.get("command.sums"))
    plain = 1.0
    if sums is not None and case.model is not None and case.model.r2 >= limits.min_fleet_r2:
        plain = scores["fleet.r2"] = explained(case.model, sums)
        gains = [explained(case.model, sums, (axis,)) - plain for axis in range(sums.actions)]
        scores["fleet.flip_gain"] = max(gains)
        if flipped := [axis for axis, gain in enumerate(gains) if gain > limits.min_flip_gain]:
            yield f"axis_flip: action axis {listed(flipped)} turned round explains the motion better by {max(gains):.2f} of its variance"
            return
        found = joint_offset(case.model, sums)
        if found is not None:
            offset, error = found
            sure = np.abs(offset) / np.maximum(error, 1e-9)
            worst = int(np.argmax(np.where(np.abs(offset) > limits.min_offset, sure, 0.0)))
            scores["fleet.offset"], scores["fleet.offset_errors"] = float(offset[worst]), float(sure[worst])
            if sure[worst] > limits.max_offset_errors and abs(offset[worst]) > limits.min_offset:
                yield f"encoder_offset: the motion fits best if state axis {worst} reads {offset[worst]:+.2f} too much ({sure[worst]:.0f} standard errors)"
                return
    usual_r2 = case.middle("command.r2")
    if "command.r2" not in scores or case.usual is None or usual_r2 is None or usual_r2 < limits.min_fleet_r2:
        return
    r2, lag, usual_lag = scores["command.r2"], scores["command.lag_s"], case.usual.middle["command.lag_s"]
    allowed = max(limits.max_command_lag_s, 4 * case.usual.spread["command.lag_s"] * case.usual.widening)
    loss = case.caution * max(limits.max_command_loss, 4 * case.usual.spread["command.r2"] * case.usual.widening)
    # A delay by regression over all axes is vague: few episodes do not tell what is usual.
    late = case.caution == 1 and r2 > 0.5 * usual_r2 and r2 - scores["command.r2_now"] > limits.min_lag_gain and abs(lag - usual_lag) > allowed
    if late:
        yield f"command_lag: motion and command are {lag - usual_lag:+.2f} s apart beside the usual"
    elif case.model is not None and plain < case.model.r2 - loss:
        yield f"command_mismatch: commands explain {max(plain, 0.0):.0%} of the motion as this fleet moves, usually {case.model.r2:.0%}"
    elif r2 < usual_r2 - loss:
        yield f"command_mismatch: commands explain {r2:.0%} of the motion, usually {usual_r2:.0%}"
