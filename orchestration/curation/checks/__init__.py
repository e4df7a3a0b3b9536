"""The checks: from an episode's scores to reasons in plain words. Pure; each reason is "<check>: <evidence>"."""

from collections.abc import Iterator

from orchestration.curation.checks.case import Case, Check
from orchestration.curation.checks.commands import beside_joints, commands, offsets
from orchestration.curation.checks.habits import habits
from orchestration.curation.checks.motion import ending, glitches, grippers, motion, per_axis, poses, ranges, task_outcome
from orchestration.curation.checks.pictures import camera_clock, camera_place, colours, pictures
from orchestration.curation.checks.recording import clocks, cut_off, durations, marked, numbers

CHECKS: tuple[Check, ...] = (
    durations,
    marked,
    cut_off,
    numbers,
    clocks,
    motion,
    glitches,
    ranges,
    per_axis,
    poses,
    ending,
    grippers,
    beside_joints,
    offsets,
    commands,
    pictures,
    camera_clock,
    camera_place,
    colours,
    task_outcome,
    habits,
)

__all__ = ["CHECKS", "Case", "notes", "reasons"]


def reasons(case: Case) -> list[str]:
    """One of each check and camera or stream: what two formulas find is told once, the absolute one first."""
    found: list[str] = []
    for check in CHECKS:
        told = {reason.split(":", 1)[0] for reason in found}
        found += [reason for reason in check(case) if reason.split(":", 1)[0] not in told]
    return found


def notes(case: Case) -> Iterator[str]:
    """What a person should know of an episode that is kept."""
    yield from (str(note) for note in case.row["notes"] or [])
    for camera, share in case.each("image.repeated"):
        if share > case.limits.note_repeated:
            yield f"{share:.0%} of the {camera} frames repeat the one before: the camera is slower than the recording's rate"
    if case.usual is None:
        yield "too few episodes of this robot to compare with"
    else:
        yield from (drift.told() for drift in case.usual.drifts)
