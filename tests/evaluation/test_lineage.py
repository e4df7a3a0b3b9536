"""explain and where, on a store as the steps leave it: a real model, tables, and publications of two days."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.cli import main
from orchestration.evaluation import lineage
from orchestration.evaluation.history import CURRENT, Move, output_of
from orchestration.launching.work import Attempt, Ended, Resources, Submitted
from orchestration.placement.decision import Decision
from orchestration.steps import Flywheel
from ray_jobs.evaluation.evaluator import scene_of
from ray_jobs.evaluation.scores import Manifest
from ray_jobs.evaluation.scores import publish as publish_manifest
from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.configs import SelectionSettings, TrainSettings, Tuned
from ray_jobs.seam.errors import DataError, UserError
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import EPISODES, VERDICTS, to_bytes
from ray_jobs.training.loop import learn
from ray_jobs.training.model import Lineage, LineageDataset, write_model
from ray_jobs.training.samples import moments
from ray_jobs.training.selection import choose, is_held_out
from tests.evaluation.deployment import LINEAGE, A, home, publish

MONDAY, TUESDAY = "2026-01-05", "2026-01-06"
MINUTE = 60 * 1_000_000_000
OLDER, OLDEST = (f"models/{letter * 32}" for letter in "de")
MANIFEST = Manifest(evaluator="simulated_arm@1", content="", scenes=tuple(scene_of(seed, level) for level in ("none", "mild") for seed in (5, 6, 7)))
IDS = {name: f"{number:032x}" for number, name in enumerate(("short", "long", "held", "night", "rejected"), 1)}
ROWS = {
    MONDAY: [("short", "arm-1", "stack", 3), ("long", "arm-2", "stack", 60), ("held", "arm-1", "stack", 9), ("rejected", "arm-1", "stack", 9)],
    TUESDAY: [("night", "arm-1", "pour", 30)],
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flywheel, str]]:
    with home(tmp_path_factory.mktemp("home")) as flywheel:
        yield flywheel, build(flywheel)


def build(flywheel: Flywheel) -> str:
    store = flywheel.store
    for day, rows in ROWS.items():
        episodes = [episode(day, *row) for row in rows]
        store.put(f"tables/{day}.parquet", to_bytes(episodes, EPISODES))
        verdicts = [verdict(row) for row in episodes]
        store.put(f"verdicts/{day}.parquet", to_bytes(verdicts, VERDICTS))
        publish(flywheel, "episodes", day, output={"episodes": f"tables/{day}.parquet"})
        publish(flywheel, "verdicts", day, output={"verdicts": f"verdicts/{day}.parquet"})
    model = trained(store)
    publish_manifest(store, MANIFEST)
    for number, seconds in ((1, 40.0), (2, 100.0)):
        attempt = Attempt(
            base="policy-x", number=number, deployment="d", asset="policy", days=(TUESDAY,), module="m", config={}, code="c0de", generation="g", root_run="r",
            run_id="r", series="r", resources=Resources(),
        )  # fmt: skip
        store.put(attempt.key, attempt.model_dump_json().encode())
        store.put(f"attempts/policy-x/a{number}/submitted.json", Submitted(uid="u", run_id="r", at=1000.0).model_dump_json().encode())
        store.put(f"attempts/policy-x/a{number}/ended.json", Ended(failure_class=None, evidence="", at=1000.0 + seconds).model_dump_json().encode())
    where = Decision(
        id="20260105T000000.000000Z-x", root_run="r", target="lambda", region="eu", store=store.config, launch={}, price=3.6, copy_cost=0.05, cost=1.0
    )
    publish(flywheel, "placement", TUESDAY, generation=where.id, output={"decision": where.model_dump(mode="json")})
    publish(flywheel, "policy", TUESDAY, output={"model": model, "placement": {"id": where.id}}, attempt="policy-x-a2")
    publish(flywheel, "policy", TUESDAY, generation="20260106T000000.000000Z-y", output={"model": "models/another"})  # the day was trained again since
    scores = {
        "candidate": {"model": model, "rollouts": 100, "successes": 88, "rate": 0.88, "low": 0.8, "high": 0.93},
        "champion": {"model": "models/old"},
        "offline": {"candidate": {"error": 0.25}},
        "manifest": MANIFEST.key,
        "failures": {"prefix": "evaluations/m/failures-abc"},
    }
    publish(flywheel, "evaluation", TUESDAY, output={"scores": scores, "model": model, "promote": True, "reasons": ["as good"]})
    for place, move in (
        ("move-000001", Move("20260106T090000.000000Z-a", model, None, "gate", ("as good",), TUESDAY)),
        ("move-000002", Move("20260107T090000.000000Z-b", "models/" + "a" * 32, model, "rollback", ("it drops cups",))),
    ):
        made = Pointer(asset="champion", day=CURRENT, generation=move.generation, run_id="r", output=output_of(move))
        store.put(pointer("champion", CURRENT, place), made.model_dump_json().encode())
    return model


def episode(day: str, name: str, robot: str, task: str, minutes: int) -> dict[str, Any]:
    return {
        "episode_id": IDS[name],
        "day": day,
        "robot": robot,
        "task": task,
        "upload": f"{name}.mcap",
        "status": "ok",
        "start_ns": 0,
        "end_ns": minutes * MINUTE,
    }


def verdict(row: dict[str, Any]) -> dict[str, Any]:
    bad = row["upload"].startswith("rejected")
    reasons = ["stuck_joint: 0.9 of it"] if bad else []
    taken = {name: row[name] for name in ("episode_id", "day", "robot", "task", "upload")}
    return {**taken, "verdict": "rejected" if bad else "kept", "reasons": reasons, "duration_s": row["end_ns"] / 1e9}


def packed() -> list[PackedEpisode]:
    """Three of the task, one of them held out and one of the other robot; and two of another."""
    names = [next(name for name in (f"{number:032x}" for number in range(start, start + 99)) if is_held_out(name, 10) == held) for start, held in
             ((100, False), (200, False), (300, True), (400, False), (500, False))]  # fmt: skip
    plain: dict[str, Any] = {
        "synthetic": False,
        "dataset": "d",
        "day": MONDAY,
        "upload": "u",
        "tags": {},
        "scores": {},
        "length": 9,
        "fps": 3,
        "file": "f",
        "row_group": 0,
    }
    plain |= {"state_names": ("a",), "action_names": ("b",), "cameras": {}}
    return [
        PackedEpisode(episode_id=name, source_episode_id=name, episode_index=number, task=task, robot="arm-2" if number == 1 else "arm-1", **plain)
        for number, (name, task) in enumerate(zip(names, ("stack", "stack", "stack", "pour", "pour"), strict=True))
    ]


def trained(store: Store) -> str:
    rows = moments({"features": np.random.default_rng(0).random((8, 5), np.float32)}, np.random.default_rng(1).random((8, 4), np.float32))
    policy, _ = learn("keypoints", [rows], TrainSettings(steps=0), 5)
    datasets = (
        LineageDataset(
            day=MONDAY, prefix="datasets/mon", manifest_sha256="1" * 64, trained_on=(IDS["short"], IDS["long"]), held_out=(IDS["held"],), uploads=("a", "b")
        ),
        LineageDataset(day=TUESDAY, prefix="datasets/tue", manifest_sha256="2" * 64, trained_on=(IDS["night"], "f" * 32), held_out=(), uploads=("c",)),
    )
    settings = {"seed": 7, "batch": 128, "workers": 2, "holdout": 10, "select": [{"field": "task"}], "mixture": [{"weight": 2}]}
    chosen = SelectionSettings.model_validate(
        {
            "holdout": 10,
            "select": [{"field": "task", "one_of": ["stack"]}],
            "mixture": [{"where": [{"field": "robot", "one_of": ["arm-2"]}], "weight": 2}],
        }
    )
    older = {
        **LINEAGE,
        "steps": 900,
        "started_from": OLDEST,
        "datasets": [{"day": MONDAY, "prefix": "datasets/old", "trained_on": [IDS["held"]], "held_out": []}],
    }
    store.put(f"{OLDER}/lineage.json", json.dumps(older).encode())
    lineage = Lineage(
        model="",
        datasets=datasets,
        settings=settings,
        code=None,
        versions={"torch": "2"},
        metrics={"loss": 0.1},
        steps=1200,
        resumed_from_step=200,
        seconds=30.0,
        selection=choose(packed(), chosen).told,
        started_from=OLDER,
        tuned=Tuned(day=MONDAY, evidence="tunings/t.json", learning_rate=1e-3, batch=64, policy="keypoints", trials=9, error=0.25, error_as_set=0.5),
    )
    return write_model(store, policy, lineage)


def test_explain_tells_days_hours_selection_code_seeds_cost_and_how_it_was_judged(told: tuple[Flywheel, str]) -> None:
    flywheel, model = told
    text = lineage.explain(flywheel.store, model.rsplit("/", 1)[1][:10])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for said in (
        model,
        "trained 1200 steps of 128 in 30 s, resumed from step 200",
        f"for {TUESDAY}",
        "code c0de",
        "seeds training 7",
        "selection what meets all conditions; one episode in 10 held out, by its id",
        "2 of 5 episodes learned from, 1 held out",
        "task one of 'stack': 3 episodes",
        "2 times an epoch: robot one of 'arm-2', 1 episodes",
        "1 times an epoch: the rest, 1 episodes",
        "left out: a condition does not hold, 2 episodes",
        f"started from {OLDER}, trained 900 steps on {MONDAY}",
        f"from {OLDEST}, which is not there any more",
        f"tuned the best of 9 trials of {MONDAY}: action error 0.250, against 0.500 of the settings as they stand (tunings/t.json)",
        "settings batch 128, holdout 10, seed 7, workers 2",
        f"cost of the run of {TUESDAY}: 140 s in 2 attempts, at most 280 worker seconds; on lambda (eu) about 0.19 USD with its copies",
        f"{MONDAY} datasets/mon 2 episodes, 1 held out, 2 uploads, manifest 111111111111",
        f"{MONDAY} 2 episodes 1.050 robot-hours",
        "arm-1 2 episodes 0.550 robot-hours",
        "arm-2 1 episodes 1.000 robot-hours",
        "pour 1 episodes 0.500 robot-hours",
        "stack 2 episodes 1.050 robot-hours",
        "1 episodes are in no table of their day (synthetic copies, or a day ingested anew since): their hours are not counted",
        f"{TUESDAY} 88 of 100 [80%, 93%], offline error 0.250, against models/old",
        f"scenes 6 of simulated_arm@1, seeds 5 to 7, conditions mild, none ({MANIFEST.key})",
        "failures evaluations/m/failures-abc",
        "promoted: as good",
        f"from 2026-01-06 09:00 to 2026-01-07 09:00, by the gate, on {TUESDAY}",
    ):
        assert said in lines, f"{said!r} is not in\n{text}"


def test_where_names_every_model_and_what_it_did_with_the_episode(told: tuple[Flywheel, str]) -> None:
    flywheel, model = told
    store = flywheel.store
    learned, held, rejected = (lineage.where(store, IDS[name]) for name in ("long", "held", "rejected"))
    assert f"  {model}  learned from it, in datasets/mon" in learned.splitlines()
    assert "kept" in learned and "arm-2, stack, 3600.0 s, long.mcap" in learned
    assert f"champion from 2026-01-06 09:00 to 2026-01-07 09:00, by the gate, on {TUESDAY}" in learned
    assert f"  {model}  held it out, in datasets/mon" in held.splitlines()
    assert f"  {model}  went on from {OLDER}, which learned from it, in datasets/old" in held.splitlines()
    assert f"  {OLDER}  learned from it, in datasets/old" in held.splitlines()
    assert "went on from" not in learned
    assert "stuck_joint: 0.9 of it" in rejected and rejected.endswith("models\n  none")


@pytest.mark.parametrize(("text", "said"), [(b"{}", "datasets is missing"), (b"[]", "not a lineage of this version"), (b"{", "is not JSON")])
def test_a_lineage_that_is_none_is_one_line(tmp_path: Path, text: bytes, said: str) -> None:
    with home(tmp_path) as flywheel:
        flywheel.store.put(f"{A}/lineage.json", text)
        with pytest.raises(DataError, match=said) as error:
            lineage.explain(flywheel.store, A)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "said"), [("abc", "too short for a model"), ("0" * 10, "0 models begin with")])
def test_a_model_that_is_not_there_is_one_line(told: tuple[Flywheel, str], name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        lineage.explain(told[0].store, name)


def test_by_the_command(told: tuple[Flywheel, str], capsys: pytest.CaptureFixture[str]) -> None:
    _, model = told
    assert main(["explain", model]) == 0
    assert capsys.readouterr().out.startswith(model)
    assert main(["where", IDS["night"]]) == 0
    assert model in capsys.readouterr().out
    assert main(["where", "0" * 31 + "9"]) == 1
    assert capsys.readouterr().err == f"flywheel: no judged episode starts with {'0' * 31}9\n"


def test_the_hours_of_an_episode_come_from_the_table_that_holds_it(tmp_path: Path) -> None:
    with home(tmp_path) as flywheel:
        for generation, name in (("1", "short"), ("2", "night")):
            flywheel.store.put(f"tables/{name}", to_bytes([episode(MONDAY, name, "arm-1", "stack", 1)], EPISODES))
            publish(flywheel, "episodes", MONDAY, generation=generation, output={"episodes": f"tables/{name}"})
        assert set(lineage.episode_rows(flywheel.store, MONDAY, {IDS["short"], IDS["night"], IDS["held"]})) == {IDS["short"], IDS["night"]}
