"""How stages share a cluster: tables and properties of the decisions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.curation.pools import BLOCK_S, TASKS_PER_WORKER, Operator, blocks, operators, workers
from ray_jobs.curation.stage import Resources, Stage

CPU, GPU = Resources(), Resources(num_cpus=0.5, num_gpus=1)
CHAIN = [Operator(("decode", "image"), CPU), Operator(("embed",), GPU, keeps=True)]


@pytest.mark.parametrize(
    ("costs", "cpus", "gpus", "wanted"),
    [
        ({"decode": 1.0, "image": 0.5, "embed": 0.1}, 8, 1, [7, 1]),  # decoding is what is slow: it gets what the model leaves
        ({"decode": 0.1, "embed": 1.0}, 8, 4, [1, 4]),  # the model is: all GPUs, and no more decoding than it can eat
        ({"decode": 0.1, "embed": 1.0}, 8, 0, [1, 1]),  # no GPU at all: one of each is asked for, and Ray says what is missing
        ({"decode": 1.0, "embed": 1.0}, 6, 4, [4, 4]),
        ({"decode": 2.0, "embed": 1.0}, 6, 2, [5, 2]),
        ({"decode": 1.0}, 0, 0, [1, 1]),
    ],
)
def test_workers_by_what_the_stages_cost(costs: dict[str, float], cpus: float, gpus: float, wanted: list[int]) -> None:
    assert workers(CHAIN, costs, cpus, gpus) == wanted


def test_a_fixed_pool_is_kept_and_the_rest_goes_to_the_others() -> None:
    fixed = Operator(("embed",), Resources(num_cpus=1, pool=2), keeps=True)
    assert workers([CHAIN[0], fixed], {}, 8, 0) == [6, 2]
    assert workers([CHAIN[0], fixed, Operator(("light",), Resources(num_cpus=0))], {"light": 9.0}, 8, 0) == [1, 2, 1]


@given(st.lists(st.floats(0.001, 10), min_size=2, max_size=2), st.integers(2, 64), st.integers(1, 16))
def test_no_other_split_is_faster(costs: list[float], cpus: int, gpus: int) -> None:
    chain = [Operator(("a",), Resources()), Operator(("b",), Resources(num_cpus=1, num_gpus=1), keeps=True)]

    def rate(split: list[int]) -> float:
        return min(number / cost for number, cost in zip(split, costs, strict=True))

    found = workers(chain, dict(zip("ab", costs, strict=True)), cpus, gpus)
    assert found[0] + found[1] <= cpus and found[1] <= gpus
    best = max(rate([cpus - actors, actors]) for actors in range(1, min(gpus, cpus - 1) + 1))
    assert rate(found) == pytest.approx(best)


class Plain(Stage):
    name = "plain"


class Other(Stage):
    name, resources = "other", Resources(memory=1)


class Model(Stage):
    name = "model"

    def setup(self) -> None:
        pass


def test_what_asks_for_the_same_shares_an_operator_and_actors_come_last() -> None:
    stages = {stage.name: stage for stage in (Model(), Plain(), Other())}
    assert [(each.names, each.keeps) for each in operators(stages, set(stages))] == [(("decode", "plain"), False), (("other",), False), (("model",), True)]
    assert [each.names for each in operators(stages, {"model"})] == [("decode",), ("model",)]


@given(st.lists(st.tuples(st.integers(1, 6), st.floats(0.1, 60)), max_size=40), st.integers(1, 32))
def test_every_item_is_in_one_block_no_block_is_long_and_no_short_episode_is_split(episodes: list[tuple[int, float]], slots: int) -> None:
    items = [(str(number), seconds) for number, (count, seconds) in enumerate(episodes) for _ in range(count)]
    found = blocks(items, slots)
    assert [place for first, last in found for place in range(first, last)] == list(range(len(items)))
    whole = {str(number): count * seconds for number, (count, seconds) in enumerate(episodes) if count * seconds <= BLOCK_S}
    units = [whole.get(name, seconds) for name, seconds in items]
    target = min(BLOCK_S, math.fsum(seconds for _, seconds in items) / (TASKS_PER_WORKER * slots))
    for first, last in found:
        held = items[first:last]
        assert len({name for name, _ in held}) == 1 or math.fsum(seconds for _, seconds in held) <= target + max(units[first:last]) / 2 + 1e-6
        for name, _ in held:
            assert name not in whole or sum(1 for other, _ in held if other == name) == episodes[int(name)][0]
