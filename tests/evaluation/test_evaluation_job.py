"""Rollouts by real actors: the same result whoever does them, kept once measured, and offline where nothing can be rolled out."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from fleet.arm import Arm
from fleet.expert import demonstrate
from fleet.rollout import rollout
from ray_jobs.driver import Execution
from ray_jobs.evaluation.evaluator import find_evaluator, scene_of
from ray_jobs.evaluation.job import run
from ray_jobs.evaluation.scores import Manifest, Rollouts, TrialScore, keep
from ray_jobs.evaluation.simulated import acting
from ray_jobs.packing.view import episodes_of, read_episode_arrays
from ray_jobs.seam.configs import Condition, DayDataset, EvaluateConfig, EvaluateSettings, Part, SelectionSettings, TrainSettings
from ray_jobs.seam.errors import NotFound, StoreError, UserError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.features import KEYPOINTS
from ray_jobs.training.loop import learn
from ray_jobs.training.model import Lineage, read_model, write_model
from ray_jobs.training.samples import moments
from tests.training.recorded import DAY, FIRST_SEED, demo_day

SETTINGS = EvaluateSettings(rollouts=8, actors=2)
HALF = SelectionSettings(holdout=2)


def execution(store: Store, name: str) -> Execution:
    return Execution(store, f"attempts/base/a1/{name}", report=lambda message: None)


def model(store: Store, steps: int) -> str:
    torch.set_num_threads(1)
    arm = Arm()
    demos = [demonstrate(arm, FIRST_SEED + number) for number in range(24)]
    parts = [moments(KEYPOINTS.observe(demo.states, {"front": demo.frames}), demo.actions) for demo in demos]
    policy, _ = learn("keypoints", parts, TrainSettings(steps=steps), 5, ("front",))
    lineage = Lineage(model="", datasets=(), settings={}, code=None, versions={}, metrics={}, steps=steps, resumed_from_step=0, seconds=0.0)
    return write_model(store, policy, lineage)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> tuple[Store, EvaluateConfig, Any]:
    folder = tmp_path_factory.mktemp("evaluation")
    store = Store(StoreConfig.local(folder / "store"))
    dataset: DayDataset = demo_day(store, folder, 6)
    candidate, champion = model(store, 300), model(store, 0)
    config = EvaluateConfig(
        store=store.config, days=(DAY,), data=store.config, view=(dataset,), candidate=candidate, champion=champion, selection=HALF, settings=SETTINGS
    )
    return store, config, run(config, execution(store, "first"))[DAY]


def test_only_held_out_episodes_that_the_selection_covers_are_asked_about(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, config, first = measured
    chosen = json.loads(store.get(first.output["scores"]["offline"]["episodes"]))[0]["by_episode"]
    lengths = sorted(episode.length / episode.fps for episode in episodes_of(store, config.view[0]) if episode.episode_id in chosen)
    assert lengths[0] < lengths[-1], "the test would prove nothing on episodes that are all as long"
    longer = SelectionSettings(holdout=2, select=(Condition(field="seconds", at_least=lengths[-1]),))
    again = run(config.model_copy(update={"selection": longer}), execution(store, "longer"))[DAY]
    assert again.counts["held_out"] == lengths.count(lengths[-1]) < first.counts["held_out"]
    other = SelectionSettings(holdout=2, mixture=(Part(where=(), weight=0),))
    assert run(config.model_copy(update={"selection": other}), execution(store, "none"))[DAY].output["scores"]["offline"] is None


def pid_of(worker: Any) -> int:
    return int(ray.get(worker.__ray_call__.remote(lambda _: os.getpid())))


def test_both_face_the_same_scenes(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, _, result = measured
    told = result.output["scores"]
    candidate, champion = told["candidate"], told["champion"]
    assert list(candidate["by_scene"]) == list(champion["by_scene"]) == [str(1_000_000 + place) for place in range(8)]
    assert candidate["successes"] == sum(candidate["by_scene"].values()) > champion["successes"] == 0
    assert candidate["low"] < candidate["rate"] <= candidate["high"]
    assert result.counts["rollouts"] == 16 and result.counts["held_out"] > 0
    assert "data:image/jpeg;base64" in result.shown["rollouts"].value
    manifest = Manifest.model_validate_json(store.get(told["manifest"]))
    assert [scene.id for scene in manifest.scenes] == list(candidate["by_scene"]) and manifest.key == told["manifest"]
    assert told["groups"] == {}, "one level, one task: no group"


def test_the_offline_error_is_told_by_joint_horizon_day_and_episode(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, _, result = measured
    offline = result.output["scores"]["offline"]
    candidate = offline["candidate"]
    assert candidate["error"] < 0.8 * offline["champion"]["error"]
    assert {name: len(values) for name, values in candidate["joints"].items()} == dict.fromkeys(("dx", "dy", "dz", "grip"), KEYPOINTS.chunk)
    assert len(candidate["by_horizon"]) == KEYPOINTS.chunk and candidate["by_horizon"][0] == candidate["error"]
    assert candidate["by_day"] == {DAY: {"episodes": result.counts["held_out"], "error": candidate["error"]}}
    by_episode = json.loads(store.get(offline["episodes"]))[0]["by_episode"]
    assert len(by_episode) == candidate["episodes"]
    assert candidate["error"] == pytest.approx(sum(by_episode.values()) / len(by_episode), abs=1e-5), "every episode counts the same"


def test_failures_are_episodes_that_the_projects_own_reader_opens(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, config, result = measured
    told = result.output["scores"]
    lost = [scene for scene, success in told["candidate"]["by_scene"].items() if not success]
    if not lost:
        pytest.fail("every rollout succeeded: train the candidate for fewer steps, so that this test can see a failure")
    dataset = DayDataset.model_validate(told["failures"])
    episodes = episodes_of(store, dataset)
    assert [episode.upload for episode in episodes] == [f"{config.candidate} scene {scene}" for scene in lost[: SETTINGS.failures]]
    arm = Arm()
    policy = read_model(store, config.candidate)
    again = rollout(acting(policy), int(lost[0]), True, arm)
    arrays = read_episode_arrays(store, dataset, episodes[0])
    assert again.frames is not None and again.actions is not None and not again.success
    assert np.array_equal(arrays.state, again.states) and np.array_equal(arrays.action, again.actions)
    assert arrays.frames["front"].shape == again.frames.shape
    assert np.abs(arrays.frames["front"].astype(float) - again.frames).mean() < 6, "the same pictures, through H.264"


def test_what_was_measured_once_is_not_rolled_out_again(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, config, first = measured
    again = run(config, execution(store, "second"))[DAY]
    assert (again.counts["rollouts"], again.counts["reused"]) == (0, 16)
    assert again.output == first.output and again.output_digest == first.output_digest


@pytest.mark.parametrize("killed", [(1,), (1, 2, 5)])
def test_an_actor_that_is_killed_is_replaced_and_the_result_is_the_same(measured: tuple[Store, EvaluateConfig, Any], killed: tuple[int, ...]) -> None:
    from ray_jobs.evaluation.actors import Pool

    _, config, result = measured
    scenes = [scene_of(1_000_000 + place) for place in range(8)]
    with Pool(2, config.store, config.data, SETTINGS) as pool:

        def kill(count: int) -> None:
            if count in killed:
                os.kill(pid_of(pool.workers[count % 2]), signal.SIGKILL)

        trials = pool.run([("trial", (config.candidate, scene, False)) for scene in scenes], kill)
        assert pool.deaths == len(killed)
    assert {trial.scene: trial.success for trial in trials} == result.output["scores"]["candidate"]["by_scene"]


def test_actors_that_keep_dying_are_an_error_of_one_line(measured: tuple[Store, EvaluateConfig, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_jobs.evaluation import actors

    _, config, _ = measured
    monkeypatch.setattr(actors, "MAX_DEATHS", 1)
    with pytest.raises(StoreError, match="evaluation workers died 2 times") as error, actors.Pool(1, config.store, config.data, SETTINGS) as pool:

        def kill(count: int) -> None:
            os.kill(pid_of(pool.workers[0]), signal.SIGKILL)

        pool.run([("trial", (config.candidate, scene_of(seed), False)) for seed in range(4)], kill)
    assert "\n" not in str(error.value)


def test_each_level_is_a_condition_with_scenes_of_its_own(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, config, first = measured
    settings = SETTINGS.model_copy(update={"levels": ("none", "strong"), "rollouts": 4, "failures": 1})
    result = run(config.model_copy(update={"settings": settings, "champion": None}), execution(store, "levels"))[DAY]
    told = result.output["scores"]
    seeds = [str(1_000_000 + place) for place in range(4)]
    assert told["groups"] == {"condition": {"none": seeds, "strong": [f"strong/{seed}" for seed in seeds]}}
    assert {scene: told["candidate"]["by_scene"][scene] for scene in seeds} == {
        scene: first.output["scores"]["candidate"]["by_scene"][scene] for scene in seeds
    }, "the level as recorded is what it was"
    assert "strong" in result.shown["by_group"].value
    assert told["manifest"] != first.output["scores"]["manifest"]


def test_logged_trials_of_real_robots_are_paired_like_rollouts(measured: tuple[Store, EvaluateConfig, Any], tmp_path: Path) -> None:
    store, config, _ = measured
    candidate, champion = (model.rsplit("/", 1)[1] for model in (config.candidate, str(config.champion)))
    rows = ["policy,trial,success,duration_s,task,condition"]
    rows += [f"{candidate},t{place},{'false' if place == 3 else 'true'},{3 + place}.5,stack,{'night' if place % 2 else 'day'}" for place in range(6)]
    rows += [f"{champion},t{place},{'true' if place < 2 else 'false'},9,stack,{'night' if place % 2 else 'day'}" for place in range(5)]
    (tmp_path / "monday.csv").write_text("\n".join(rows) + "\n")
    settings = EvaluateSettings(evaluator="logged_trials", trials=StoreConfig.local(tmp_path), actors=1)
    logged = config.model_copy(update={"settings": settings})
    told = run(logged, execution(store, "logged"))[DAY].output["scores"]
    assert told["candidate"]["by_scene"] == {f"t{place}": place != 3 for place in range(6)}
    assert told["champion"]["by_scene"] == {f"t{place}": place < 2 for place in range(5)}
    assert set(told["groups"]) == {"condition"} and told["failures"] is None
    (tmp_path / "tuesday.json").write_text(
        json.dumps([{"policy": champion, "trial": "t5", "success": True, "duration_s": 2, "task": "stack", "condition": "night"}])
    )
    again = run(logged, execution(store, "logged-again"))[DAY].output["scores"]
    assert again["champion"]["by_scene"]["t5"] and again["manifest"] != told["manifest"], "a log that grew is read again"


def test_a_champion_of_another_version_keeps_its_rollouts_and_is_asked_nothing_new(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, config, _ = measured
    old = "models/old"
    store.put(f"{old}/config.json", b'{"policy": "keypoints", "of": "last year"}')
    told = run(config.model_copy(update={"champion": old}), execution(store, "old"))[DAY]
    assert told.counts["rollouts"] == 0 and told.counts["reused"] == 8
    assert "models/old was made by another version of this code" in told.output["scores"]["champion"]["unreadable"]
    assert told.output["scores"]["champion"]["rollouts"] == 0 and told.output["scores"]["offline"]["champion"] is None
    manifest = Manifest.model_validate_json(store.get(told.output["scores"]["manifest"]))
    won = {scene.id: TrialScore(success=True, seconds=1.0) for scene in manifest.scenes}
    keep(store, Rollouts(model=old, manifest=manifest.key, trials=won), manifest)
    again = run(config.model_copy(update={"champion": old}), execution(store, "old-again"))[DAY]
    assert again.output["scores"]["champion"]["successes"] == 8 and again.counts["reused"] == 16


def test_without_an_evaluator_only_the_offline_error_is_told(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, config, first = measured
    offline = config.model_copy(update={"settings": EvaluateSettings(evaluator=None, actors=1)})
    result = run(offline, execution(store, "offline"))[DAY].output["scores"]
    assert result["candidate"]["rollouts"] == 0
    assert result["offline"] == first.output["scores"]["offline"]


def test_a_model_that_is_not_there(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, config, _ = measured
    with pytest.raises(NotFound):
        run(config.model_copy(update={"candidate": "models/none"}), execution(store, "none"))


@pytest.mark.parametrize("name", ["simulated", "no.such:Thing", "json:dumps"])
def test_unknown_evaluators_are_told_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        find_evaluator(name)
    assert "\n" not in str(error.value)
