"""The offline summary: an episode is the unit, whatever its length; joints, horizons and days add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.evaluation.offline import DAYS_FOR_INTERVAL, Errors, summary

NAMES = ("dx", "grip")


def episode(number: int, error: float, day: str = "2026-01-05", moments: int = 10, chunk: int = 3) -> Errors:
    """One whose action is 0 half of the time and 1 else, so that its spread is 0.5, and whose every prediction is off by `error`, growing by horizon."""
    off = error * (1 + np.arange(chunk))[:, None] * np.ones(2)
    count = np.maximum(moments - np.arange(chunk), 0)
    return Errors(f"{number:032x}", day, count, off, off**2, np.full(2, 0.5), np.full(2, 0.5))


def test_an_episode_counts_once_whatever_its_length() -> None:
    told = summary("models/m", NAMES, [episode(1, 0.1, moments=1000), episode(2, 0.3, moments=10)])
    assert told is not None
    assert told["error"] == pytest.approx(0.4), "mean of 0.2 and 0.6, not the long one's"
    assert told["by_horizon"] == pytest.approx([0.4, 0.8, 1.2])
    assert told["joints"] == {"dx": pytest.approx([0.2, 0.4, 0.6]), "grip": pytest.approx([0.2, 0.4, 0.6])}
    assert list(told["by_episode"]) == [f"{2:032x}", f"{1:032x}"], "the worst first"
    assert told["low"] < told["error"] < told["high"] and told["interval_over"] == "episodes"


def test_a_horizon_that_an_episode_does_not_have_is_left_out() -> None:
    told = summary("m", NAMES, [episode(1, 0.1, moments=2), episode(2, 0.3, moments=10)])
    assert told is not None and told["by_horizon"] == pytest.approx([0.4, 0.8, 1.8])


def test_many_days_are_the_unit_of_the_interval() -> None:
    days = [f"2026-01-{number:02d}" for number in range(1, DAYS_FOR_INTERVAL + 1)]
    told = summary("m", NAMES, [episode(number, 0.1 * (1 + place), day) for place, day in enumerate(days) for number in range(4)])
    assert told is not None and told["interval_over"] == "days"
    each = np.array([0.2 * (1 + place) for place in range(len(days))])
    assert told["high"] - told["error"] == pytest.approx(2.776 * each.std(ddof=1) / np.sqrt(len(days)), abs=2e-3), "Student's t of four degrees"
    assert [told["by_day"][day]["error"] for day in days] == pytest.approx(each.tolist())


def test_one_episode_has_no_interval_and_none_no_summary() -> None:
    told = summary("m", NAMES, [episode(1, 0.1)])
    assert told is not None and (told["low"], told["high"]) == (None, None)
    assert summary("m", NAMES, []) is None


def test_what_never_moves_is_left_out_of_the_error() -> None:
    still = Errors("0" * 32, "2026-01-05", np.array([5]), np.array([[0.1, 9.0]]), np.array([[0.01, 81.0]]), np.array([0.5, 3.0]), np.array([0.5, 9.0]))
    told = summary("m", NAMES, [still])
    assert told is not None and told["error"] == pytest.approx(0.2)
    assert told["joints"]["grip"] == [9.0], "but it is told in its own unit"


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 3)), min_size=1, max_size=20))
def test_days_and_episodes_give_the_same_mean(made: list[tuple[float, int]]) -> None:
    told = summary("m", NAMES, [episode(number, error, f"2026-01-0{day}") for number, (error, day) in enumerate(made)])
    assert told is not None
    weighed = sum(each["error"] * each["episodes"] for each in told["by_day"].values()) / len(made)
    assert told["error"] == pytest.approx(weighed, abs=1e-5)
    assert told["error"] == pytest.approx(sum(told["by_episode"].values()) / len(made), abs=1e-5)
