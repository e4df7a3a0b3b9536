"""What was evaluated over days, its pictures, and whether offline error foretells success."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from orchestration.evaluation import plots
from orchestration.evaluation.history import Move
from orchestration.evaluation.record import ENOUGH, Point, calibration, days_of, read_points
from orchestration.steps import Flywheel
from tests.evaluation.deployment import A, B, C, evaluated, home, publish


@pytest.fixture
def flywheel(tmp_path: Path) -> Iterator[Flywheel]:
    with home(tmp_path) as made:
        yield made


def point(number: int, error: float | None, rate: float | None, model: str | None = None) -> Point:
    low, high = (None, None) if rate is None else (max(0.0, rate - 0.1), min(1.0, rate + 0.1))
    return Point(f"2026-01-{number:02d}", model or f"models/{number:032x}", rate is not None and rate > 0.5, 100, rate, low, high, error)


def test_points_are_read_day_by_day(flywheel: Flywheel) -> None:
    evaluated(flywheel, "2026-01-06", B, A, promote=False, rate=0.4, error=0.6)
    evaluated(flywheel, "2026-01-05", A, None)
    publish(flywheel, "evaluation", "2026-01-07", output={"reasons": ["no policy was trained"]})
    assert days_of(flywheel.store, "evaluation") == ["2026-01-05", "2026-01-06", "2026-01-07"]
    found = read_points(flywheel.store)
    assert [(each.day, each.model, each.promoted, each.rate, each.error) for each in found] == [
        ("2026-01-05", A, True, 0.9, 0.3),
        ("2026-01-06", B, False, 0.4, 0.6),
    ]
    assert [each.day for each in read_points(flywheel.store, last=2)] == ["2026-01-06"]


def test_an_offline_error_that_foretells_success_is_told_and_one_that_does_not_is_not() -> None:
    errors = [0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    telling = calibration([point(number, error, 1 - error) for number, error in enumerate(errors)])
    assert telling.rank == pytest.approx(-1.0) and telling.chance is not None and telling.chance < 0.01
    silent = calibration([point(number, error, rate) for number, (error, rate) in enumerate(zip(errors, [0.5, 0.2, 0.9, 0.4, 0.6, 0.3, 0.8], strict=True))])
    assert silent.chance is not None and silent.chance > 0.1
    assert "goes with more success: rank correlation -1.00" in plots.calibration_picture([point(n, error, 1 - error) for n, error in enumerate(errors)])


def test_what_cannot_be_told_is_not_told() -> None:
    few = [point(number, 0.1 * number, 0.1 * number) for number in range(ENOUGH - 1)]
    assert calibration(few).rank is None and "too few to say" in plots.calibration_picture(few)
    same_model = [point(number, 0.1 * number, 0.1 * number, model=A) for number in range(9)]
    assert calibration(same_model).models == 1
    alike = [point(number, 0.3, 0.1 * number) for number in range(9)]
    assert calibration(alike).rank is None
    unknown = [point(number, None if number % 2 else float("nan"), 0.1 * number) for number in range(9)]
    assert calibration(unknown).models == 0
    assert plots.calibration_picture([point(1, None, None)]).startswith("0 models")


numbers = st.floats(0.01, 2)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(numbers, st.floats(0, 1)), min_size=ENOUGH, max_size=8))
def test_the_rank_is_scipys(pairs: list[tuple[float, float]]) -> None:
    found = calibration([point(number + 1, error, rate) for number, (error, rate) in enumerate(pairs)])
    if found.rank is not None and found.chance is not None:
        assert found.rank == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic) and 0 < found.chance <= 1


def test_the_history_is_a_picture_and_a_table() -> None:
    chain = [
        Move("20260105T090000.000000Z-a", A, None, "gate", ("as good | as told",), "2026-01-01"),
        Move("20260106T090000.000000Z-b", B, A, "promote", ("by hand",)),
        Move("odd", C, B, "rollback", ("because",)),
    ]
    text = plots.history_picture([point(1, 0.3, 0.9), point(2, 0.4, 0.2), point(3, 0.4, None)], chain)
    assert text.startswith("![success by day") and "data:image/png;base64," in text and len(text) < 100_000
    rows = plots.moves_table(chain).splitlines()[2:]
    assert rows[0].startswith("| odd | cccccccccccc | bbbbbbbbbbbb | a person: rollback | because |")
    assert rows[2] == "| 2026-01-05 09:00 | aaaaaaaaaaaa | none | the gate, 2026-01-01 | as good / as told |"
    assert plots.history_picture([], []).startswith("| when")
