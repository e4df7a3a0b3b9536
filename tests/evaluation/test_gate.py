from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.evaluation.gate import GateSettings, gate, power
from ray_jobs.seam.proportions import wilson

SETTINGS = GateSettings()


def told(won: list[bool], model: str = "models/a") -> dict[str, Any]:
    low, high = wilson(sum(won), len(won))
    by_seed = {str(1000 + place): flag for place, flag in enumerate(won)}
    return {"model": model, "rollouts": len(won), "successes": sum(won), "rate": sum(won) / len(won), "low": low, "high": high, "by_seed": by_seed}


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


def test_only_common_seeds_are_compared() -> None:
    both = scores(some(50), some(50))
    both["champion"]["by_seed"] = {str(5000 + place): True for place in range(50)}
    verdict = gate(both, SETTINGS)
    assert not verdict.promote
    assert "only 0 seeds" in verdict.reasons[0]


flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=20, max_size=60)


@given(flags, st.data())
def test_one_more_success_never_takes_a_promotion_away(pairs: list[tuple[bool, bool]], data: st.DataObject) -> None:
    candidate, champion = [first for first, _ in pairs], [second for _, second in pairs]
    place = data.draw(st.integers(0, len(pairs) - 1))
    improved = [flag or index == place for index, flag in enumerate(candidate)]
    before, after = gate(scores(candidate, champion), SETTINGS), gate(scores(improved, champion), SETTINGS)
    assert after.promote >= before.promote
    assert gate(scores(improved), SETTINGS).promote >= gate(scores(candidate), SETTINGS).promote


@given(flags)
def test_every_verdict_has_reasons_and_an_interval_around_its_difference(pairs: list[tuple[bool, bool]]) -> None:
    verdict = gate(scores([first for first, _ in pairs], [second for _, second in pairs]), SETTINGS)
    assert verdict.reasons and all(verdict.reasons)
    if verdict.difference:
        difference, low, high = verdict.difference
        assert -1 <= low <= difference <= high <= 1


def test_power_grows_with_rollouts_and_is_what_simulation_says() -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    rate, pairs = 0.9, 100
    passed = sum(
        gate(scores(list(draw.random(pairs) < rate), list(draw.random(pairs) < rate)), SETTINGS).promote for _ in range(400)
    )  # two policies of the same success, independent of each other
    assert abs(passed / 400 - power(rate, pairs, SETTINGS.margin)) < 0.10
    assert power(rate, 400, SETTINGS.margin) > power(rate, 100, SETTINGS.margin) > power(rate, 25, SETTINGS.margin)


def offline(error: float, champion: float | None) -> dict[str, Any]:
    def of(value: float) -> dict[str, Any]:
        return {"model": "m", "episodes": 3, "frames": 90, "horizon": 1, "error": value, "per_dimension": {}}

    nothing = {"model": "m", "rollouts": 0, "successes": 0, "rate": None, "low": None, "high": None, "by_seed": {}}
    return {"candidate": nothing, "champion": None, "offline": {"candidate": of(error), "champion": None if champion is None else of(champion)}}


@pytest.mark.parametrize(
    ("error", "champion", "promote"),
    [(0.4, None, True), (1.0, None, False), (0.4, 0.5, True), (0.4, 0.39, True), (0.4, 0.3, False), (float("nan"), None, False), (float("nan"), 0.5, False)],
)
def test_offline_only_says_so(error: float, champion: float | None, promote: bool) -> None:
    verdict = gate(offline(error, champion), SETTINGS)
    assert verdict.promote is promote
    assert verdict.basis == "offline"
    assert "decided offline, without rollouts" in verdict.reasons[0]


def test_nothing_measured_is_refused() -> None:
    nothing = offline(0.1, None) | {"offline": None}
    assert not gate(nothing, SETTINGS).promote
