import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ray_jobs.seam.proportions import paired_difference, wilson


@given(st.integers(1, 500).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    successes, trials = case
    known = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((known.low, known.high), abs=1e-9)


def test_no_trial_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert paired_difference(0, 0, 0, 0) == (-1.0, 1.0)


def test_newcombes_own_example() -> None:
    """Newcombe 1998, table II, method 10: (36, 12, 2, 0)."""
    assert paired_difference(36, 12, 2, 0, 1.959964) == pytest.approx((0.0569, 0.3404), abs=1e-4)


@given(*[st.integers(0, 30)] * 4)
def test_swapping_the_two_mirrors_the_interval(both: int, first: int, second: int, neither: int) -> None:
    low, high = paired_difference(both, first, second, neither)
    assert paired_difference(both, second, first, neither) == pytest.approx((-high, -low))
