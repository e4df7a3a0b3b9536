"""The study against a real Ray: arms of the right episodes and training seeds, and what cannot be read counted and left out."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image

from fleet.arm import Arm
from fleet.expert import demonstrate
from ray_jobs.driver import Execution
from ray_jobs.effect.arms import extract, pooled, run_arm
from ray_jobs.effect.job import drawn, run
from ray_jobs.effect.present import bars, table
from ray_jobs.packing.view import episodes_of
from ray_jobs.seam.configs import EffectConfig, EvaluateSettings, TrainSettings
from ray_jobs.seam.layout import episode_prefix
from ray_jobs.seam.proportions import wilson
from ray_jobs.seam.store import Store
from ray_jobs.training.features import KEYPOINTS
from ray_jobs.training.ingest import Part, read_parts
from ray_jobs.training.selection import is_held_out
from tests.training.recorded import DAY, FIRST_SEED, add_episode, demonstrations, pack_rows, tables

TRAINING = TrainSettings(steps=40, batch=32, holdout=4, seed=7)
EVALUATION = EvaluateSettings(rollouts=2)


def execution(store: Store) -> Execution:
    return Execution(store, "attempts/base/a1/one", report=lambda message: None)


def one_seed(successes: int, rollouts: int = 50, frames: int = 100) -> dict[str, Any]:
    return {"successes": successes, "rollouts": rollouts, "rate": successes / rollouts, "episodes": 5, "frames": frames, "steps": 40}


def test_each_arm_is_trained_with_each_seed_on_its_own_episodes(store: Store, tmp_path: Path, local_ray: None) -> None:
    rows = demonstrations(store, tmp_path, 8)
    broken = next(row["episode_id"] for row in rows if not is_held_out(row["episode_id"], 4))
    clip = f"{episode_prefix(broken)}/front.mp4"
    store.put(clip, store.get(clip)[:200])
    rejected = tuple(row["episode_id"] for row in rows[:3])
    told = tables(store, rows, rejected=rejected)
    config = EffectConfig(store=store.config, days=(DAY,), training=TRAINING, evaluation=EVALUATION, seeds=2, **told)
    result = run(config, execution(store))[DAY]
    assert result.counts["unreadable"] == 1
    everything = sorted(row["episode_id"] for row in rows if not is_held_out(row["episode_id"], 4) and row["episode_id"] != broken)
    kept = [episode for episode in everything if episode not in rejected]
    drops = drawn(config, everything, kept)["random_drop"]
    arms = result.output["arms"]
    assert list(arms) == ["all", "random_drop", "curated"]
    assert [arm["episodes"] for arm in arms.values()] == [len(everything), len(kept), len(kept)]
    for arm in arms.values():
        assert (arm["steps"], arm["rollouts"], list(arm["training_seeds"])) == (40, 4, ["7", "8"])
        assert all(list(seed["by_scene"]) == ["1000000", "1000001"] for seed in arm["training_seeds"].values()), "all face the same scenes"

    # each policy is the one that its own episodes and seed give, by its weights
    read = {episode: found for episode, found in extract(store.config, everything, "keypoints").items() if not isinstance(found, str)}
    samples, shape = {episode: found for episode, (_, found) in read.items()}, read[kept[0]][0]
    again = ray.remote(run_arm)
    for arm, seed, episodes in [("all", 7, everything), ("random_drop", 7, drops[7]), ("random_drop", 8, drops[8]), ("curated", 8, kept)]:
        expected = ray.get(again.remote(samples, episodes, shape, TRAINING.model_copy(update={"seed": seed}), EVALUATION))
        assert arms[arm]["training_seeds"][str(seed)]["model"] == expected["model"], (arm, seed)
    assert len({seed["model"] for arm in arms.values() for seed in arm["training_seeds"].values()}) == 6, "no two policies are the same"
    assert "curated" in result.shown["arms"].value and "data:image/png" in result.shown["success"].value


def test_an_episode_gives_the_same_samples_read_here_and_read_from_a_packed_day(store: Store, tmp_path: Path) -> None:
    """So the study's curated arm learns from what the deployed policy learns from."""
    demo = demonstrate(Arm(), FIRST_SEED)
    row = add_episode(store, tmp_path, 0, demo.states, demo.actions, demo.frames)
    (packed,) = episodes_of(store, pack_rows(store, [row]))
    one = read_parts(store, [Part.whole(packed)], KEYPOINTS, ("front",))
    (found,) = extract(store.config, [row["episode_id"]], "keypoints").values()
    assert not isinstance(found, str)
    for name, values in one.columns().items():
        assert np.array_equal(values, found[1].columns()[name])


def test_a_random_drop_is_drawn_anew_for_each_training_seed(store: Store) -> None:
    ids = [f"{number:032x}" for number in range(50)]
    config = EffectConfig(store=store.config, days=(DAY,), episodes={}, verdicts={}, training=TRAINING)
    arms = drawn(config, ids, ids[:20])
    assert list(arms["all"]) == list(arms["random_drop"]) == list(arms["curated"]) == [7, 8, 9], "three seeds unless told otherwise"
    drops = list(arms["random_drop"].values())
    assert drops[0] != drops[1] != drops[2] != drops[0]
    assert all(len(set(drop)) == 20 for drop in drops)
    assert drawn(config, ids, ids[:20])["random_drop"] == arms["random_drop"]
    assert list(arms["curated"].values()) == [ids[:20]] * 3
    assert list(drawn(config, ids, [])) == ["all"], "where nothing was kept there is nothing to compare with"


def test_an_arm_is_the_mean_of_its_seeds_with_the_interval_of_all_rollouts() -> None:
    arm = pooled({0: one_seed(10, frames=90), 1: one_seed(20, frames=100), 2: one_seed(15, frames=101)})
    assert isinstance(arm, dict)
    assert arm["rate"] == pytest.approx(np.mean([0.2, 0.4, 0.3]))
    assert (arm["low"], arm["high"]) == wilson(45, 150)
    assert (arm["successes"], arm["rollouts"], arm["frames"]) == (45, 150, 97)
    assert [seed["rate"] for seed in arm["training_seeds"].values()] == [0.2, 0.4, 0.3]


def test_an_arm_that_fails_with_one_seed_has_no_mean_of_the_others() -> None:
    told = pooled({0: one_seed(10), 1: "the training loss became nan at step 3"})
    assert told == "with training seed 1: the training loss became nan at step 3"


def test_damaged_data_that_cannot_be_trained_on_is_told_and_not_a_failure(store: Store, tmp_path: Path, local_ray: None) -> None:
    training = TRAINING.model_copy(update={"learning_rate": 1e30})
    told = tables(store, demonstrations(store, tmp_path, 3))
    config = EffectConfig(store=store.config, days=(DAY,), training=training, evaluation=EVALUATION, seeds=1, **told)
    result = run(config, execution(store))[DAY]
    assert (result.status, result.output["arms"], sorted(result.output["failed"])) == ("ok", {}, ["all", "curated", "random_drop"])
    assert "with training seed 7: the training loss became" in result.output["failed"]["all"]
    assert "could not be trained with training seed 7" in result.shown["arms"].value


def test_what_is_shown_has_each_seed() -> None:
    arms = {arm: pooled({0: one_seed(successes), 1: one_seed(successes + 4)}) for arm, successes in [("all", 10), ("random_drop", 12), ("curated", 44)]}
    text = table(arms, {})
    assert "| curated | 5 | 100 | 92% of 100 | 85% to 96% | 88%, 96% |" in text
    pictures = []
    for shown in (arms, {arm: {**told, "training_seeds": {}} for arm, told in arms.items()}):
        data = bars(shown).split("base64,")[1].rstrip(")")
        pictures.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L")))
    assert (pictures[0] < 60).sum() > (pictures[1] < 60).sum(), "the seeds' points are dark dots that would be missing"


@pytest.mark.parametrize("actions", [True, False])
def test_nothing_to_learn_from_is_a_success_that_says_so(store: Store, tmp_path: Path, local_ray: None, actions: bool) -> None:
    rows = [add_episode(store, tmp_path, 1, np.ones((20, 3)), None, None)] if actions else []
    config = EffectConfig(store=store.config, days=(DAY,), training=TRAINING, **tables(store, rows))
    result = run(config, execution(store))[DAY]
    assert (result.status, result.output["arms"]) == ("ok", {})
    assert result.reason == ("no actions to learn from" if actions else "no data")
