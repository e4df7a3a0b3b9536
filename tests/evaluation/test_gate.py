from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.evaluation.gate import GateSettings, gate
from ray_jobs.seam.proportions import wilson

SETTINGS = GateSettings()


def told(won: list[bool], model: str = "models/a") -> dict[str, Any]:
    low, high = wilson(sum(won), len(won))
    by_scene = {str(1000 + place): flag for place, flag in enumerate(won)}
    return {"model": model, "rollouts": len(won), "successes": sum(won), "rate": sum(won) / len(won), "low": low, "high": high, "by_scene": by_scene}


def scores(candidate: list[bool], champion: list[bool] | None = None) -> dict[str, Any]:
    return {"candidate": told(candidate), "champion": told(champion, "models/b") if champion is not None else None, "offline": None}


def some(won: int, of: int = 50) -> list[bool]:
    return [place < won for place in range(of)]


@pytest.mark.parametrize(
    ("candidate", "champion", "promote", "word"),
    [
        (some(49), None, True, "no other champion"),
        (some(10), None, False, "below the floor"),
        (some(0), None, False, "below the floor"),
        (some(19, 19), None, False, "decide nothing"),
        (some(49), some(49), True, "as good as the champion"),
        (some(48), some(49), True, "as good as the champion"),
        (some(49), some(30), True, "better than the champion"),
        (some(30), some(49), False, "worse than the champion"),
        ([False] * 6 + [True] * 44, some(47), False, "not shown"),
        (some(10), some(2), False, "below the floor"),
    ],
)
def test_table(candidate: list[bool], champion: list[bool] | None, promote: bool, word: str) -> None:
    verdict = gate(scores(candidate, champion), SETTINGS)
    assert verdict.promote is promote
    assert word in " ".join(verdict.reasons)


def test_small_losses_cannot_add_up() -> None:
    """Shown to be worse is refused even where the whole interval lies within the margin."""
    verdict = gate(scores(some(970, 1000), some(1000, 1000)), SETTINGS)
    assert verdict.difference is not None
    assert verdict.difference[1] > -SETTINGS.margin
    assert verdict.reasons[0].startswith("worse than the champion")
    assert not verdict.promote


def test_only_common_scenes_are_compared() -> None:
    both = scores(some(50), some(50))
    both["champion"]["by_scene"] = {str(5000 + place): True for place in range(50)}
    verdict = gate(both, SETTINGS)
    assert not verdict.promote
    assert "only 0 scenes" in verdict.reasons[0]


flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=20, max_size=60)


@settings(deadline=None)
@given(flags, st.data())
def test_one_more_success_never_takes_a_promotion_away(pairs: list[tuple[bool, bool]], data: st.DataObject) -> None:
    candidate, champion = [first for first, _ in pairs], [second for _, second in pairs]
    place = data.draw(st.integers(0, len(pairs) - 1))
    improved = [flag or index == place for index, flag in enumerate(candidate)]
    before, after = gate(scores(candidate, champion), SETTINGS), gate(scores(improved, champion), SETTINGS)
    assert after.promote >= before.promote
    assert gate(scores(improved), SETTINGS).promote >= gate(scores(candidate), SETTINGS).promote


@settings(deadline=None)
@given(flags)
def test_every_verdict_has_reasons_and_an_interval_around_its_difference(pairs: list[tuple[bool, bool]]) -> None:
    verdict = gate(scores([first for first, _ in pairs], [second for _, second in pairs]), SETTINGS)
    assert verdict.reasons and all(verdict.reasons)
    if verdict.difference:
        difference, low, high = verdict.difference
        assert -1 <= low <= difference <= high <= 1


def grouped(lost: int, of: int = 30, groups: int = 2) -> dict[str, Any]:
    """The champion wins everything; the candidate loses that many scenes of the first group."""
    told = scores([place >= lost for place in range(of * groups)], [True] * (of * groups))
    names = list(told["candidate"]["by_scene"])
    return told | {"groups": {"condition": {f"c{number}": names[number * of : (number + 1) * of] for number in range(groups)}}}


@pytest.mark.parametrize(
    ("lost", "of", "groups", "refused"),
    [(4, 100, 1, False), (4, 100, 2, False), (5, 100, 1, True), (6, 100, 2, True), (6, 100, 4, True), (6, 100, 8, True)],
)
def test_a_condition_on_which_it_is_worse_refuses(lost: int, of: int, groups: int, refused: bool) -> None:
    """2^-lost against 0.05 over the number of groups."""
    verdict = gate(grouped(lost, of, groups), SETTINGS)
    assert verdict.promote is not refused, verdict.reasons


def test_a_regression_hidden_in_the_whole_is_named() -> None:
    told = grouped(7, 30, 2)
    for scene in told["groups"]["condition"]["c1"]:
        told["champion"]["by_scene"][scene] = False  # what it loses on one condition it gains on the other
    verdict = gate(told, SETTINGS)
    assert not verdict.promote
    assert verdict.reasons[0].startswith("worse than the champion on the condition 'c0': it wins 0 of 30 scenes")
    told["groups"] = {}
    assert gate(told, SETTINGS).promote, "the whole alone would have let it pass"


def test_a_prerequisite_refuses_whatever_the_rollouts_say_and_all_refusals_are_told() -> None:
    verdict = gate(scores(some(49), some(49)), SETTINGS, ("2026-01-05 has no verdicts",))
    assert (verdict.promote, verdict.reasons[0]) == (False, "2026-01-05 has no verdicts")
    verdict = gate(scores(some(10), some(49)), SETTINGS, ("2026-01-05 has no verdicts",))
    assert [reason.split(":")[0] for reason in verdict.reasons[:3]] == ["2026-01-05 has no verdicts", "below the floor", "worse than the champion"]
    assert not gate(offline(0.4, None), SETTINGS, ("no",)).promote


def test_a_refusal_says_how_many_rollouts_would_have_been_enough() -> None:
    verdict = gate(scores([False] * 2 + [True] * 20 + [False] * 2, [True] * 22 + [False, True]), SETTINGS)
    assert "not shown to be as good" in verdict.reasons[0]
    assert "with 24 rollouts a policy as good as the champion passes in" in verdict.reasons[1] and "would give 80%" in verdict.reasons[1]


def offline(error: float | None, champion: float | None) -> dict[str, Any]:
    def of(value: float | None) -> dict[str, Any]:
        return {"model": "m", "episodes": 3, "frames": 90, "error": value, "by_day": {"2026-01-05": {}}}

    nothing = {"model": "m", "rollouts": 0, "successes": 0, "rate": None, "low": None, "high": None, "by_scene": {}}
    return {"candidate": nothing, "champion": None, "offline": {"candidate": of(error), "champion": None if champion is None else of(champion)}}


@pytest.mark.parametrize(
    ("error", "champion", "promote"),
    [
        (0.4, None, True),
        (1.0, None, False),
        (0.4, 0.5, True),
        (0.4, 0.39, True),
        (0.4, 0.3, False),
        (float("nan"), None, False),
        (float("nan"), 0.5, False),
        (None, 0.5, False),
        (0.4, None, True),
    ],
)
def test_offline_only_says_so(error: float, champion: float | None, promote: bool) -> None:
    verdict = gate(offline(error, champion), SETTINGS)
    assert verdict.promote is promote
    assert verdict.basis == "offline"
    assert "decided offline, without rollouts" in verdict.reasons[0]


def test_a_champion_with_which_nothing_can_be_compared_is_not_replaced_by_a_run() -> None:
    """Of another version of the code, or of another robot: a person may promote."""
    unasked = offline(0.4, None)["candidate"]  # neither was rolled out
    reigning = {**unasked, "unreadable": "models/b was made by another version of this code"}
    for measured in (scores(some(45)), offline(0.4, None)):
        verdict = gate(measured | {"champion": reigning}, SETTINGS)
        assert not verdict.promote and "made by another version of this code; `promote` moves the champion by hand" in verdict.reasons[0]
    other = gate(offline(0.4, None) | {"champion": unasked}, SETTINGS)
    assert not other.promote and "the champion could be asked about none of them" in other.reasons[0]


def test_a_log_without_a_trial_of_it_is_not_decided_offline() -> None:
    verdict = gate(offline(0.1, None) | {"manifest": "evaluations/manifests/x.json"}, SETTINGS)
    assert (verdict.promote, verdict.basis) == (False, "nothing")
    assert "the evaluator has no trial of this policy yet" in verdict.reasons[0]


def test_nothing_measured_is_refused() -> None:
    nothing = offline(0.1, None) | {"offline": None}
    assert not gate(nothing, SETTINGS).promote
