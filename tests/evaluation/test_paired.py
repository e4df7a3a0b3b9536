"""The paired statistics: published examples, independent derivations, and coverage by exact enumeration and by simulation."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, multinomial

from orchestration.evaluation.paired import as_good, interval, pairs_needed, power, score, worse

Z_95 = 1.959963984540054
MARGIN = 0.10
tables = st.integers(1, 80).flatmap(
    lambda pairs: st.integers(0, pairs).flatmap(lambda gained: st.tuples(st.just(gained), st.integers(0, pairs - gained), st.just(pairs)))
)


def test_the_example_of_fagerland_lydersen_and_laake() -> None:
    """Airway hyper-responsiveness, table I of their paper: (1, 1; 7, 12); Tango's interval there is -0.517 to -0.026."""
    assert interval(1, 7, 21, Z_95) == pytest.approx((-0.517, -0.026), abs=5e-4)


@settings(deadline=None)
@given(tables, st.floats(-0.9, 0.9))
def test_the_variance_is_that_of_the_restricted_maximum_of_the_likelihood(table: tuple[int, int, int], difference: float) -> None:
    """Independent derivation: maximise the trinomial likelihood under gained - lost = difference numerically."""
    gained, lost, pairs = table
    low, high = max(0.0, -difference), (1 - difference) / 2

    def unlikely(share: float) -> float:
        cells = [(gained, share + difference), (lost, share), (pairs - gained - lost, 1 - 2 * share - difference)]
        return -sum(count * math.log(max(rate, 1e-300)) for count, rate in cells if count)

    best = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
    variance = pairs * (2 * best + difference - difference**2)
    excess = gained - lost - pairs * difference
    if variance > 1e-3:
        assert score(gained, lost, pairs, difference) == pytest.approx(excess / math.sqrt(variance), rel=2e-3, abs=2e-3)


@settings(deadline=None)
@given(tables)
def test_swapping_the_two_mirrors_the_interval(table: tuple[int, int, int]) -> None:
    gained, lost, pairs = table
    low, high = interval(gained, lost, pairs)
    assert interval(lost, gained, pairs) == pytest.approx((-high, -low), abs=1e-9)
    assert low - 1e-9 <= (gained - lost) / pairs <= high + 1e-9


@settings(deadline=None)
@given(tables)
def test_the_decision_is_the_limit_of_the_interval(table: tuple[int, int, int]) -> None:
    gained, lost, pairs = table
    low, _ = interval(gained, lost, pairs)
    if abs(low + MARGIN) > 1e-9:
        assert as_good(gained, lost, pairs, MARGIN) == (low > -MARGIN)


def test_no_pair_says_nothing() -> None:
    assert interval(0, 0, 0) == (-1.0, 1.0) and not as_good(0, 0, 0, MARGIN)


@pytest.mark.parametrize("pairs", [1, 7, 20, 40])
def test_one_more_success_never_turns_a_pass_into_a_refusal(pairs: int) -> None:
    """Every table of so many pairs: a lost scene won back, or one that neither won."""
    for gained in range(pairs + 1):
        for lost in range(pairs + 1 - gained):
            if as_good(gained, lost, pairs, MARGIN):
                assert not lost or as_good(gained, lost - 1, pairs, MARGIN)
                assert gained + lost == pairs or as_good(gained + 1, lost, pairs, MARGIN)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_the_exact_test_is_scipys(gained: int, lost: int) -> None:
    expected = binomtest(lost, gained + lost, 0.5, alternative="greater").pvalue if gained + lost else 1.0
    assert worse(gained, lost) == pytest.approx(expected)


@cache
def passing(pairs: int) -> tuple[tuple[int, int], ...]:
    return tuple((gained, lost) for gained in range(pairs + 1) for lost in range(pairs + 1 - gained) if as_good(gained, lost, pairs, MARGIN))


def enumerated(discordance: float, pairs: int, difference: float) -> float:
    """Chance to pass, summed over every table."""
    rates = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    tables = np.array([(gained, lost, pairs - gained - lost) for gained, lost in passing(pairs)])
    return float(multinomial.pmf(tables, pairs, rates).sum())


@pytest.mark.parametrize("pairs", [20, 50, 100])
@pytest.mark.parametrize("discordance", [0.10, 0.15, 0.30, 0.60])
def test_a_policy_that_is_worse_by_the_margin_passes_in_no_more_than_about_one_case_in_twenty(pairs: int, discordance: float) -> None:
    """The actual level of the nominal 5 % test, exactly. Counts are discrete and the limits asymptotic, so it is not 5 % everywhere."""
    assert enumerated(discordance, pairs, -MARGIN) < 0.075
    if pairs >= 50:
        assert 0.03 < enumerated(discordance, pairs, -MARGIN) < 0.06


@pytest.mark.parametrize(("discordance", "pairs", "difference"), [(0.1, 50, 0.0), (0.3, 100, 0.0), (0.2, 60, -0.05), (0.0, 30, 0.0), (0.25, 40, 0.25)])
def test_power_is_what_enumeration_and_simulation_say(discordance: float, pairs: int, difference: float) -> None:
    told = power(discordance, pairs, MARGIN, difference)
    assert told == pytest.approx(enumerated(discordance, pairs, difference), abs=1e-6)
    draws = np.random.default_rng(0).multinomial(pairs, [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance], 4000)
    passed = np.mean([as_good(int(gained), int(lost), pairs, MARGIN) for gained, lost, _ in draws])
    assert abs(passed - told) < 4 * math.sqrt(0.25 / 4000)


def test_coverage_of_the_interval_by_enumeration_and_simulation() -> None:
    """90 % interval, 60 pairs: how often it holds the true difference."""
    pairs, gain, loss = 60, 0.14, 0.08
    limits = {(gained, lost): interval(gained, lost, pairs) for gained in range(pairs + 1) for lost in range(pairs + 1 - gained)}
    holding = np.array([(gained, lost, pairs - gained - lost) for (gained, lost), (low, high) in limits.items() if low <= gain - loss <= high])
    exact = float(multinomial.pmf(holding, pairs, [gain, loss, 1 - gain - loss]).sum())
    draws = np.random.default_rng(1).multinomial(pairs, [gain, loss, 1 - gain - loss], 4000)
    held = np.mean([limits[int(gained), int(lost)][0] <= gain - loss <= limits[int(gained), int(lost)][1] for gained, lost, _ in draws])
    assert 0.88 < exact < 0.92 and abs(held - exact) < 0.02


def test_how_many_pairs_are_needed() -> None:
    for discordance in (0.02, 0.1, 0.3):
        needed = pairs_needed(discordance, MARGIN, 0.8)
        assert needed is not None and power(discordance, needed, MARGIN) >= 0.8 > power(discordance, needed - 10, MARGIN)
    assert pairs_needed(0.9, 0.001) is None
    with pytest.raises(ValueError, match="at least as large a share"):
        power(0.1, 50, MARGIN, 0.2)
