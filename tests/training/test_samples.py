"""Windows never leave their episode, what is no number trains nothing, and a piece gives the rows of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.training.samples import Batch, Moments, join, moments, statistics


def counted(length: int, begin: int = 0) -> Moments:
    """An episode whose state and action say which moment it is."""
    numbers = np.arange(begin, begin + length, dtype=np.float32)[:, None]
    return moments({"state": numbers, "picture": np.repeat(numbers, 3, axis=1).astype(np.uint8)}, numbers + 0.5)


def test_windows_stay_in_their_episode() -> None:
    both = join([counted(5), counted(4, 100)])
    batch = both.batch(np.array([0, 4, 5, 8]), window=3, chunk=3)
    assert batch.seen["state"][..., 0].tolist() == [[0, 0, 0], [2, 3, 4], [100, 100, 100], [101, 102, 103]]
    assert batch.actions[..., 0].tolist() == [[0.5, 1.5, 2.5], [4.5, 4.5, 4.5], [100.5, 101.5, 102.5], [103.5, 103.5, 103.5]]
    assert batch.valid.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 1], [1, 0, 0]]
    assert batch.seen["picture"].dtype == np.uint8 and batch.seen["picture"].shape == (4, 3, 3)


@given(length=st.integers(1, 40), start=st.integers(0, 39), size=st.integers(1, 40), window=st.integers(1, 4), chunk=st.integers(1, 5))
def test_a_piece_has_the_rows_of_the_whole(length: int, start: int, size: int, window: int, chunk: int) -> None:
    start, whole = start % length, counted(length)
    stop = min(length, start + size)
    piece = whole.piece(start, stop, window, chunk)
    assert_equal(piece.batch(piece.rows, window, chunk), whole.batch(np.arange(start, stop), window, chunk))


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.seen.keys() == other.seen.keys()
    for name, values in one.seen.items():
        assert np.array_equal(values, other.seen[name])
    assert np.array_equal(one.actions, other.actions) and np.array_equal(one.valid, other.valid)


def test_what_is_no_number_trains_nothing() -> None:
    states, actions = np.zeros((10, 2)), np.zeros((10, 1))
    states[3], actions[8] = np.nan, np.inf
    part = moments({"state": states}, actions)
    batch = part.batch(part.rows, window=2, chunk=4)
    assert np.isfinite(batch.seen["state"]).all() and np.isfinite(batch.actions).all()
    assert not batch.valid[[3, 4, 8, 9]].any(), "a moment that is no number is seen in these windows"
    assert [row.tolist() for row in batch.valid[[0, 5, 7]]] == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0]]
    assert statistics([part]).rows == 8


def test_columns_come_back() -> None:
    part = join([counted(5), counted(4, 100)])
    again = Moments.from_columns(part.columns())
    assert_equal(again.batch(again.rows, 2, 3), part.batch(part.rows, 2, 3))


def test_statistics_are_numpys_and_know_a_gripper() -> None:
    draw = np.random.default_rng(0)
    states = draw.normal(5, 2, (100, 3)).astype(np.float32)
    actions = np.concatenate([draw.normal(size=(100, 1)), draw.integers(0, 2, (100, 1)), np.full((100, 1), 7.0)], axis=1)
    found = statistics([moments({"state": states[:40]}, actions[:40]), moments({"state": states[40:]}, actions[40:])])
    assert found.mean["state"] == pytest.approx(states.mean(axis=0), rel=1e-5)
    assert found.std["state"] == pytest.approx(states.std(axis=0), rel=1e-4)
    assert found.binary == (False, True, False) and found.action_std[2] == 1.0
    with pytest.raises(ValueError, match="no rows"):
        statistics([])
