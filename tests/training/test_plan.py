"""The order of the data: every row once an epoch, the same wherever it is resumed and however many share it."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.training.features import Extractor
from ray_jobs.training.plan import SHARD_MOMENTS, Plan, make_plan
from ray_jobs.training.samples import Batch, Moments, moments
from ray_jobs.training.stream import batches, of_episodes

LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=30)
EXTRACTOR = Extractor(lambda states, frames: {"state": states}, chunk=1)


def numbered(lengths: list[int]) -> list[Moments]:
    """Episodes whose state counts the moments of all."""
    ends = np.cumsum(lengths)
    numbers = [np.arange(end - length, end, dtype=np.float32)[:, None] for end, length in zip(ends, lengths, strict=True)]
    return [moments({"state": each}, 0 * each) for each in numbers]


def rows_of(found: list[Batch]) -> list[int]:
    return np.concatenate([batch.seen["state"][:, 0, 0] for batch in found]).astype(int).tolist()


@given(lengths=LENGTHS, lanes=st.integers(1, 4), seed=st.integers(0, 5))
def test_an_epoch_has_every_moment_once(lengths: list[int], lanes: int, seed: int) -> None:
    plan = make_plan(lengths, [1.0] * len(lengths), lanes, seed, 100)
    seen = Counter((piece.episode, moment) for shard in plan.shards for piece in shard for moment in range(piece.start, piece.stop))
    assert seen == Counter((episode, moment) for episode, length in enumerate(lengths) for moment in range(length))
    assert max(plan.rows(shard) for shard in range(len(plan.shards))) <= 2 * SHARD_MOMENTS
    count = len(plan.shards)
    dealt = [list(islice(plan.sequence(lane), 3 * count)) for lane in range(lanes)]
    in_turn = [dealt[number % lanes][number // lanes] for number in range(3 * count)]
    for epoch in range(3):
        assert sorted(in_turn[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_weights_are_passes_per_epoch() -> None:
    plan = make_plan([1200] * 6, [2.0, 1.0, 1.0, 0.25, 0.25, 0.0], 2, 0, 100)
    passes = Counter(piece.episode for shard in islice(plan.sequence(0), 2000) for piece in plan.shards[shard])
    whole = passes[1] + passes[2]
    assert passes[5] == 0 and passes[0] == pytest.approx(whole, rel=0.05) and passes[3] + passes[4] == pytest.approx(whole / 4, rel=0.2)


def test_nothing_of_weight_is_an_error() -> None:
    with pytest.raises(ValueError, match="no episode has weight"):
        make_plan([10, 10], [0.0, 0.0], 2, 0, 100)


def test_large_moments_are_shuffled_in_smaller_windows() -> None:
    assert make_plan([1200] * 64, [1.0] * 64, 2, 0, 1000).window == 16
    assert make_plan([1200] * 64, [1.0] * 64, 2, 0, 3 * 128 * 128).window == 4


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=12), lanes=st.integers(1, 3), size=st.integers(1, 70), first=st.integers(0, 30))
def test_resumed_batches_are_the_uninterrupted_ones(lengths: list[int], lanes: int, size: int, first: int) -> None:
    plan, episodes = make_plan(lengths, [1.0] * len(lengths), lanes, 3, 100), numbered(lengths)
    for lane in range(lanes):
        fetch = of_episodes(plan, episodes, EXTRACTOR)
        whole = rows_of(list(islice(batches(plan, lane, size, 0, fetch, EXTRACTOR), first + 5)))
        again = rows_of(list(islice(batches(plan, lane, size, first, fetch, EXTRACTOR), 5)))
        assert whole[first * size :] == again and len(again) == 5 * size


def test_an_epoch_is_seen_and_shuffled() -> None:
    lengths = [40] * 48
    plan, episodes = make_plan(lengths, [1.0] * 48, 2, 0, 100), numbered(lengths)
    fetch = of_episodes(plan, episodes, EXTRACTOR)
    lanes: list[list[int]] = [rows_of(list(islice(batches(plan, lane, 20, 0, fetch, EXTRACTOR), 48))) for lane in range(2)]
    assert sorted(lanes[0] + lanes[1]) == list(range(48 * 40))
    spread = np.abs(np.diff(lanes[0]))
    assert np.median(spread) > 200, "neighbours in a batch come from all over the lane's part of the epoch"


def test_another_seed_is_another_order() -> None:
    def order(plan: Plan) -> list[int]:
        return list(islice(plan.sequence(0), 40))

    one, other = (make_plan([40] * 50, [1.0] * 50, 2, seed, 100) for seed in (0, 1))
    assert order(one) != order(other) and order(one) == order(make_plan([40] * 50, [1.0] * 50, 2, 0, 100))
