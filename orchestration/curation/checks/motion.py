"""Checks of the joints: what each axis did, alone and against the fleet's ranges."""

from collections.abc import Iterator

import numpy as np

from orchestration.curation.checks.case import WIDE, Case, listed

SHORT = 0.9  # of the task's usual length
LONGER = 3.0  # times the robot's usual length


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
    if scores.get("action.span", 1.0) == 0.0:
        yield "dead_commands: the commands never change while the joints move"
    for name, check, limit, least, text in (
        ("state.spike", "spike", limits.max_spike, limits.min_spike, "leaves its course for a sample or two by"),
        ("state.jump", "jump", limits.max_jump, limits.min_jump, "jumps by"),
    ):
        found = case.vector(name)
        usual = case.comparable(name, case.usual)
        if found is None:
            continue
        limits_here = np.full(len(found), limit)
        if usual is not None:  # smoother than most, or a hand that snaps shut on every day
            known = np.maximum(least * case.caution, usual[1] + limits.max_sudden_spreads * usual[2])
            limits_here = np.where(usual[1] > limit / 2, np.inf, np.minimum(limit, known))
        over = found / limits_here
        if over.max(initial=0.0) > 1:
            yield f"{check}: state axis {int(np.argmax(over))} {text} {found[np.argmax(over)]:.1f} times its usual step"


def glitches(case: Case) -> Iterator[str]:
    """A sample beside the smooth course that this robot's axis keeps. Not of recordings far longer than usual: the largest of more samples is larger."""
    limits, found = case.limits, case.comparable("state.glitch", case.usual)
    if found is None or case.scores.get("duration_s", 0.0) > LONGER * (case.middle("duration_s") or 0.0):
        return
    own, usual, spread = found
    over = own / np.maximum(case.caution * np.maximum(limits.max_glitch_ratio * usual, usual + limits.max_sudden_spreads * spread), 1.0)
    if over.max(initial=0.0) > 1:
        axis = int(np.argmax(over))
        yield f"spike: state axis {axis} leaves its smooth course by {own[axis]:.1f} times what it does else, usually {usual[axis]:.1f}"


def ranges(case: Case) -> Iterator[str]:
    """Out of the fleet's range, faster than it, or hardly moving."""
    low, high = case.comparable("state.low", case.usual), case.comparable("state.high", case.usual)
    if low is None or high is None:
        return
    own = high[1] - low[1]
    room = case.limits.max_range_excess * np.maximum(own, WIDE * own.max()) + 3 * np.maximum(low[2], high[2])
    excess = np.maximum(low[1] - room - low[0], high[0] - high[1] - room)
    if len(axes := np.flatnonzero(excess > 0)):
        yield f"out_of_range: state axis {listed(axes)} leaves the fleet's range by {float(excess[axes].max()):.3g} more than allowed"
    span = high[0] - low[0]
    usual_least = own - 4 * (low[2] + high[2])
    stuck = (span < case.limits.min_span_ratio * own) & (own > 0.02 * own.max()) & (usual_least > 0.1 * own)
    if len(axes := np.flatnonzero(stuck)):
        yield f"stuck_joint: state axis {listed(axes)} moves by {float(span[axes].max()):.2g}, usually by {float(own[axes].min()):.2g}"
    step = case.comparable("state.step", case.usual)
    if step is not None:
        ratio = step[0] / np.maximum(step[1] + 2 * step[2], 1e-6)
        worst = int(np.argmax(ratio))
        if ratio[worst] > case.limits.max_step_ratio and step[0][worst] > 1e-3:
            yield f"jump: state axis {worst} moves {step[0][worst]:.3g} in one sample, {ratio[worst]:.1f} times the fleet's usual largest step"


def per_axis(case: Case) -> Iterator[str]:
    """Noise, standing still among moving joints, and clipping, axis by axis against the fleet."""
    limits = case.limits
    low, high = case.comparable("state.low", case.usual), case.comparable("state.high", case.usual)
    noise = case.comparable("state.noise", case.usual)
    if noise is not None and low is not None and high is not None:
        own, usual, spread = noise
        off = (
            (own > limits.max_noise_ratio * (usual + spread))
            & (own > limits.min_noise_share * np.maximum(high[1] - low[1], WIDE * (high[1] - low[1]).max()))
            & (own > 1e-6)
        )
        if len(axes := np.flatnonzero(off)):
            worst = int(axes[np.argmax(own[axes])])
            yield f"encoder_noise: state axis {listed(axes)} has white noise of {own[worst]:.2g}, usually {usual[worst]:.2g}"
    stuck = case.comparable("state.stuck_s", case.usual)
    if stuck is not None:
        over = stuck[0] - stuck[1] - np.maximum(limits.max_stuck_s, 5 * stuck[2])
        if over.max(initial=0.0) > 0:
            worst = int(np.argmax(over))
            yield f"stuck_joint: state axis {worst} keeps one value for {stuck[0][worst]:.1f} s while others move, usually {stuck[1][worst]:.1f} s"
    for stream in ("state", "action"):
        pinned, switch = case.comparable(f"{stream}.pinned", case.usual), case.switches(stream)
        if pinned is None or switch is None:
            continue
        over = np.where(switch, 0.0, pinned[0] - pinned[1] - np.maximum(limits.max_pinned, 5 * pinned[2]))
        if over.max(initial=0.0) > 0:
            worst = int(np.argmax(over))
            yield f"clipped: {stream} axis {worst} lies at its own extreme for {pinned[0][worst]:.0%} of the samples, usually {pinned[1][worst]:.0%}"


def poses(case: Case) -> Iterator[str]:
    """An encoder that lost its zero: another start than a homed robot's, or joints that no longer keep their relations."""
    limits = case.limits
    first = case.comparable("state.first", case.habit)
    if first is not None and first[2].max(initial=0.0) < limits.homed_within:  # only a robot that always starts alike can start wrongly
        away = np.abs(first[0] - first[1])
        worst = int(np.argmax(away))
        if away[worst] > max(limits.max_start_offset, 6 * first[2][worst]):
            yield f"start_offset: state axis {worst} starts {first[0][worst] - first[1][worst]:+.3g} from where this robot always starts"
    tied, moments = case.usual.relations if case.usual else None, case.vector("state.moments")
    if case.usual is not None and tied is not None and moments is not None and len(moments) == len(tied.middle) * (len(tied.middle) + 1) and len(tied.spread):
        spreads, away = tied.off(moments[: len(tied.middle)])
        case.scores["fleet.relation"] = spreads
        if spreads > limits.max_relation_spreads * case.usual.widening and np.abs(away).max() > limits.min_relation_offset:
            worst = int(np.argmax(np.abs(away) / np.maximum(tied.spread, 1e-3)))
            axes = np.argsort(-np.abs(tied.directions[worst]))[:3]
            yield f"encoder_offset: state axes {listed(sorted(axes))} stand {spreads:.0f} spreads from how this robot's joints go together"


def ending(case: Case) -> Iterator[str]:
    """Cut off: far shorter than the task takes, or shorter and still moving at the end where this robot usually rests."""
    habit, length = case.habit, case.scores.get("duration_s", 0.0)
    if habit is None or "duration_s" not in habit.middle:
        return
    usual, spread = habit.middle["duration_s"], habit.spread["duration_s"] * habit.widening
    if habit.episodes >= case.limits.fit_at_least and length < case.limits.min_length_share * usual and length < usual - 4 * spread:
        yield f"truncated: it ends after {length:.1f} s, this task usually after {usual:.1f} s"
        return
    last, low, high = (case.comparable(f"state.{name}", habit) for name in ("last", "low", "high"))
    if last is not None and low is not None and high is not None and length < SHORT * usual:
        over = np.abs(last[0] - last[1]) - np.maximum(case.limits.min_end_away * np.maximum(high[1] - low[1], 1e-6), 8 * last[2])
        if over.max(initial=0.0) > 0:
            axis = int(np.argmax(over))
            yield f"truncated: it ends after {length:.1f} s, usually {usual:.1f} s, with state axis {axis} at {last[0][axis]:.3g}, usually {last[1][axis]:.3g}"
            return
    pace, usual_pace = case.scores.get("idle.end_pace"), habit.middle.get("idle.end_pace")
    if pace is None or usual_pace is None:
        return
    fast = pace > usual_pace + max(case.limits.max_end_pace, 4 * habit.spread["idle.end_pace"] * habit.widening)
    if fast and length < usual - max(2 * spread, 0.1 * usual):
        yield f"truncated: it ends after {length:.1f} s in full motion ({pace:.0%} of the fast pace), usually after {usual:.1f} s at {usual_pace:.0%}"


def grippers(case: Case) -> Iterator[str]:
    """A gripper that does not work where it always does."""
    for stream, count in case.each("gripper.events"):
        usual = case.habit.middle.get(f"gripper.events:{stream}") if case.habit else None
        spread = case.habit.spread.get(f"gripper.events:{stream}", 0.0) if case.habit else 0.0
        if usual is not None and count == 0 and usual >= 1 and usual - 3 * spread > 0:
            yield f"gripper_idle: the gripper ({stream}) never works, usually {usual:.0f} times"


def task_outcome(case: Case) -> Iterator[str]:
    distance = case.scores.get("task.distance")
    if distance is not None and distance > case.limits.max_block_distance:
        yield f"task_failed: the block ends {distance:.1f} of its sides from the target"
