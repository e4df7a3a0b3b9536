"""Manifests and what is kept of failures: pure parts of the job."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.evaluation.evaluator import FILM_FRAMES, Evaluator, Recording, Scene, Trial, build_evaluator
from ray_jobs.evaluation.failures import Keeper
from ray_jobs.evaluation.scores import Manifest, Rollouts, TrialScore, keep, kept, summary
from ray_jobs.seam.configs import EvaluateSettings
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.store import Store


class Twice(Evaluator):
    name, version = "twice", "1"

    def scenes(self) -> tuple[Scene, ...]:
        return (Scene(id="a"), Scene(id="a", seed=2))

    def trial(self, policy: object, scene: Scene, record: bool) -> Trial | None:
        return None


def manifest(**changes: object) -> Manifest:
    settings = EvaluateSettings.model_validate({"rollouts": 3, **changes})
    evaluator = build_evaluator(settings)
    assert evaluator is not None
    return Manifest.of(evaluator, "simulated_arm")


def test_the_same_scenes_have_the_same_name_and_other_scenes_another() -> None:
    assert manifest().key == manifest(actors=7, failures=0).key, "how they are carried out is no scene"
    others = [manifest(), manifest(rollouts=4), manifest(first_seed=5), manifest(levels=("none", "mild")), manifest(levels=("mild",))]
    assert len({each.key for each in others}) == len(others)
    assert manifest(levels=("mild", "mild")).key == manifest(levels=("mild",)).key


def test_scenes_that_cannot_be_paired_or_drawn_are_refused() -> None:
    with pytest.raises(UserError, match="names the scene 'a' twice"):
        Manifest.of(Twice(EvaluateSettings()), "mine:Twice")
    with pytest.raises(UserError, match=r"evaluation\.levels: the simulated arm has no level 'odd', there are none, mild, strong"):
        manifest(levels=("none", "odd"))


def test_a_result_is_kept_by_model_and_manifest_and_what_cannot_be_read_is_none(store: Store) -> None:
    made = Rollouts(model="models/a", manifest=manifest().key, trials={"1": TrialScore(success=True, seconds=2.0)})
    keep(store, made, manifest())
    assert kept(store, "models/a", manifest()) == made
    assert kept(store, "models/b", manifest()) is None and kept(store, "models/a", manifest(rollouts=9)) is None
    store.put(f"evaluations/a/{manifest().hash}.json", b"{}")
    assert kept(store, "models/a", manifest()) is None


def test_the_summary_of_nothing_has_no_rate() -> None:
    told = summary("m", {})
    assert (told["rollouts"], told["rate"], told["low"], told["seconds_to_success"]) == (0, None, None, None)


def recorded(number: int, success: bool) -> Trial:
    return Trial(str(number), success, 1.0, Recording(np.full((20, 4, 4, 3), number, np.uint8), np.zeros((20, 5)), np.zeros((20, 4)), fps=10))


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=20), st.integers(0, 5), st.randoms())
def test_the_first_failures_are_kept_whole_whatever_the_order_in_which_they_come(successes: list[bool], most: int, order: object) -> None:
    numbers = list(range(len(successes)))
    order.shuffle(numbers)  # type: ignore[attr-defined]
    keeper = Keeper(most)
    for number in numbers:
        taken = keeper.take(number, recorded(number, successes[number]))
        assert taken is not None and taken.recording is not None
        if not successes[number]:
            assert len(taken.recording.frames) == FILM_FRAMES, "what is passed on is small"
    assert sorted(keeper.kept) == [number for number, success in enumerate(successes) if not success][:most]
    assert all(trial.recording is not None and len(trial.recording.frames) == 20 for trial in keeper.kept.values())
