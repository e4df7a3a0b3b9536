"""The thresholds of the verdicts: one strict document. Its defaults, their units and reasons are thresholds.yaml beside this file."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from ray_jobs.seam.model import Strict

DOCUMENT = Path(__file__).with_name("thresholds.yaml")


class Habit(Strict):
    """When a score is off its robot's usual. `below`, `above`: the check's name on that side, None where that side is harmless."""

    below: str | None = None
    above: str | None = None
    margin: float = Field(0.0, ge=0)
    ratio: float | None = Field(None, gt=1)
    spreads: float = Field(ge=0)
    of: Literal["robot", "task"] = "robot"


class Thresholds(Strict):
    """What a document does not name has its default. A key that is not known is refused."""

    compare_at_least: int = Field(ge=3)
    fit_at_least: int = Field(ge=3)
    context_days: int = Field(ge=0)
    settle_days: int = Field(ge=1)

    min_duration_s: float
    max_duration_s: float
    max_nonfinite: float
    max_backward_steps: int
    max_clock_step_s: float
    max_skew_s: float
    max_gap_s: float
    max_gap_periods: float
    even_at_least: float
    max_lost: float
    max_uncovered_s: float
    max_uncovered_share: float

    min_state_span: float
    max_spike: float
    max_jump: float
    min_spike: float
    min_jump: float
    max_glitch_ratio: float
    max_sudden_spreads: float
    max_noise_ratio: float
    min_noise_share: float
    max_range_excess: float
    max_step_ratio: float
    min_span_ratio: float
    max_stuck_s: float
    max_pinned: float
    homed_within: float
    max_start_offset: float
    max_relation_spreads: float
    min_relation_offset: float
    max_idle_fraction: float
    max_idle_s: float
    min_length_share: float
    min_end_away: float
    max_end_pace: float

    min_pair_r: float
    min_pair_r_alone: float
    max_flip_r: float
    max_swap_gain: float
    min_early_s: float
    max_late_s: float
    max_scale: float
    max_frozen_state_s: float
    max_frozen_all_s: float
    max_bias_spreads: float
    min_bias_share: float
    max_command_loss: float
    max_command_lag_s: float
    min_lag_gain: float
    min_fleet_r2: float
    min_flip_gain: float
    max_offset_errors: float
    min_offset: float

    note_repeated: float
    max_repeated: float
    max_frozen: float
    max_frozen_s: float
    max_black: float
    max_featureless: float
    max_overexposed: float
    max_glitch: float
    max_painted: float
    max_torn: float
    max_burst: float
    max_flicker: float
    min_crisp: float
    max_camera_lag_s: float
    max_camera_lag_alone_s: float
    min_camera_match: float
    min_camera_gain: float
    max_view_shift: float
    max_view_loss: float
    min_view_gain: float
    max_channel_gain: float
    min_colour: float

    max_block_distance: float
    duplicate_overlap: float
    copy_path: float
    copy_picture: float
    copy_scene: float

    habits: dict[str, Habit]

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        habits = given.get("habits", {})
        return {**_defaults(), **given, "habits": {**_defaults()["habits"], **habits}} if isinstance(habits, dict) else given

    @classmethod
    def load(cls, path: Path = DOCUMENT) -> "Thresholds":
        """The document's thresholds over the defaults. Raises pydantic.ValidationError naming the key."""
        return cls.model_validate(yaml.safe_load(path.read_text()))


@cache
def _defaults() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
    return document
