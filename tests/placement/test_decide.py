"""The decision: a table of cases, what holds for all of them, and every small case against trying everything."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.placement.decide import HOUR_S, SAME_REGION_MB_PER_S, Choice, Plan, decide
from orchestration.placement.offers import Offer, Room
from orchestration.placement.requirements import Link, Needs, NewNode

HOME = "eu"
LINKS = (Link(source="eu", destination="us", price_per_gb=0.02, mb_per_s=100), Link(source="eu", destination="asia", price_per_gb=0.08, mb_per_s=50))
NEEDS = Needs(hours={"H100": 2.0, "A100": 4.0}, count=4, memory_gib=64, deadline_hours=12)
NODE = Room(8, 1024)
GB = 10**9


def offer(target: str = "x", **more: object) -> Offer:
    return replace(Offer(target, "us", "H100", 3.0, free=(NODE,), total=(NODE,), start_s=0.0), **more)  # type: ignore[arg-type]


def plan(*offers: Offer, needs: Needs = NEEDS, missing: dict[str, int] | None = None, budget: float = 1000.0, tried: dict[str, str] | None = None) -> Plan:
    return decide(needs, offers, missing or {}, HOME, LINKS, budget, tried or {})


def why(*arguments: Offer, **more: object) -> str:
    (lost,) = plan(*arguments, **more).lost  # type: ignore[arg-type]
    return lost.why


@pytest.mark.parametrize(
    ("offered", "more", "said"),
    [
        (offer(accelerator="L4"), {}, "it has L4, wanted is A100 or H100"),
        (offer(silent="its cluster does not answer"), {}, "its cluster does not answer"),
        (offer(), {"tried": {"x": "it waited 20 s in the queue"}}, "tried already: it waited 20 s in the queue"),
        (offer(quota=(Room(3), Room(2))), {}, "its queue never gives more than 3 with 64 GiB each, wanted are 4"),
        (offer(quota=(Room(8, 200),)), {}, "its queue never gives more than 3 with 64 GiB each, wanted are 4"),
        (offer(total=(Room(2, 1024), Room(1, 1024))), {}, "its nodes hold at most 3 with 64 GiB each, wanted are 4"),
        (offer(total=(Room(8, 100),)), {}, "its nodes hold at most 1 with 64 GiB each, wanted are 4"),
        (
            offer(total=(Room(2), Room(2))),
            {"needs": NEEDS.model_copy(update={"topology": "one_node"})},
            "one node holds at most 2 with 64 GiB each, wanted are 4",
        ),
        (offer(total=(), new_node=NewNode(seconds=60, accelerators=2, memory_gib=32)), {}, "its nodes hold at most 0 with 64 GiB each, wanted are 4"),
        (offer(region="moon"), {"missing": {"moon": GB}}, "its region lacks 1 GB, and settings have no link from eu to moon"),
        (offer(price=30), {"budget": 200.0}, "it would cost 240.00 USD, and 200.00 may be spent"),
        (offer(price=0), {"missing": {"us": 100 * GB}, "budget": 1.0}, "it would cost 2.00 USD, and 1.00 may be spent"),
        (offer(free=(), wait_s=11 * HOUR_S), {}, "it would end in 13.0 h, and the deadline is in 12 h"),
        (offer(), {"missing": {"us": 4000 * GB}}, "it would end in 13.1 h, and the deadline is in 12 h"),
        (offer(reclaims_per_hour=6.0), {}, "its nodes are taken away 6 times an hour: nothing would ever be finished"),
    ],
)
def test_why_an_offer_loses(offered: Offer, more: dict[str, object], said: str) -> None:
    assert why(offered, **more) == said


def test_the_cheapest_wins_and_each_other_says_by_how_much_it_lost() -> None:
    found = plan(offer("dear", price=3.5), offer("cheap", price=2.0), offer("slow", accelerator="A100", price=1.0), offer("small", total=()))
    assert [(choice.target, choice.cost, choice.why) for choice in found.ranked] == [
        ("cheap", 16.0, ""),
        ("slow", 16.0, "no cheaper than cheap, which ends earlier or comes first by name"),
        ("dear", 28.0, "12.00 USD more than cheap"),
    ]
    assert [lost.target for lost in found.lost] == ["small"]


def test_data_that_is_there_already_outweighs_a_lower_price() -> None:
    offers = offer("there", region="asia", price=3.0), offer("away", region="us", price=2.9)
    assert plan(*offers, missing={"us": 100 * GB}).ranked[0].target == "there"
    (best, other) = plan(*offers, missing={"asia": 100 * GB, "us": 1 * GB}).ranked
    assert (best.target, best.copy_cost, other.copy_cost) == ("away", 0.02, 8.0)
    assert best.starts_s == pytest.approx(10.0), "1 GB at 100 MB/s"


@pytest.mark.parametrize(
    ("offered", "starts"),
    [
        (offer(start_s=30.0), 30.0),
        (offer(free=(Room(3, 1024),)), 3600.0),
        (offer(free=(Room(3, 1024),), new_node=NewNode(seconds=240, accelerators=8, memory_gib=512)), 240.0),
        (offer(free=None, total=None), 0.0),
        (offer(quota=(Room(8),), quota_free=(Room(3), Room(1))), 3600.0),
        (offer(quota=(Room(8),), quota_free=(Room(3), Room(4))), 0.0),
        (offer(waiting=1), 3600.0),
    ],
)
def test_when_it_would_start(offered: Offer, starts: float) -> None:
    assert plan(offered).ranked[0].starts_s == starts


def test_spot_nodes_take_longer_by_the_work_that_is_lost() -> None:
    (choice,) = plan(offer(reclaims_per_hour=1.0)).ranked
    assert choice.spot and choice.hours == pytest.approx(2.4), "2.4 hours, of which 2.4 times ten minutes are done again"
    assert choice.compute_cost == pytest.approx(3.0 * 4 * 2.4)


rooms = st.lists(st.builds(Room, st.integers(0, 3), st.sampled_from([0.0, 32.0, 64.0, 200.0, math.inf])), max_size=3).map(tuple)
maybe_rooms = st.none() | rooms
offers_of = st.builds(
    Offer,
    target=st.sampled_from("abcd"),
    region=st.sampled_from(["eu", "us", "asia", "moon"]),
    accelerator=st.sampled_from(["H100", "A100", "L4"]),
    price=st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]),
    reclaims_per_hour=st.sampled_from([0.0, 0.0, 1.0, 10.0]),
    start_s=st.sampled_from([0.0, 600.0]),
    wait_s=st.sampled_from([0.0, 7200.0]),
    new_node=st.none() | st.builds(NewNode, seconds=st.just(300.0), accelerators=st.integers(1, 4), memory_gib=st.sampled_from([16.0, 256.0])),
    free=maybe_rooms,
    total=maybe_rooms,
    quota_free=maybe_rooms,
    quota=maybe_rooms,
    waiting=st.sampled_from([0, 0, 2]),
    silent=st.sampled_from(["", "", "", "no answer"]),
)
all_offers = st.lists(offers_of, max_size=4, unique_by=lambda each: each.target)
some_needs = st.builds(
    Needs,
    hours=st.dictionaries(st.sampled_from(["H100", "A100"]), st.sampled_from([0.5, 2.0, 8.0]), min_size=1),
    count=st.integers(1, 4),
    memory_gib=st.sampled_from([0.0, 32.0, 64.0]),
    topology=st.sampled_from(["one_node", "any"]),
    deadline_hours=st.sampled_from([1.0, 4.0, 24.0]),
)
some_missing = st.dictionaries(st.sampled_from(["eu", "us", "asia", "moon"]), st.sampled_from([0, 5 * GB, 900 * GB]))
budgets = st.sampled_from([-1.0, 1.0, 20.0, 500.0])
tried_before = st.dictionaries(st.sampled_from("abcd"), st.just("it ran out"), max_size=2)


def fits(rooms: tuple[Room, ...] | None, needs: Needs, together: bool) -> bool:
    """By trying every way to put each accelerator into a room."""
    if rooms is None:
        return True
    for assignment in itertools.product(range(len(rooms)), repeat=needs.count):
        used = [assignment.count(number) for number in range(len(rooms))]
        if together and sum(1 for each in used if each) > 1:
            continue
        if all(each <= room.accelerators and each * needs.memory_gib <= room.memory_gib for each, room in zip(used, rooms, strict=True)):
            return True
    return False


def grown(offered: Offer, needs: Needs) -> bool:
    """With as many new nodes as there are accelerators, which is all that could be needed."""
    node = offered.new_node
    added = (Room(node.accelerators, node.memory_gib),) * needs.count if node else ()
    return bool(added) and fits(added, needs, needs.topology == "one_node")


def by_hand(needs: Needs, offered: Offer, missing: dict[str, int], budget: float, tried: dict[str, str]) -> tuple[float, float] | None:
    """(cost, end in seconds) of an offer that will do, else None; written without the code that is tested."""
    together = needs.topology == "one_node"
    if offered.target in tried or offered.silent or offered.accelerator not in needs.hours:
        return None
    if not fits(offered.quota, needs, together=True):
        return None
    if not fits(offered.total, needs, together) and not grown(offered, needs):
        return None
    lacks = missing.get(offered.region, 0)
    road = next((link for link in LINKS if (link.source, link.destination) == (HOME, offered.region)), None)
    if lacks and road is None and offered.region != HOME:
        return None
    lost_share = offered.reclaims_per_hour * needs.redo_s / HOUR_S
    if lost_share >= 1:
        return None
    hours = needs.hours[offered.accelerator] / (1 - lost_share)
    cost = offered.price * needs.count * hours + (lacks / GB * road.price_per_gb if road else 0.0)
    wait = 0.0
    if offered.waiting or not fits(offered.quota_free, needs, together=True):
        wait = offered.wait_s
    elif not fits(offered.free, needs, together):
        wait = 300.0 if grown(offered, needs) else offered.wait_s
    end = lacks / 1e6 / (road.mb_per_s if road else SAME_REGION_MB_PER_S) + wait + offered.start_s + hours * HOUR_S
    return None if cost > budget or end > needs.deadline_hours * HOUR_S else (cost, end)


@given(some_needs, all_offers, some_missing, budgets, tried_before)
def test_it_is_what_trying_everything_finds(needs: Needs, offers: list[Offer], missing: dict[str, int], budget: float, tried: dict[str, str]) -> None:
    found = plan(*offers, needs=needs, missing=missing, budget=budget, tried=tried)
    good = {each.target: by_hand(needs, each, missing, budget, tried) for each in offers}
    assert {choice.target for choice in found.ranked} == {target for target, verdict in good.items() if verdict is not None}
    assert {loser.target for loser in found.lost} == {target for target, verdict in good.items() if verdict is None}
    assert all(loser.why for loser in found.lost) and all(choice.why for choice in found.ranked[1:])
    costs = [good[choice.target][0] for choice in found.ranked]  # type: ignore[index]
    assert costs == pytest.approx(sorted(costs))
    if found.ranked:
        best = min(verdict for verdict in good.values() if verdict is not None)
        assert (found.ranked[0].cost, found.ranked[0].ends_s) == pytest.approx(best)


@given(some_needs, all_offers, some_missing, budgets)
def test_no_requirement_is_ever_violated(needs: Needs, offers: list[Offer], missing: dict[str, int], budget: float) -> None:
    by_name = {each.target: each for each in offers}
    for choice in plan(*offers, needs=needs, missing=missing, budget=budget).ranked:
        offered = by_name[choice.target]
        assert choice.accelerator in needs.hours and not offered.silent
        assert choice.cost <= budget and choice.ends_s <= needs.deadline_hours * HOUR_S
        assert fits(offered.total, needs, needs.topology == "one_node") or grown(offered, needs)
        assert fits(offered.quota, needs, together=True)


def rank(found: Plan, target: str) -> float:
    names = [choice.target for choice in found.ranked]
    return names.index(target) if target in names else math.inf


@given(some_needs, all_offers.filter(bool), some_missing, budgets, st.data(), st.floats(0.01, 100))
def test_a_higher_price_never_helps_and_a_lower_one_never_harms(
    needs: Needs, offers: list[Offer], missing: dict[str, int], budget: float, data: st.DataObject, more: float
) -> None:
    which = data.draw(st.integers(0, len(offers) - 1))
    raised = [replace(each, price=each.price + more) if number == which else each for number, each in enumerate(offers)]
    before, after = plan(*offers, needs=needs, missing=missing, budget=budget), plan(*raised, needs=needs, missing=missing, budget=budget)
    target = offers[which].target
    assert rank(before, target) <= rank(after, target)

    def others(found: Plan) -> list[Choice]:
        return [replace(choice, why="") for choice in found.ranked if choice.target != target]

    assert others(before) == others(after), "and the others stay in their order"
