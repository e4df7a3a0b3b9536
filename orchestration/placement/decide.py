"""Where to run: a pure function from needs and offers to a ranked plan, with the reason why each other offer lost.

The cheapest offer that keeps every requirement comes first; between equals the earlier one, then the name. An offer's rank never
improves when its own price rises, and no other offer's price decides whether it keeps the requirements.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orchestration.placement.offers import Offer, Room
from orchestration.placement.requirements import Link, Needs

HOUR_S = 3600.0
SAME_REGION_MB_PER_S = 200.0  # where settings have no link of a region to itself; it costs nothing


@dataclass(frozen=True)
class Choice:
    """An offer that would do. `starts_s` and `ends_s`: expected, from now. Costs in USD."""

    target: str
    region: str
    accelerator: str
    spot: bool
    starts_s: float
    hours: float
    compute_cost: float
    copy_bytes: int
    copy_cost: float
    why: str = ""  # it is not first

    @property
    def ends_s(self) -> float:
        return self.starts_s + self.hours * HOUR_S

    @property
    def cost(self) -> float:
        return self.compute_cost + self.copy_cost


@dataclass(frozen=True)
class Loser:
    """An offer that would not do, and why."""

    target: str
    region: str
    why: str


@dataclass(frozen=True)
class Plan:
    ranked: tuple[Choice, ...]
    lost: tuple[Loser, ...]


def decide(
    needs: Needs, offers: Iterable[Offer], missing: Mapping[str, int], home: str, links: Iterable[Link], budget: float, tried: Mapping[str, str]
) -> Plan:
    """Rank the offers. `missing`: region -> bytes that its store lacks. `budget`: USD that may still be spent.

    `tried`: target -> why it did not do a moment ago; it is not tried again for this day.
    """
    roads = {(link.source, link.destination): link for link in links}
    good: list[Choice] = []
    lost: list[Loser] = []
    for offer in offers:
        verdict = _judge(needs, offer, missing.get(offer.region, 0), roads.get((home, offer.region)), home, budget, tried)
        if isinstance(verdict, Choice):
            good.append(verdict)
        else:
            lost.append(Loser(offer.target, offer.region, verdict))
    good.sort(key=lambda choice: (choice.cost, choice.ends_s, choice.target))
    return Plan(tuple(_with_reason(choice, good[0]) for choice in good), tuple(lost))


def on_nodes(rooms: Iterable[Room], needs: Needs) -> int:
    """How many of the wanted accelerators, each with its memory, the nodes hold in the wanted topology."""
    each = [_places(room, needs) for room in rooms]
    return max(each, default=0) if needs.topology == "one_node" else sum(each)


def in_queue(flavors: Iterable[Room], needs: Needs) -> int:
    """The same of a queue: Kueue gives a group of pods one flavor."""
    return max((_places(flavor, needs) for flavor in flavors), default=0)


def _places(room: Room, needs: Needs) -> int:
    if not needs.memory_gib or math.isinf(room.memory_gib):
        return room.accelerators
    return min(room.accelerators, math.floor(room.memory_gib / needs.memory_gib))


def _judge(needs: Needs, offer: Offer, missing: int, link: Link | None, home: str, budget: float, tried: Mapping[str, str]) -> Choice | str:
    """The offer with its times and costs, or why it will not do."""
    if why := _unfit(needs, offer, tried):
        return why
    if link is None and missing and offer.region != home:
        return f"its region lacks {missing / 1e9:.3g} GB, and settings have no link from {home} to {offer.region}"
    choice = _choice(needs, offer, missing, link)
    if choice.cost > budget:
        return f"it would cost {choice.cost:.2f} USD, and {max(budget, 0.0):.2f} may be spent"
    if choice.ends_s > needs.deadline_hours * HOUR_S:
        return f"it would end in {choice.ends_s / HOUR_S:.1f} h, and the deadline is in {needs.deadline_hours:g} h"
    return choice


def _unfit(needs: Needs, offer: Offer, tried: Mapping[str, str]) -> str:
    """Why the offer cannot do at all, whatever it costs; empty: it may."""
    if offer.target in tried:
        return f"tried already: {tried[offer.target]}"
    if offer.silent:
        return offer.silent
    if offer.accelerator not in needs.hours:
        return f"it has {offer.accelerator}, wanted is {' or '.join(sorted(needs.hours))}"
    if offer.quota is not None and (most := in_queue(offer.quota, needs)) < needs.count:
        return f"its queue never gives more than {most}{_with_memory(needs)}, wanted are {needs.count}"
    if offer.total is not None and (most := on_nodes(offer.total, needs)) < needs.count and not _grows(needs, offer):
        where = "one node holds" if needs.topology == "one_node" else "its nodes hold"
        return f"{where} at most {most}{_with_memory(needs)}, wanted are {needs.count}"
    if offer.reclaims_per_hour * needs.redo_s >= HOUR_S:
        return f"its nodes are taken away {offer.reclaims_per_hour:g} times an hour: nothing would ever be finished"
    return ""


def _with_memory(needs: Needs) -> str:
    return f" with {needs.memory_gib:g} GiB each" if needs.memory_gib else ""


def _grows(needs: Needs, offer: Offer) -> bool:
    """Could nodes that the pool adds hold the job? Of as many as it takes, or of one."""
    if offer.new_node is None:
        return False
    added = Room(offer.new_node.accelerators, offer.new_node.memory_gib)
    return _places(added, needs) >= (needs.count if needs.topology == "one_node" else 1)


def _choice(needs: Needs, offer: Offer, missing: int, link: Link | None) -> Choice:
    rate = link.mb_per_s if link else SAME_REGION_MB_PER_S
    hours = needs.hours[offer.accelerator] / (1 - offer.reclaims_per_hour * needs.redo_s / HOUR_S)
    return Choice(
        target=offer.target,
        region=offer.region,
        accelerator=offer.accelerator,
        spot=offer.reclaims_per_hour > 0,
        starts_s=missing / 1e6 / rate + _wait_s(needs, offer) + offer.start_s,
        hours=hours,
        compute_cost=offer.price * needs.count * hours,
        copy_bytes=missing,
        copy_cost=missing / 1e9 * link.price_per_gb if link else 0.0,
    )


def _wait_s(needs: Needs, offer: Offer) -> float:
    """Expected until the accelerators are there: none, a new node, or what the queue usually takes."""
    if offer.waiting or (offer.quota_free is not None and in_queue(offer.quota_free, needs) < needs.count):
        return offer.wait_s
    if offer.free is None or on_nodes(offer.free, needs) >= needs.count:
        return 0.0
    return offer.new_node.seconds if offer.new_node and _grows(needs, offer) else offer.wait_s


def _with_reason(choice: Choice, first: Choice) -> Choice:
    if choice is first:
        return choice
    more = choice.cost - first.cost
    why = f"{more:.2f} USD more than {first.target}" if more > 0 else f"no cheaper than {first.target}, which ends earlier or comes first by name"
    return replace(choice, why=why)
