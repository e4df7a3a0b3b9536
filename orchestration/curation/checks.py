"""The checks: from an episode's scores to reasons in plain words. Pure; each reason is "<check>: <evidence>"."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestration.curation.context import Usual
from orchestration.curation.fleet_model import FleetModel, Sums, explained
from orchestration.curation.thresholds import Thresholds
from orchestration.curation.view import view_shift


@dataclass(frozen=True)
class Case:
    """One episode before the checks. `usual` and `model` are None where there is too little to compare with."""

    row: dict[str, Any]
    scores: dict[str, float]
    vectors: dict[str, list[float]]
    usual: Usual | None
    model: FleetModel | None
    limits: Thresholds

    def each(self, prefix: str) -> Iterator[tuple[str, float]]:
        """(what follows the colon, value) of every score `prefix:<stream or camera>`."""
        for name, value in sorted(self.scores.items()):
            if name.startswith(prefix + ":"):
                yield name.split(":", 1)[1], value

    def middle(self, name: str) -> float | None:
        return self.usual.middle.get(name) if self.usual else None


Check = Callable[[Case], Iterator[str]]


def durations(case: Case) -> Iterator[str]:
    length = case.scores.get("duration_s", 0.0)
    if length < case.limits.min_duration_s:
        yield f"too_short: {length:.1f} s, and {case.limits.min_duration_s:g} s is the least"
    if length > case.limits.max_duration_s:
        yield f"too_long: {length:.0f} s, and {case.limits.max_duration_s:g} s is the most"


def numbers(case: Case) -> Iterator[str]:
    for stream in ("state", "action"):
        share = case.scores.get(f"{stream}.nonfinite", 0.0)
        if share > case.limits.max_nonfinite:
            yield f"not_a_number: {share:.1%} of the {stream}s are NaN or infinite"


def clocks(case: Case) -> Iterator[str]:
    limits = case.limits
    for stream, steps in case.each("time.backward"):
        if steps > limits.max_backward_steps:
            yield f"clock_backward: {stream} time runs backwards {steps:.0f} times"
    for stream, jump in case.each("time.clock_s"):
        if jump > limits.max_clock_step_s:
            yield f"clock_step: {stream} time jumps by {jump:.2f} s against the logger's"
    for stream, gap in case.each("time.gap_s"):
        if gap > limits.max_gap_s:
            yield f"gap: {stream} is silent for {gap:.2f} s"
    for stream, lost in case.each("time.lost"):
        if lost > limits.max_lost:
            yield f"lost_samples: {lost:.0%} of the {stream} samples are missing at its own rate"


def motion(case: Case) -> Iterator[str]:
    limits, scores = case.limits, case.scores
    span = scores.get("state.span")
    if span is not None and span < limits.min_state_span:
        yield f"still_joints: no joint moves by more than {span:.2g}"
        return
    if scores.get("idle.fraction", 0.0) > limits.max_idle_fraction:
        yield f"idle: the arm stands still for {scores['idle.fraction']:.0%} of the time"
    elif scores.get("idle.longest_s", 0.0) > limits.max_idle_s:
        yield f"idle: the arm stands still for {scores['idle.longest_s']:.1f} s on end"


def limits_of_the_fleet(case: Case) -> Iterator[str]:
    if case.usual is None:
        return
    shape, spread = case.usual.shape, case.usual.shape_spread
    low, high = _vector(case, "state.low"), _vector(case, "state.high")
    if low is not None and high is not None:
        own = shape["state.high"] - shape["state.low"]
        room = case.limits.max_range_excess * np.maximum(own, 0.1 * own.max()) + 3 * np.maximum(spread["state.low"], spread["state.high"])
        excess = np.maximum(shape["state.low"] - room - low, high - shape["state.high"] - room)
        if len(axes := np.flatnonzero(excess > 0)):
            yield f"out_of_range: state axis {_listed(axes)} leaves the fleet's range by {float(excess[axes].max()):.3g} more than allowed"
    step = _vector(case, "state.step")
    if step is not None:
        ratio = step / np.maximum(shape["state.step"], 1e-6)
        worst = int(np.argmax(ratio))
        if ratio[worst] > case.limits.max_step_ratio and step[worst] > 1e-3:
            yield f"jump: state axis {worst} moves {step[worst]:.3g} in one sample, {ratio[worst]:.1f} times the fleet's usual largest step"
    first = _vector(case, "state.first")
    if first is not None and spread["state.first"].max() < case.limits.homed_within:  # only a robot that always starts alike can start wrongly
        away = np.abs(first - shape["state.first"])
        worst = int(np.argmax(away))
        if away[worst] > case.limits.max_start_offset:
            yield f"start_offset: state axis {worst} starts {first[worst] - shape['state.first'][worst]:+.3g} from where this robot always starts"


def pictures(case: Case) -> Iterator[str]:
    limits = case.limits
    for camera, share in case.each("image.repeated"):
        if share > limits.max_repeated:
            yield f"dead_camera: {share:.0%} of the {camera} frames repeat the one before"
            continue
        frozen, longest = case.scores.get(f"image.frozen:{camera}", 0.0), case.scores.get(f"image.frozen_s:{camera}", 0.0)
        if frozen > limits.max_frozen or longest > limits.max_frozen_s:
            yield f"frozen_camera: {frozen:.0%} of the {camera} frames stand (up to {longest:.1f} s) while the arm moves"
    for camera, share in case.each("image.black"):
        if share > limits.max_black:
            yield f"black: {share:.0%} of the {camera} frames hold no light"
    for camera, share in case.each("image.overexposed"):
        if share > limits.max_overexposed:
            yield f"overexposed: {share:.0%} of the {camera} frames are half white"
    for camera, sharp in case.each("image.sharp"):
        usual = case.middle(f"image.sharp:{camera}")
        if usual and sharp < limits.min_sharp_ratio * usual:
            yield f"blur: {camera} is {sharp / usual:.0%} as sharp as usual"


def camera_clock(case: Case) -> Iterator[str]:
    for camera, lag in case.each("image.lag_s"):
        match, gain = case.scores.get(f"image.lag_match:{camera}", 0.0), case.scores.get(f"image.lag_gain:{camera}", 0.0)
        usual = case.middle(f"image.lag_s:{camera}")
        if usual is None or match < case.limits.min_camera_match or gain < case.limits.min_camera_gain:
            continue
        if abs(lag - usual) > case.limits.max_camera_lag_s:
            yield f"camera_lag: {camera} shows motion {lag - usual:+.2f} s from where the joints say (explains {match:.0%} of it, {match - gain:.0%} without)"


def camera_place(case: Case) -> Iterator[str]:
    if case.usual is None:
        return
    for name in sorted(case.vectors):
        if name.startswith("background:") and name in case.usual.shape:
            camera = name.split(":", 1)[1]
            shift = view_shift(np.asarray(case.vectors[name]), case.usual.shape[name], case.usual.shape_spread[name])
            case.scores[f"view.shift:{camera}"] = shift
            if shift > case.limits.max_view_shift:
                yield f"camera_moved: the {camera} view is off by {shift:.1%} of its width against this robot's usual view"


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
            yield f"axis_flip: action axis {_listed(flipped)} turned round explains the motion better by {max(gains):.2f} of its variance"
            return
    lag, usual_lag = scores.get("command.lag_s"), case.middle("command.lag_s")
    r2, usual_r2 = scores.get("command.r2"), case.middle("command.r2")
    if r2 is None or usual_r2 is None or usual_r2 < limits.min_fleet_r2:
        return
    if lag is not None and usual_lag is not None and r2 > 0.5 * usual_r2 and abs(lag - usual_lag) > limits.max_command_lag_s:
        yield f"command_lag: motion and command are {lag - usual_lag:+.2f} s apart beside the usual"
    elif case.model is not None and plain < case.model.r2 - limits.max_command_loss:
        yield f"command_mismatch: commands explain {max(plain, 0.0):.0%} of the motion as this fleet moves, usually {case.model.r2:.0%}"
    elif r2 < usual_r2 - limits.max_command_loss:
        yield f"command_mismatch: commands explain {r2:.0%} of the motion, usually {usual_r2:.0%}"


def task_outcome(case: Case) -> Iterator[str]:
    distance = case.scores.get("task.distance")
    if distance is not None and distance > case.limits.max_block_distance:
        yield f"task_failed: the block ends {distance:.1f} of its sides from the target"


CHECKS: tuple[Check, ...] = (
    durations,
    numbers,
    clocks,
    motion,
    limits_of_the_fleet,
    pictures,
    camera_clock,
    camera_place,
    commands,
    task_outcome,
)


def notes(case: Case) -> Iterator[str]:
    """What a person should know of an episode that is kept."""
    yield from (str(note) for note in case.row["notes"] or [])
    for camera, share in case.each("image.repeated"):
        if share > case.limits.note_repeated:
            yield f"{share:.0%} of the {camera} frames repeat the one before: the camera is slower than the recording's rate"
    if case.usual is None:
        yield "too few episodes of this robot to compare with"


def _vector(case: Case, name: str) -> np.ndarray | None:
    """The vector, where the fleet has one of the same length."""
    if case.usual is None or name not in case.vectors or name not in case.usual.shape:
        return None
    vector = np.asarray(case.vectors[name])
    return vector if len(vector) == len(case.usual.shape[name]) else None


def _listed(axes: Any) -> str:
    return ", ".join(str(int(axis)) for axis in axes)
