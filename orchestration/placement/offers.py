"""Offers: what each target has now and what it costs. Settings begin an offer, and each source adds what it knows."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from orchestration.placement.requirements import NewNode, Terms


@dataclass(frozen=True)
class Room:
    """What one node has, or one flavor of a queue gives: whole accelerators, and memory in GiB."""

    accelerators: int
    memory_gib: float = math.inf


@dataclass(frozen=True)
class Offer:
    """One target as it stands. None is unknown, and what is unknown does not limit.

    `free` and `total`: room of each node, now and when nobody else is there. `quota_free` and `quota`: what the queue gives in each
    of its flavors, now and at most. `silent`: why the target could not be asked; then it is no place to send work to.
    """

    target: str
    region: str
    accelerator: str
    price: float  # USD per accelerator and hour
    reclaims_per_hour: float = 0.0
    start_s: float = 120.0
    wait_s: float = 3600.0
    new_node: NewNode | None = None
    free: tuple[Room, ...] | None = None
    total: tuple[Room, ...] | None = None
    quota_free: tuple[Room, ...] | None = None
    quota: tuple[Room, ...] | None = None
    waiting: int = 0  # jobs of others in the queue
    silent: str = ""


class Source(Protocol):
    """Bring your own, a price feed for one: it gets an offer and gives it back with what it knows better."""

    def complete(self, offer: Offer) -> Offer: ...


def begin(target: str, terms: Terms) -> Offer:
    """The offer as settings know it."""
    return Offer(target, terms.region, terms.accelerator, terms.price, terms.reclaims_per_hour, terms.start_s, terms.wait_s, terms.new_node)


def gather(terms: Mapping[str, Terms], sources: Iterable[tuple[str, Source]]) -> list[Offer]:
    """An offer for each target, by name. `sources`: (target, source) in the order in which they are asked."""
    found = {target: begin(target, each) for target, each in sorted(terms.items())}
    for target, source in sources:
        found[target] = source.complete(found[target])
    return list(found.values())
