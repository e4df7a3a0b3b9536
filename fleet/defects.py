"""What goes wrong on a fleet: one table. A new kind of damage is one more row of DEFECTS; nothing else need change.

A defect acts at one of three places: `plan` changes what the robot does, `corrupt` changes what is recorded of it, and `file` is something that
happens to the recording as a file (fleet.record carries it out). How it is done: fleet.damage.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fleet import damage
from fleet.expert import Demonstration, Style

Severity = Literal["mild", "strong"]
Plan = Callable[[Style, float, np.random.Generator], Style]
Corrupt = Callable[[Demonstration, float, np.random.Generator], Demonstration]


@dataclass(frozen=True)
class Defect:
    """`mild` and `strong` are the amounts, in `unit`. `weight`: how often it is drawn, relative to the others; 0: only where it is named.
    `cameras`: how many a robot must have."""

    name: str
    unit: str
    mild: float
    strong: float
    plan: Plan | None = None
    corrupt: Corrupt | None = None
    file: Literal["truncate", "duplicate"] | None = None
    weight: float = 1.0
    cameras: int = 1

    def amount(self, severity: Severity) -> float:
        return self.mild if severity == "mild" else self.strong


DEFECTS = {
    defect.name: defect
    for defect in (
        Defect("action_lag", "steps of 0.1 s", 2, 5, corrupt=damage.action_lag),
        Defect("axis_flip", "flipped axes", 1, 2, corrupt=damage.axis_flip),
        Defect("frozen_camera", "share of the episode", 0.3, 1.0, corrupt=damage.frozen_camera),
        Defect("failed_demonstration", "m beside its goal", 0.06, 0.10, plan=damage.failed_demonstration),
        Defect("idle", "steps of 0.1 s", 12, 36, plan=damage.idle),
        Defect("bumped_camera", "degrees", 2.0, 7.0, plan=damage.bumped_camera),
        Defect("action_noise", "m, standard deviation", 0.006, 0.02, corrupt=damage.action_noise),
        Defect("camera_lag", "steps of 0.1 s", 2, 5, corrupt=damage.camera_lag, weight=0.6),
        Defect("nan_states", "share of the samples", 0.06, 0.33, corrupt=damage.nan_states, weight=0.6),
        Defect("clock_step", "s", 0.7, -1.2, corrupt=damage.clock_step, weight=0.6),
        Defect("truncated_file", "share of the last episode that is missing", 0.15, 0.6, file="truncate", weight=0.6),
        Defect("duplicate_upload", "1: one episode logged again, 2: the whole file copied", 1, 2, file="duplicate", weight=0.6),
        # Not in the demo's days; the report on detection plants them.
        Defect("encoder_offset", "rad", 0.05, 0.2, corrupt=damage.encoder_offset, weight=0),
        Defect("encoder_noise", "rad, standard deviation", 0.015, 0.06, corrupt=damage.encoder_noise, weight=0),
        Defect("encoder_slip", "rad", 0.1, 0.4, corrupt=damage.encoder_slip, weight=0),
        Defect("spikes", "share of the joint's range", 0.3, 1.0, corrupt=damage.spikes, weight=0),
        Defect("stuck_joint", "share of the episode", 0.5, 1.0, corrupt=damage.stuck_joint, weight=0),
        Defect("stale_states", "share of the episode", 0.25, 0.6, corrupt=damage.stale_states, weight=0),
        Defect("state_lag", "steps of 0.1 s", 2, 5, corrupt=damage.state_lag, weight=0),
        Defect("swapped_axes", "1: of the commands, 2: of the state too", 1, 2, corrupt=damage.swapped_axes, weight=0),
        Defect("wrong_unit", "factor", 2.0, 57.3, corrupt=damage.wrong_unit, weight=0),
        Defect("dead_commands", "share of the episode", 0.4, 1.0, corrupt=damage.dead_commands, weight=0),
        Defect("cut_short", "share that is missing", 0.25, 0.6, corrupt=damage.cut_short, weight=0),
        Defect("slow_loop", "factor", 1.3, 2.0, corrupt=damage.slow_loop, weight=0),
        Defect("jitter", "share of the period", 0.3, 0.8, corrupt=damage.jitter, weight=0),
        Defect("dropped_frames", "share", 0.1, 0.4, corrupt=damage.dropped_frames, weight=0),
        Defect("repeated_frames", "share", 0.2, 0.5, corrupt=damage.repeated_frames, weight=0),
        Defect("blur", "pixels of 96, standard deviation", 0.8, 2.5, corrupt=damage.blur, weight=0),
        Defect("overexposed", "gain", 1.7, 4.0, corrupt=damage.exposure, weight=0),
        Defect("underexposed", "gain", 0.5, 0.15, corrupt=damage.exposure, weight=0),
        Defect("black_frames", "share of the episode", 0.12, 0.6, corrupt=damage.black_frames, weight=0),
        Defect("corrupt_blocks", "share of the frames", 0.05, 0.3, corrupt=damage.corrupt_blocks, weight=0),
        Defect("picture_noise", "grey levels, standard deviation", 12, 40, corrupt=damage.picture_noise, weight=0),
        Defect("noise_lines", "share of the frames", 0.05, 0.3, corrupt=damage.noise_lines, weight=0),
        Defect("turned_camera", "1: mirrored, 2: upside down", 1, 2, corrupt=damage.turned_camera, weight=0),
        Defect("sliding_camera", "share of the width", 0.05, 0.15, corrupt=damage.sliding_camera, weight=0),
        Defect("colours", "share of the cast; 1: red and blue exchanged", 0.25, 1.0, corrupt=damage.colours, weight=0),
        Defect("covered", "share of the picture", 0.4, 0.9, corrupt=damage.covered, weight=0),
        Defect("flicker", "share of the light", 0.1, 0.3, corrupt=damage.flicker, weight=0),
        Defect("swapped_cameras", "share of the episode", 0.5, 1.0, corrupt=damage.swapped_cameras, cameras=2, weight=0),
    )
}
PLANTED = tuple(name for name, defect in DEFECTS.items() if defect.weight)
