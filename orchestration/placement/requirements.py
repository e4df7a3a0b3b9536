"""What settings say about placement: the terms of a target, what training needs, links between regions, and what may be spent."""

from typing import Literal

from pydantic import Field

from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import StoreConfig

Topology = Literal["one_node", "any"]


class NewNode(Strict):
    """A node that the target's pool adds when a pod asks: seconds until it is there, and what it has."""

    seconds: float = Field(gt=0)
    accelerators: int = Field(ge=1)
    memory_gib: float = Field(gt=0)


class Terms(Strict):
    """`offer` of a target: what it has and what that costs. A target whose manifest chooses spot nodes is one offer, and one of on-demand nodes another."""

    region: str
    accelerator: str  # the kind, as `needs.hours` names it: H100
    resource: str = "nvidia.com/gpu"  # what Kubernetes counts: `cpu` where CPUs do the work
    price: float = Field(ge=0)  # USD per accelerator and hour
    reclaims_per_hour: float = Field(default=0.0, ge=0)  # how often spot nodes are taken away; 0 is on demand
    start_s: float = Field(default=120.0, ge=0)  # from create to the driver's first word, on nodes that are there
    wait_s: float = Field(default=3600.0, ge=0)  # expected in the queue where what is free does not suffice
    new_node: NewNode | None = None
    launch: dict[str, str] = {}  # asset -> target of what else of the day runs there; the same target where nothing is said


class Link(Strict):
    """What moving data from one region to another costs (USD per 10^9 bytes) and how fast it goes (10^6 bytes per second) until a copy has told."""

    source: str
    destination: str
    price_per_gb: float = Field(ge=0)
    mb_per_s: float = Field(gt=0)


class Needs(Strict):
    """What one training asks for. `hours`: accelerator kind -> how long it takes on `count` of them; kinds that are not named are not wanted."""

    hours: dict[str, float] = Field(min_length=1)
    count: int = Field(default=1, ge=1)
    memory_gib: float = Field(default=0.0, ge=0)  # per accelerator
    topology: Topology = "any"  # one_node: all accelerators in one machine
    deadline_hours: float = Field(default=24.0, gt=0)  # from the decision to the model
    redo_s: float = Field(default=600.0, ge=0)  # work that is lost each time a spot node is taken away


class PlacementSettings(Strict):
    """Without it nothing is placed: `launch` says where training runs, and `compute` is the store near it."""

    home: str  # the region of `store`, from which data is copied
    stores: dict[str, StoreConfig]  # region -> the store near it
    links: tuple[Link, ...] = ()
    needs: Needs
    max_cost: float = Field(gt=0)  # USD for one day: compute and copies, also those of offers that failed
    max_moves: int = Field(default=3, ge=0)  # from one offer to another, for one day
