import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ray_jobs.seam.proportions import wilson


@given(st.integers(1, 500).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    successes, trials = case
    known = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((known.low, known.high), abs=1e-9)


def test_no_trial_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
