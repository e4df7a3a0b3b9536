"""The champion asset and the jobs by which people move it, as Dagster runs them."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.evaluation import assets, by_hand
from orchestration.evaluation.history import CURRENT, current_champion, read_moves
from orchestration.steps import Flywheel
from ray_jobs.seam.layout import generations
from ray_jobs.seam.results import Pointer, read_pointer
from tests.evaluation.deployment import A, B, C, evaluated, home

DAYS = ["2026-01-05", "2026-01-06", "2026-01-07"]


@pytest.fixture
def flywheel(tmp_path: Path) -> Iterator[Flywheel]:
    with home(tmp_path) as made:
        yield made


def champion_of(flywheel: Flywheel, day: str) -> Pointer:
    assert dg.materialize([assets.champion], partition_key=day, resources={"flywheel": flywheel}).success
    published = read_pointer(flywheel.store, "champion", day)
    assert published
    return published


def by_a_person(flywheel: Flywheel, job: dg.JobDefinition, op: str, **config: Any) -> dg.ExecuteInProcessResult:
    return job.execute_in_process(run_config={"ops": {op: {"config": config}}}, resources={"flywheel": flywheel}, raise_on_error=False)


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.user_failure_data.description)


def test_the_champion_moves_by_a_verdict_about_the_champion_of_that_time(flywheel: Flywheel) -> None:
    evaluated(flywheel, DAYS[0], A, None)
    first = champion_of(flywheel, DAYS[0])
    assert first.output == {"model": A, "before": None, "promoted": True, "reasons": ["as told"]}
    assert A.rsplit("/", 1)[1][:12] in first.shown["history"].value
    assert "1 models that differ are too few" in first.shown["calibration"].value
    evaluated(flywheel, DAYS[1], B, None)
    stale = champion_of(flywheel, DAYS[1])
    assert (stale.output["promoted"], stale.output["model"]) == (False, A)
    assert f"judged against no champion, and the champion is {A} since" in stale.output["reasons"][0]
    evaluated(flywheel, DAYS[1], B, A)
    assert champion_of(flywheel, DAYS[1]).output["model"] == B
    again = champion_of(flywheel, DAYS[1])
    assert all("data:image/png" in again.shown[name].value for name in ("history", "calibration"))
    assert (again.output["promoted"], again.shown["moved"].value) == (True, "no")
    assert len(generations(flywheel.store, "champion", CURRENT)) == 2, "a champion that stays publishes nothing"
    evaluated(flywheel, DAYS[2], C, B, promote=False)
    assert champion_of(flywheel, DAYS[2]).output == {"model": B, "before": B, "promoted": False, "reasons": ["as told"]}


def test_a_step_that_dies_between_its_move_and_its_day_is_told_by_the_next_as_if_it_had_not(flywheel: Flywheel, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(flywheel, DAYS[0], A, None)
    champion_of(flywheel, DAYS[0])
    evaluated(flywheel, DAYS[1], B, A)

    def dies(_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(assets.plots, "calibration_picture", dies)
        dg.materialize([assets.champion], partition_key=DAYS[1], resources={"flywheel": flywheel})
    assert current_champion(flywheel.store) == B and read_pointer(flywheel.store, "champion", DAYS[1]) is None
    assert champion_of(flywheel, DAYS[1]).output == {"model": B, "before": A, "promoted": True, "reasons": ["as told"]}
    assert len(read_moves(flywheel.store)) == 2, "one move"


def test_two_runs_that_race_for_the_champion_leave_one_and_the_other_says_so(flywheel: Flywheel, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(flywheel, DAYS[0], A, None)
    evaluated(flywheel, DAYS[1], B, None)
    both_have_read, publish = threading.Barrier(2, timeout=60), assets.publish_place

    def published_together(*arguments: Any) -> bool:
        both_have_read.wait()
        return publish(*arguments)

    monkeypatch.setattr(assets, "publish_place", published_together)
    results: dict[str, bool] = {}

    def run(day: str) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            results[day] = dg.materialize([assets.champion], partition_key=day, resources={"flywheel": flywheel}, instance=instance).success

    racing = [threading.Thread(target=run, args=(day,)) for day in DAYS[:2]]
    for thread in racing:
        thread.start()
    for thread in racing:
        thread.join(120)
    assert results == dict.fromkeys(DAYS[:2], True)
    (move,) = read_moves(flywheel.store)
    told = {model: read_pointer(flywheel.store, "champion", day) for day, model in zip(DAYS, (A, B), strict=False)}
    winner, loser = (A, B) if move.model == A else (B, A)
    assert current_champion(flywheel.store) == winner
    won, lost = told[winner], told[loser]
    assert won and lost and won.output["model"] == lost.output["model"] == winner
    assert (won.output["promoted"], lost.output["promoted"]) == (True, False)
    assert lost.output["reasons"] == [f"judged against no champion, and the champion is {winner} since: materialize `evaluation` again"]


def test_a_person_promotes_and_rolls_back_with_a_reason_and_the_gate_respects_it(flywheel: Flywheel) -> None:
    evaluated(flywheel, DAYS[0], A, None)
    champion_of(flywheel, DAYS[0])
    done = by_a_person(flywheel, by_hand.promote, "promote_model", model="bbbbbbbbbb", reason="the gate was too strict on Monday")
    assert done.success and current_champion(flywheel.store) == B
    (seen,) = [event for event in done.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    assert "the gate was too strict" in seen.asset_observation_data.asset_observation.metadata["history"].value
    evaluated(flywheel, DAYS[1], C, B)
    assert champion_of(flywheel, DAYS[1]).output["model"] == C
    assert by_a_person(flywheel, by_hand.rollback, "roll_back", reason="it drops cups").success
    assert current_champion(flywheel.store) == B, "the champion before"
    evaluated(flywheel, DAYS[1], C, B)
    refused = champion_of(flywheel, DAYS[1])
    assert (refused.output["model"], refused.output["promoted"]) == (B, False)
    assert "rolled back by a person: rollback by hand: it drops cups" in refused.output["reasons"][0]
    assert by_a_person(flywheel, by_hand.rollback, "roll_back", reason="to the first", to=A).success
    assert current_champion(flywheel.store) == A
    assert by_a_person(flywheel, by_hand.promote, "promote_model", model=C, reason="repaired").success
    assert [move.how for move in read_moves(flywheel.store)] == ["gate", "promote", "gate", "rollback", "rollback", "promote"]


@pytest.mark.parametrize(
    ("job", "op", "config", "said"),
    [
        (by_hand.promote, "promote_model", {"model": B, "reason": "  "}, "needs a reason"),
        (by_hand.promote, "promote_model", {"model": "0123456789", "reason": "x"}, "0 models begin with '0123456789'"),
        (by_hand.promote, "promote_model", {"model": "bb", "reason": "x"}, "too short"),
        (by_hand.promote, "promote_model", {"model": A, "reason": "x"}, "is the champion already"),
        (by_hand.rollback, "roll_back", {"reason": "x"}, "there is no earlier champion to go back to"),
    ],
)
def test_a_move_that_cannot_be_meant_is_refused_in_one_line(flywheel: Flywheel, job: dg.JobDefinition, op: str, config: dict[str, str], said: str) -> None:
    evaluated(flywheel, DAYS[0], A, None)
    champion_of(flywheel, DAYS[0])
    result = by_a_person(flywheel, job, op, **config)
    assert not result.success and said in failure(result) and "\n" not in failure(result)
    assert current_champion(flywheel.store) == A


def test_a_reason_is_not_optional(flywheel: Flywheel) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="reason"):
        by_a_person(flywheel, by_hand.promote, "promote_model", model=B)
