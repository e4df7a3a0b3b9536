"""What is tried, on which episodes, and what wins: pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ray_jobs.seam.configs import TrainSettings, TuningSettings
from ray_jobs.tuning.search import Candidate, Trial, best, drawn, measured_at, rungs, some
from tests.training.test_selection import episode

AS_SET = TrainSettings(learning_rate=2e-3, batch=128)


@given(st.integers(0, 2**31), st.integers(2, 30))
def test_what_is_drawn_follows_from_the_seed_and_lies_in_the_space(seed: int, trials: int) -> None:
    settings = TuningSettings(seed=seed, trials=trials, policy=("keypoints", "a.b:C"))
    found = drawn(settings, AS_SET)
    assert found == drawn(settings, AS_SET) and len(found) == len({each.model_dump_json() for each in found}) == trials
    assert found[0] == Candidate(learning_rate=2e-3, batch=128, policy="keypoints"), "the settings as they stand are always tried"
    assert all(5e-4 <= each.learning_rate <= 1e-2 and each.batch in settings.batch and each.policy in settings.policy for each in found[1:])
    assert drawn(settings.model_copy(update={"trials": trials + 1}), AS_SET)[:trials] == found, "one more trial changes none of the others"


def test_a_space_of_one_point_gives_one_more_trial() -> None:
    assert len(drawn(TuningSettings(learning_rate=(1e-3, 1e-3), batch=(64,)), AS_SET)) == 2


def test_rungs_and_moments() -> None:
    settings = TuningSettings(steps=270, rungs=2, reduction=3)
    assert rungs(settings) == [30, 90]
    assert measured_at(settings) == [30, 60, 90, 120, 150, 180, 210, 240, 270]
    assert measured_at(TuningSettings(steps=4, rungs=1, reduction=2)) == [1, 2, 3, 4]


@given(st.integers(1, 40), st.floats(0.01, 1))
def test_some_are_chosen_by_their_ids_with_their_copies(count: int, share: float) -> None:
    fleet = [each for number in range(count) for each in (episode(1000 * number), episode(1000 * number + 1, source=1000 * number))]
    chosen = some(fleet, share)
    assert chosen == tuple(each for each in fleet if each in chosen) and len(chosen) % 2 == 0
    assert share * count <= len(chosen) / 2 < share * count + 1 + 1e-9
    more = some(fleet, min(1.0, share + 0.2))
    assert set(map(id, chosen)) <= set(map(id, more)), "a larger share adds to a smaller one"


def test_the_best_was_trained_to_the_end() -> None:
    def trial(rate: float, *points: tuple[int, float], failed: str | None = None) -> Trial:
        return Trial(candidate=Candidate(learning_rate=rate, batch=1, policy="p"), points=points, failed=failed)

    tried = [trial(1, (3, 0.1)), trial(2, (3, 0.5), (9, 0.4)), trial(3, (3, 0.6), (9, 0.3)), trial(4, (9, float("nan"))), trial(5, failed="the loss")]
    found = best(tried, 9)
    assert found and found.candidate.learning_rate == 3
    assert best(tried[:1], 9) is None and best([], 9) is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 8, "rungs": 2, "reduction": 3}, "8 steps have no 2 rungs"),
        ({"learning_rate": (1e-2, 1e-3)}, "the lower one first"),
        ({"batch": ()}, "at least one"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TuningSettings.model_validate(wrong)
