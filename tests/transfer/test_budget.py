"""One bucket for bytes, one for requests, and a cap on money: pure, so time is what the test says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.seam.configs import CopySettings
from ray_jobs.transfer.budget import GB, Allowance, Bucket, Spent

TAKES = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 1000)), min_size=1, max_size=50)  # seconds since the last, how much


@given(TAKES, st.floats(1, 500))
def test_what_was_waited_for_never_comes_faster_than_the_rate(takes: list[tuple[float, int]], per_s: float) -> None:
    """Whatever is taken when: what may be used until a moment is at most one second's worth more than the rate allows."""
    bucket, now, taken = Bucket(per_s), 0.0, 0
    for pause, count in takes:
        now += pause
        taken += count
        usable_at = now + bucket.take(count, now)
        assert taken <= per_s * (usable_at + 1) * (1 + 1e-9) + 1e-6


@given(TAKES)
def test_nobody_waits_without_a_limit(takes: list[tuple[float, int]]) -> None:
    bucket = Bucket(None)
    assert all(bucket.take(count, pause) == 0 for pause, count in takes)


@given(st.integers(1, 10**9), st.floats(1, 1e6))
def test_nothing_is_too_large(count: int, per_s: float) -> None:
    assert Bucket(per_s).take(count, 0.0) == pytest.approx(max(0.0, count / per_s - 1), rel=1e-6, abs=1e-6)


@given(st.lists(st.integers(0, 3 * GB), max_size=40), st.floats(0.01, 1), st.floats(0, 3), st.integers(0, GB))
def test_the_cap_is_never_passed_and_a_refusal_takes_nothing(sizes: list[int], price: float, cap: float, spent: int) -> None:
    allowance = Allowance(CopySettings(egress_usd_per_gb=price, egress_cap_usd=cap), spent)
    for size in sizes:
        before = allowance.read_bytes
        if (before + size) / GB * price <= cap:
            allowance.take(size, 2, 0.0)
            assert allowance.read_bytes == before + size
        else:
            with pytest.raises(Spent, match=r"raise copying\.egress_cap_usd"):
                allowance.take(size, 2, 0.0)
            assert allowance.read_bytes == before
    assert allowance.usd <= max(cap, spent / GB * price)


def test_the_slower_of_two_limits_counts() -> None:
    allowance = Allowance(CopySettings(bytes_per_s=100, requests_per_s=1))
    assert allowance.take(300, 2, 0.0) == pytest.approx(2.0)  # bytes: 200 too many; requests: one too many
    assert allowance.take(0, 5, 0.0) == pytest.approx(6.0)
