"""The step against a real Ray: a model with its lineage, the same after a lost driver, and one line where it cannot be."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from ray_jobs.driver import Execution
from ray_jobs.packing.view import episodes_of
from ray_jobs.seam.configs import Condition, DayDataset, Part, SelectionSettings, TrainConfig, TrainSettings
from ray_jobs.seam.errors import DataError, UserError
from ray_jobs.seam.results import DayResult
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.job import run
from ray_jobs.training.model import read_model
from ray_jobs.training.plan import make_plan
from ray_jobs.training.selection import is_held_out, select
from tests.training.recorded import DAY, add_episode, demo_day, pack_rows

SETTINGS = TrainSettings(steps=60, batch=32, workers=2, checkpoint_every=20, holdout=4)
ALONE = SETTINGS.model_copy(update={"workers": 0})


def execution(store: Store, name: str, base: str = "base") -> Execution:
    return Execution(store, f"attempts/{base}/a1/{name}", report=lambda message: None)


def config(store: Store, *view: DayDataset, settings: TrainSettings = SETTINGS) -> TrainConfig:
    return TrainConfig(store=store.config, days=(DAY,), data=store.config, view=view, settings=settings)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, DayDataset]:
    folder = tmp_path_factory.mktemp("demonstrations")
    store = Store(StoreConfig.local(folder / "store"))
    return store, demo_day(store, folder, 12)


def left_behind(store: Store, base: str, source: str) -> None:
    name = "checkpoints/000000040.safetensors"
    store.put(f"attempts/{base}/a1/killed/{name}", store.get(f"attempts/{source}/a1/first/{name}"))


@pytest.fixture(scope="module")
def alone(day: tuple[Store, DayDataset], local_ray: None) -> DayResult:
    """Trained in this process."""
    store, dataset = day
    return run(config(store, dataset, settings=ALONE), execution(store, "first", base="alone"))[DAY]


@pytest.fixture(scope="module")
def trained(day: tuple[Store, DayDataset], local_ray: None) -> DayResult:
    """Trained by two workers on decoded episodes that stay in memory."""
    store, dataset = day
    return run(config(store, dataset), execution(store, "first"))[DAY]


def test_a_model_with_its_lineage(day: tuple[Store, DayDataset], trained: DayResult) -> None:
    store, dataset = day
    lineage: dict[str, Any] = json.loads(store.get(trained.output["lineage"]))
    ids = {episode.episode_id for episode in episodes_of(store, dataset)}
    (of_day,) = lineage["datasets"]
    held_out = {episode for episode in ids if is_held_out(episode, 4)}
    assert held_out and set(of_day["held_out"]) == held_out
    assert set(of_day["trained_on"]) == ids - held_out
    assert of_day["manifest_sha256"] == dataset.manifest_sha256
    assert trained.counts["episodes"] == len(ids - held_out) and trained.counts["held_out"] == len(held_out)
    assert trained.counts["frames"] == sum(episode.length for episode in episodes_of(store, dataset) if episode.episode_id not in held_out)
    assert trained.shown["resumed_from_step"].value == 0
    assert trained.counts["steps"] == 60 == lineage["steps"]
    assert lineage["metrics"]["loss"] < lineage["metrics"]["first_loss"]
    assert trained.shown["training_curve"].value.startswith("![training curve](data:image/png;base64,")
    assert len(trained.shown["training_curve"].value) < 200_000


def test_no_process_is_started_that_training_does_not_need(trained: DayResult) -> None:
    started = {actor["ActorClassName"] for actor in ray._private.state.actors().values()}
    assert {"TrainController", "RayTrainWorker"} <= started
    assert not started & {"DatasetManager", "PlacementGroupCleaner", "PreemptionWatcher", "SplitCoordinator", "TrainStateActor"}


def test_streamed_and_resumed_by_two_workers_is_the_same_model(trained: DayResult, day: tuple[Store, DayDataset]) -> None:
    """Nothing fits in memory: Ray Data decodes ahead, from the step on where a driver was lost."""
    store, dataset = day
    left_behind(store, "streamed", "base")
    streaming = config(store, dataset, settings=SETTINGS.model_copy(update={"resident_mb": 0}))
    result = run(streaming, execution(store, "second", base="streamed"))[DAY]
    assert result.shown["resumed_from_step"].value == 40
    assert result.output["model"] == trained.output["model"]


def test_a_driver_lost_after_step_40_is_continued_to_the_same_model(alone: DayResult, day: tuple[Store, DayDataset], local_ray: None) -> None:
    """What a killed driver leaves behind: its checkpoints, and no closed.json."""
    store, dataset = day
    left_behind(store, "again", "alone")
    result = run(config(store, dataset, settings=ALONE), execution(store, "second", base="again"))[DAY]
    assert result.shown["resumed_from_step"].value == 40
    assert result.output["model"] == alone.output["model"]


def test_training_goes_on_from_a_model_with_its_statistics(alone: DayResult, day: tuple[Store, DayDataset], local_ray: None) -> None:
    store, dataset = day
    before = read_model(store, alone.output["model"])
    longest = max(episode.length for episode in episodes_of(store, dataset))
    few = ALONE.model_copy(update={"steps": 20, "learning_rate": 1e-6, "select": (Condition(field="seconds", at_most=(longest - 1) / 10),)})
    told = config(store, dataset, settings=few).model_copy(update={"start": alone.output["model"]})
    result = run(told, execution(store, "only", base="tuned"))[DAY]
    after = read_model(store, result.output["model"])
    assert after.statistics == before.statistics, "though it learned from other episodes"
    moved = [np.abs(after.tensors()[name] - value).max() for name, value in before.tensors().items()]
    assert 0 < max(moved) < 1e-3, "fresh weights would lie far away"
    lineage = json.loads(store.get(result.output["lineage"]))
    assert lineage["started_from"] == alone.output["model"] == result.shown["started_from"].value
    assert lineage["selection"]["trained_on"] == result.counts["episodes"] < alone.counts["episodes"]


def test_a_model_of_another_shape_is_not_gone_on_from(alone: DayResult, day: tuple[Store, DayDataset], tmp_path: Path, local_ray: None) -> None:
    store, _ = day
    draw = np.random.default_rng(0)
    other = pack_rows(store, [add_episode(store, tmp_path, 900 + number, draw.normal(size=(20, 7)), draw.normal(size=(20, 6)), None) for number in range(3)])
    told = config(store, other, settings=ALONE.model_copy(update={"holdout": 0})).model_copy(update={"start": alone.output["model"]})
    with pytest.raises(UserError, match=r"its state_width is 5, and here it is 7; .* Set training.start to fresh$") as error:
        run(told, execution(store, "only", base="other-shape"))
    assert "\n" not in str(error.value)


def test_an_episode_of_weight_three_is_seen_three_times_as_often(day: tuple[Store, DayDataset]) -> None:
    """What selection says is what the plan deals."""
    store, dataset = day
    first = min(episode.length for episode in episodes_of(store, dataset))
    short = Part(where=(Condition(field="seconds", at_most=first / 10),), weight=3)
    chosen = select(store, [dataset], SelectionSettings(holdout=0, mixture=(short,)))
    plan = make_plan([episode.length for episode in chosen.train], chosen.weights, 1, 0, 1)
    epoch = [piece for shard in islice(plan.sequence(0), 200 * len(plan.shards)) for piece in plan.shards[shard]]
    seen = Counter[int]()
    for piece in epoch:
        seen[piece.episode] += piece.moments
    rates = {number: seen[number] / episode.length for number, episode in enumerate(chosen.train)}
    often = [number for number, weight in enumerate(chosen.weights) if weight == 3]
    assert often and len(often) < len(chosen.train)
    usual = np.mean([rate for number, rate in rates.items() if number not in often])
    assert np.mean([rates[number] for number in often]) == pytest.approx(3 * usual, rel=0.05)


def test_a_selection_that_leaves_nothing_is_a_success_that_says_so(day: tuple[Store, DayDataset]) -> None:
    store, dataset = day
    nobody = SETTINGS.model_copy(update={"select": (Condition(field="robot", one_of=("arm-9",)),)})
    result = run(config(store, dataset, settings=nobody), execution(store, "only", base="nobody"))[DAY]
    assert (result.status, result.output["model"]) == ("ok", None)
    assert result.reason == ("the selection leaves nothing to learn from of 12 episodes (a condition does not hold: 12; robot one of 'arm-9' holds for 0)")
    assert "| robot one of 'arm-9' | 0 |" in result.shown["selection"].value


def test_a_loss_that_is_no_number_ends_the_job_with_one_line(day: tuple[Store, DayDataset], local_ray: None) -> None:
    store, dataset = day
    diverging = TrainSettings(steps=60, batch=32, workers=0, learning_rate=1e30)
    with pytest.raises(DataError, match="the training loss became") as error:
        run(config(store, dataset, settings=diverging), execution(store, "only", base="diverging"))
    assert "\n" not in str(error.value)


def test_a_corrupt_shard_is_named(day: tuple[Store, DayDataset], tmp_path: Path, local_ray: None) -> None:
    store, dataset = day
    broken = Store(StoreConfig.local(tmp_path / "broken"))
    for entry in store.list(dataset.prefix + "/"):
        data = store.get(entry.key)
        broken.put(entry.key, data[: len(data) // 2] if entry.key.endswith(".mp4") else data)
    with pytest.raises(DataError) as error:
        run(config(broken, dataset), execution(broken, "only"))
    assert dataset.prefix in str(error.value) and ".mp4" in str(error.value) and "\n" not in str(error.value)


def test_a_mistake_in_what_a_policy_observes_is_its_author_s_and_not_the_data_s(day: tuple[Store, DayDataset], local_ray: None) -> None:
    store, dataset = day
    mistaken = ALONE.model_copy(update={"policy": "tests.training.faulty:Unobservant"})
    with pytest.raises(UserError, match=r"^the policy '.*:Unobservant' raised KeyError: 'wrist' \(.*faulty\.py, line \d+: frames\[\"wrist\"\]\)$"):
        run(config(store, dataset, settings=mistaken), execution(store, "only", base="mistaken"))


def test_a_view_without_actions_is_a_success_that_says_so(store: Store, tmp_path: Path) -> None:
    rows = [add_episode(store, tmp_path, number, np.cumsum(np.ones((20, 3)), axis=0), None, None) for number in range(3)]
    result = run(config(store, pack_rows(store, rows)), execution(store, "only"))[DAY]
    assert (result.status, result.reason, result.output["model"]) == ("ok", "the selection leaves nothing to learn from of 3 episodes (no actions: 3)", None)
    assert result.counts["steps"] == result.counts["frames"] == result.counts["episodes"] == 0


def test_an_empty_view_is_a_success_that_says_so(store: Store) -> None:
    assert run(config(store), execution(store, "only"))[DAY].reason == "no episodes in the view"


def test_an_unknown_policy_is_told_before_anything_starts(store: Store) -> None:
    with pytest.raises(UserError, match="'keypoint'"):
        run(config(store, settings=TrainSettings(policy="keypoint")), execution(store, "only"))


def test_the_commonest_shape_is_learned_and_the_rest_counted(store: Store, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    sizes = [(7, 6), (7, 6), (7, 6), (5, 4)]
    rows = [add_episode(store, tmp_path, number, draw.normal(size=(20, d)), draw.normal(size=(20, a)), None) for number, (d, a) in enumerate(sizes)]
    chosen = select(store, [pack_rows(store, rows)], SelectionSettings(holdout=0))
    assert {len(episode.state_names) for episode in chosen.train} == {7}
    assert (len(chosen.train), chosen.told.left_out, chosen.cameras) == (3, {"another shape": 1}, ())


def test_held_out_is_about_one_in_n_and_by_id_alone() -> None:
    ids = [f"{number:032x}" for number in range(2000)]
    assert 150 < sum(is_held_out(name, 10) for name in ids) < 250
    assert not any(is_held_out(name, 0) for name in ids)
