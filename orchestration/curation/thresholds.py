"""The thresholds of the verdicts: one strict document. Its defaults are thresholds.yaml beside this file."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from ray_jobs.seam.model import Strict

DOCUMENT = Path(__file__).with_name("thresholds.yaml")


def _limit(text: str, **bounds: Any) -> Any:
    return Field(description=text, **bounds)


class Thresholds(Strict):
    """Every field says its unit and why its default is what it is. All are required: a document without one is not understood."""

    compare_at_least: int = _limit("episodes of a robot; with fewer a robust median is not one, and comparisons are left out", ge=3)
    context_days: int = _limit("days before this one whose episodes make the context; long enough for a fleet's habits, short enough to forget a remount", ge=0)

    min_duration_s: float = _limit("s; shorter holds no task")
    max_duration_s: float = _limit("s; longer than a shift is a logger left running")

    max_nonfinite: float = _limit("share of samples with a NaN or infinite value; training cannot use one")
    max_backward_steps: int = _limit("steps back in publish time, per stream; time that runs twice cannot be aligned")
    max_clock_step_s: float = _limit("s by which publish time jumps against log time; delivery jitters by far less")
    max_gap_s: float = _limit("s of silence in a stream; at 10 Hz five samples, over which a hand moves a decimetre")
    max_lost: float = _limit("share of a stream's samples that its own rate lets expect and that are not there")

    min_state_span: float = _limit("rad or m; an arm whose every axis stays within it was not used")
    max_range_excess: float = _limit("share of the fleet's range by which an axis leaves it; a joint does not, a wrong unit or zero does")
    max_step_ratio: float = _limit("largest step of an axis over the fleet's usual largest step; what is above teleports")
    homed_within: float = _limit("rad or m; where every axis' start varies by less (1.4826 MAD), the robot is homed before each episode")
    max_start_offset: float = _limit("rad or m by which a homed robot's axis may start elsewhere; more, and an encoder lost its zero")
    max_idle_fraction: float = _limit("share of the time standing still; more teaches to stand still (openpi drops idle runs)")
    max_idle_s: float = _limit("s of one stand; openpi drops runs over 7 frames at 15 Hz, a grasp needs about half a second")

    note_repeated: float = _limit("share of frames that repeat the one before, above which a note says so; one in ten shows in training")
    max_repeated: float = _limit("share of frames that repeat the one before; a slow camera reaches half, a dead one all")
    max_frozen: float = _limit("share of frames in stands of the picture of three frames or more while the arm moves")
    max_frozen_s: float = _limit("s of the longest such stand; a hand that is out of view for a second is none")
    max_black: float = _limit("share of frames without light")
    max_overexposed: float = _limit("share of frames that are half white")
    min_sharp_ratio: float = _limit("sharpness over the fleet's median on this camera; a smeared lens loses two thirds")
    max_camera_lag_s: float = _limit("s by which the picture trails or leads the joints, beside the fleet's usual")
    min_camera_match: float = _limit("share of the image's motion that the joints explain, below which no lag is read from it")
    min_camera_gain: float = _limit("share of it that the lag must explain more than no lag does")
    max_view_shift: float = _limit("share of the picture's width by which the background moved against the fleet's; about 1.4 degrees at 46")

    max_command_loss: float = _limit("share of the state's change that commands explain less than usual; noise and mix-ups lower it")
    max_command_lag_s: float = _limit("s between command and motion, beside the fleet's usual")
    min_fleet_r2: float = _limit("below it the fleet's model explains too little to accuse anyone of a flipped axis")
    min_flip_gain: float = _limit("R2 that must be gained by turning an axis round before it is called flipped")

    max_block_distance: float = _limit("block sides between block and target at the end; the target's radius is 0.8 of a side")
    duplicate_overlap: float = _limit("share of the shorter episode that another of the same robot covers")
    copy_path: float = _limit("share of the joints' range by which a copy may lie apart, at the best map of time; repeated demonstrations differ by over twice")
    copy_picture: float = _limit("share of the picture's change over time that a copy's may not explain; encoding and light leave less")
    copy_scene: float = _limit("distance of the mean pictures over their size, which a copy keeps whatever its light")

    @classmethod
    def load(cls, path: Path = DOCUMENT) -> "Thresholds":
        """The document's thresholds. Raises pydantic.ValidationError naming the key."""
        return cls.model_validate(yaml.safe_load(path.read_text()))
