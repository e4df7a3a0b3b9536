"""The decision about a day, as its pointer holds it: where it runs, why, and from where it had to move."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestration.placement.decide import Choice, Plan
from orchestration.placement.requirements import PlacementSettings, Terms
from ray_jobs.seam.model import Strict
from ray_jobs.seam.results import Pointer, read_pointer
from ray_jobs.seam.store import Store, StoreConfig

ASSET = "placement"
COPIES = "dataset_at_compute"
TELLING_BYTES = 64 * 10**6  # a smaller copy is over before it tells how fast a link is


class Move(Strict):
    """An offer that was taken and did not do. `cost`: USD that it took all the same, copies and time on its accelerators."""

    target: str
    region: str
    why: str
    cost: float


class Decision(Strict):
    """`id` is the generation of its pointer. `launch`: asset -> target, where another than `target` runs it."""

    id: str
    root_run: str
    target: str
    region: str
    store: StoreConfig
    launch: dict[str, str]
    price: float  # USD per hour for all accelerators
    copy_cost: float  # USD, of bringing the data there
    cost: float  # USD, expected: compute and copies
    moves: tuple[Move, ...] = ()
    ranked: tuple[dict[str, Any], ...] = ()
    lost: tuple[dict[str, Any], ...] = ()

    @property
    def copies(self) -> str:
        """The name under which days are published that lie in this region's store: partitions/dataset_at_compute@<region>/<day>/…"""
        return copies_in(self.region)

    @property
    def spent(self) -> float:
        """USD that went into offers that did not do."""
        return sum((move.cost for move in self.moves), 0.0)

    def runs_on(self, asset: str) -> str:
        return self.launch.get(asset, self.target)


def copies_in(region: str) -> str:
    return f"{COPIES}@{region}"


def decision_in(pointer: Pointer) -> Decision | None:
    """None: there was nothing to place."""
    held = pointer.output.get("decision")
    return Decision.model_validate(held) if held else None


@dataclass(frozen=True)
class Packed:
    """The window of a day: what is packed of each of its days, what each region's store lacks of it, and how fast the last copy there was."""

    read: dict[str, str]  # day -> digest of its dataset, absences listed
    missing: dict[str, int]  # region -> bytes
    rates: dict[str, float]  # region -> 10^6 bytes per second, where a copy was large enough to tell


def packed(store: Store, days: tuple[str, ...], regions: tuple[str, ...]) -> Packed:
    read: dict[str, str] = {}
    missing = dict.fromkeys(regions, 0)
    rates: dict[str, float] = {}
    for day in days:
        pointer = read_pointer(store, "curated_dataset", day)
        if pointer is None or not pointer.output.get("dataset"):
            read[day] = "absent" if pointer is None else "no data"
            continue
        read[day] = pointer.output_digest
        for region in regions:
            there = read_pointer(store, copies_in(region), day)
            if there is None or there.output.get("dataset") != pointer.output["dataset"]:
                missing[region] += pointer.counts.get("bytes", 0)
            if there and there.counts.get("bytes", 0) >= TELLING_BYTES and "copy_mb_per_s" in there.shown:
                rates[region] = float(there.shown["copy_mb_per_s"].value)
    return Packed(read, missing, rates)


def decision_of(id: str, root_run: str, plan: Plan, settings: PlacementSettings, terms: Mapping[str, Terms], moves: tuple[Move, ...] = ()) -> Decision:
    """The first of the plan's choices, as a decision. The plan has one."""
    first: Choice = plan.ranked[0]
    return Decision(
        id=id,
        root_run=root_run,
        target=first.target,
        region=first.region,
        store=settings.stores[first.region],
        launch=terms[first.target].launch,
        price=terms[first.target].price * settings.needs.count,
        copy_cost=first.copy_cost,
        cost=first.cost,
        moves=moves,
        ranked=tuple({**asdict(choice), "cost": choice.cost, "ends_s": choice.ends_s} for choice in plan.ranked),
        lost=tuple(asdict(loser) for loser in plan.lost),
    )
