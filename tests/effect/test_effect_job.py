"""The study against a real Ray: arms of the right episodes, and what cannot be read counted and left out."""

from pathlib import Path

import numpy as np
import pytest

from fleet.arm import Arm
from fleet.expert import demonstrate
from ray_jobs.driver import Execution
from ray_jobs.effect.arms import extract
from ray_jobs.effect.job import random_drop, run
from ray_jobs.packing.view import episodes_of
from ray_jobs.seam.configs import EffectConfig, EvaluateSettings, TrainSettings
from ray_jobs.seam.layout import episode_prefix
from ray_jobs.seam.store import Store
from ray_jobs.training.features import KEYPOINTS
from ray_jobs.training.ingest import is_held_out, read_samples
from tests.training.recorded import DAY, FIRST_SEED, add_episode, demonstrations, pack_rows, tables

TRAINING = TrainSettings(steps=40, batch=32, holdout=4)


def execution(store: Store) -> Execution:
    return Execution(store, "attempts/base/a1/one", report=lambda message: None)


def test_arms_of_equal_steps_on_all_and_on_as_many_as_were_kept(store: Store, tmp_path: Path, local_ray: None) -> None:
    rows = demonstrations(store, tmp_path, 8)
    broken = next(row["episode_id"] for row in rows if not is_held_out(row["episode_id"], 4))
    clip = f"{episode_prefix(broken)}/front.mp4"
    store.put(clip, store.get(clip)[:200])
    rejected = tuple(row["episode_id"] for row in rows[:3])
    config = EffectConfig(store=store.config, days=(DAY,), training=TRAINING, evaluation=EvaluateSettings(rollouts=2), **tables(store, rows, rejected=rejected))
    result = run(config, execution(store))[DAY]
    learned = [row["episode_id"] for row in rows if not is_held_out(row["episode_id"], 4)]
    kept = [episode for episode in learned if episode not in rejected and episode != broken]
    assert result.counts["unreadable"] == 1
    arms = result.output["arms"]
    assert (arms["all"]["episodes"], arms["random_drop"]["episodes"]) == (len(learned) - 1, len(kept))
    assert arms["all"]["steps"] == arms["random_drop"]["steps"] == 40
    assert list(arms["all"]["by_seed"]) == list(arms["random_drop"]["by_seed"]) == ["1000000", "1000001"]
    assert "everything uploaded" in result.shown["arms"].value and "data:image/png" in result.shown["success"].value


def test_an_episode_gives_the_same_samples_read_here_and_read_from_a_packed_day(store: Store, tmp_path: Path) -> None:
    """All arms are treated alike, and like the curated one, whose samples come through the packer."""
    demo = demonstrate(Arm(), FIRST_SEED)
    row = add_episode(store, tmp_path, 0, demo.states, demo.actions, demo.frames)
    (packed,) = episodes_of(store, pack_rows(store, [row]))
    one = read_samples(store, packed, KEYPOINTS, "front")
    (found,) = extract(store.config, [row["episode_id"]], "keypoints").values()
    assert not isinstance(found, str)
    for name, values in one.columns().items():
        assert np.array_equal(values, found[1].columns()[name])


def test_a_random_drop_is_drawn_by_its_seed() -> None:
    ids = [f"{number:032x}" for number in range(50)]
    assert random_drop(ids, 20, 1) == random_drop(ids, 20, 1) != random_drop(ids, 20, 2)
    assert len(set(random_drop(ids, 20, 1))) == 20


@pytest.mark.parametrize("actions", [True, False])
def test_nothing_to_learn_from_is_a_success_that_says_so(store: Store, tmp_path: Path, local_ray: None, actions: bool) -> None:
    rows = [add_episode(store, tmp_path, 1, np.ones((20, 3)), None, None)] if actions else []
    config = EffectConfig(store=store.config, days=(DAY,), training=TRAINING, **tables(store, rows))
    result = run(config, execution(store))[DAY]
    assert (result.status, result.output["arms"]) == ("ok", {})
    assert result.reason == ("no actions to learn from" if actions else "no data")
