"""From a reason to the moment that it is about, and the signal that shows it.

A reason names its check, and in its evidence often the stream, camera or axis. A check that is not known here gets the plain picture of the
joints, without a moment.
"""

from collections.abc import Callable
from dataclasses import replace

from orchestration.curation.review import motion, pictures
from orchestration.curation.review.plots import Moment, named
from orchestration.curation.review.recorded import Recorded


def moment(reason: str, recorded: Recorded) -> Moment | None:
    """The plot of a reason "<check>: <evidence>". None where nothing was recorded that could show it."""
    check, _, evidence = reason.partition(":")
    finder = FINDERS.get(check.strip(), motion.overview)
    found = finder(recorded, evidence)
    if found is None or not any(len(line.x) for line in found.lines):
        found = motion.overview(recorded, evidence)
    if found is None:
        return None
    return replace(found, camera=found.camera or named(evidence, recorded.cameras) or min(recorded.cameras, default=None))


FINDERS: dict[str, Callable[[Recorded, str], Moment | None]] = {
    **dict.fromkeys(("gap", "lost_samples", "cut_stream", "rate", "jitter"), motion.periods),
    "clock_backward": motion.backward,
    **dict.fromkeys(("clock_step", "clock_skew"), motion.clock),
    "not_a_number": motion.not_finite,
    **dict.fromkeys(("jump", "encoder_noise"), motion.step),
    "spike": motion.beside_its_course,
    **dict.fromkeys(("rough_motion", "rough_commands"), motion.rough),
    "repeated_states": motion.repeats,
    "out_of_range": motion.extreme,
    "start_offset": motion.start,
    **dict.fromkeys(("stuck_joint", "frozen_state", "clipped", "dead_commands"), motion.stuck),
    **dict.fromkeys(("axis_flip", "axes_swapped", "command_lag", "command_mismatch"), motion.commanded),
    **dict.fromkeys(("encoder_offset", "wrong_unit", "gripper_idle"), motion.whole_axis),
    **dict.fromkeys(("idle", "still_joints"), motion.standing),
    **dict.fromkeys(("truncated", "too_short", "task_failed", "marked_failed"), motion.ending),
    "black": pictures.dark,
    "overexposed": pictures.bright,
    "flicker": pictures.flicker,
    **dict.fromkeys(("frozen_camera", "dead_camera"), pictures.frozen),
    "repeated_frames": pictures.twice,
    "badly_exposed": pictures.badly_lit,
    **dict.fromkeys(("blur", "featureless", "low_contrast"), pictures.soft),
    "noisy_picture": pictures.noisy,
    "corrupt_picture": pictures.broken,
    "camera_lag": pictures.late_picture,
}
