"""Rollouts by real actors: the same result whoever does them, kept once measured, and offline where nothing can be rolled out."""

from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from fleet.arm import Arm
from fleet.expert import demonstrate
from ray_jobs.driver import Execution
from ray_jobs.evaluation.evaluator import find_evaluator
from ray_jobs.evaluation.job import run
from ray_jobs.seam.configs import DayDataset, EvaluateConfig, EvaluateSettings, TrainSettings
from ray_jobs.seam.errors import NotFound, UserError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.features import KEYPOINTS
from ray_jobs.training.loop import fresh, resident_batches, train
from ray_jobs.training.model import Lineage, write_model
from ray_jobs.training.policy import build_policy
from ray_jobs.training.samples import episode_samples, join, statistics
from ray_jobs.training.spec import PolicyConfig
from tests.training.recorded import DAY, FIRST_SEED, demo_day

SETTINGS = EvaluateSettings(rollouts=8, actors=2)


def execution(store: Store, name: str) -> Execution:
    return Execution(store, f"attempts/base/a1/{name}", report=lambda message: None)


def model(store: Store, steps: int) -> str:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arm = Arm()
    demos = [demonstrate(arm, FIRST_SEED + number) for number in range(24)]
    parts = [episode_samples(4, KEYPOINTS.features(demo.states, demo.frames), demo.actions) for demo in demos]
    config = PolicyConfig(policy="keypoints", state_width=5, action_width=4, camera="front", feature_width=parts[0].features.shape[1])
    policy = build_policy(config, statistics(parts))
    if steps:
        train(policy, resident_batches(join(parts), 128, 0, 0, 0), TrainSettings(steps=steps), fresh(policy))
    lineage = Lineage(model="", datasets=(), settings={}, code=None, versions={}, metrics={}, steps=steps, resumed_from_step=0, seconds=0.0)
    return write_model(store, policy, lineage)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> tuple[Store, EvaluateConfig, Any]:
    folder = tmp_path_factory.mktemp("evaluation")
    store = Store(StoreConfig.local(folder / "store"))
    dataset: DayDataset = demo_day(store, folder, 6)
    candidate, champion = model(store, 600), model(store, 0)
    config = EvaluateConfig(
        store=store.config, days=(DAY,), data=store.config, view=(dataset,), candidate=candidate, champion=champion, holdout=2, settings=SETTINGS
    )
    return store, config, run(config, execution(store, "first"))[DAY]


def test_both_face_the_same_seeds(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    _, _, result = measured
    candidate, champion = result.output["scores"]["candidate"], result.output["scores"]["champion"]
    assert list(candidate["by_seed"]) == list(champion["by_seed"]) == [str(1_000_000 + place) for place in range(8)]
    assert candidate["successes"] == sum(candidate["by_seed"].values()) > champion["successes"] == 0
    assert candidate["low"] < candidate["rate"] <= candidate["high"]
    assert result.counts["rollouts"] == 16 and result.counts["held_out"] > 0
    offline = result.output["scores"]["offline"]
    assert offline["candidate"]["error"] < 1 < offline["champion"]["error"]
    assert set(offline["candidate"]["per_dimension"]) == {"dx", "dy", "dz", "grip"}
    assert "data:image/jpeg;base64" in result.shown["rollouts"].value


def test_what_was_measured_once_is_not_rolled_out_again(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    store, config, first = measured
    again = run(config, execution(store, "second"))[DAY]
    assert (again.counts["rollouts"], again.counts["reused"]) == (0, 16)
    assert again.output == first.output and again.output_digest == first.output_digest


def test_an_actor_that_dies_is_replaced_and_the_result_is_the_same(measured: tuple[Store, EvaluateConfig, Any]) -> None:
    from ray_jobs.evaluation.actors import Pool

    _, config, result = measured
    with Pool(2, config.store, config.data, "simulated_arm") as pool:

        def kill(count: int) -> None:
            if count == 2:
                ray.kill(pool.workers[0])

        trials = pool.run([("trial", (config.candidate, 1_000_000 + place, False)) for place in range(8)], kill)
        assert pool.deaths == 1
    assert {str(trial.seed): trial.success for trial in trials} == result.output["scores"]["candidate"]["by_seed"]


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
