"""What changes and stays changed is told with the day since when; what comes back is not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.curation.context import build
from orchestration.curation.drift import drifting, since
from orchestration.curation.judge import judge
from orchestration.curation.present import context_table
from orchestration.curation.thresholds import Thresholds
from ray_jobs.curation.pictures import BACKGROUND, shrink
from tests.curation.synthetic import background
from tests.curation.test_judge import episode, measured

T = Thresholds.load()
DAYS = ("2026-09-17", "2026-09-18", "2026-09-19", "2026-09-20", "2026-09-21")


def view(pixels: int, seed: int) -> list[float]:
    grey = background(pixels)[None, ..., 0].astype(np.float32) + np.random.default_rng(seed).normal(0, 2, (1, 64, 64))
    return [float(value) for value in shrink(grey, BACKGROUND).ravel()]


def week(shifts: tuple[int, ...]) -> tuple[list[tuple[list[dict[str, Any]], Any]], tuple[list[dict[str, Any]], Any]]:
    """The days before and the last one, five episodes each, the camera displaced by so many pixels of 64 on each day."""
    days = []
    for place, (day, pixels) in enumerate(zip(DAYS[-len(shifts) :], shifts, strict=True)):
        rows = [episode(100 * place + number, day=day) for number in range(5)]
        ledger = measured(rows)
        for number, row in enumerate(rows):
            ledger["signal"][row["episode_id"]]["vectors"] = {"background:front": view(pixels, 100 * place + number)}
        days.append((rows, ledger))
    return days[:-1], days[-1]


def test_a_camera_that_moved_on_saturday_is_named_with_the_day() -> None:
    earlier, own = week((0, 0, 5, 5, 5))
    context = build(earlier, own, T)
    assert [(drift.name, drift.since) for drift in context.robots["arm-1"].drifts] == [("background:front", "2026-09-19")]
    assert context.robots["arm-1"].drifts[0].amount == pytest.approx(5 / 64, abs=0.015)
    told = [reason for row in judge(*own, T, context) for reason in row["reasons"]]
    assert told and all("since" in reason and "2026-09-19" in reason for reason in told if "camera" in reason)
    assert "the front camera has moved since Saturday 2026-09-19" in context_table(context)


def test_a_change_that_settled_is_noted_and_kept() -> None:
    earlier, own = week((0, 6, 6, 6, 6))
    found = judge(*own, T, build(earlier, own, T))
    assert {row["verdict"] for row in found} == {"kept"}
    assert all(any("has moved since Friday 2026-09-18" in reason for reason in row["reasons"]) for row in found)


@pytest.mark.parametrize("shifts", [(0, 0, 0, 0, 0), (0, 0, 6, 0, 0), (0,), (0, 1, 0, 1, 0)])
def test_what_stands_or_comes_back_is_no_drift(shifts: tuple[int, ...]) -> None:
    earlier, own = week(shifts)
    context = build(earlier, own, T)
    assert context.robots["arm-1"].drifts == ()


def test_a_delay_that_stays_is_a_drift() -> None:
    days = [(day, [{"scores": {"command.lag_s": 0.3 if place >= 3 else 0.02}, "vectors": {}} for _ in range(4)]) for place, day in enumerate(DAYS)]
    drifts, settled = drifting(days, T)
    assert [(drift.name, drift.since, drift.days) for drift in drifts] == [("command.lag_s", "2026-09-20", 2)] and settled == {}


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.floats(0.05, 0.5))
def test_since_is_the_start_of_an_unbroken_change(changes: list[float], limit: float) -> None:
    start = since([0.0, *changes], limit)
    if start is not None:
        assert abs(changes[-1]) > limit and start >= 1
        assert all(change * np.sign(changes[-1]) > 0 for change in changes[start - 1 :])
