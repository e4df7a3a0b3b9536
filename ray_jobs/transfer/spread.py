"""The same copy over the nodes of a Ray cluster: a task per share of the objects, and one actor that all of them ask before they read."""

import functools
import os
import time
from collections.abc import Callable
from typing import Any

from ray_jobs.driver import connect
from ray_jobs.seam.configs import CopySettings
from ray_jobs.seam.errors import DataError, Denied, FlywheelError, StoreError
from ray_jobs.seam.store import Entry, Store
from ray_jobs.transfer.budget import Allowance, Spent
from ray_jobs.transfer.carry import TELL_S, carry
from ray_jobs.transfer.meter import Meter, Stopped, Totals
from ray_jobs.transfer.plan import Item
from ray_jobs.transfer.receipts import Receipt

SHARES = 4  # per node: a node that is faster than another takes more of them


def nodes() -> int:
    """Nodes of the cluster that this job runs on; 1 where it was launched on none, and then no Ray is started."""
    if not os.environ.get("RAY_ADDRESS"):
        return 1
    connect()
    import ray

    return max(1, sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes()))


class Gate:
    """Becomes the actor. Errors are answers here: Ray keeps no cause of an exception."""

    def __init__(self, settings: CopySettings, spent_bytes: int):
        self._allowance = Allowance(settings, spent_bytes)
        self._told: dict[int, Totals] = {}
        self._stopped = False

    def take(self, size: int, requests: int) -> float | str:
        try:
            return self._allowance.take(size, requests, time.monotonic())
        except Spent as error:
            return str(error)

    def tell(self, share: int, totals: Totals) -> bool:
        """Whether to go on."""
        self._told[share] = totals
        return not self._stopped

    def totals(self) -> Totals:
        return functools.reduce(Totals.plus, self._told.values(), Totals())

    def stop(self) -> None:
        self._stopped = True


def shares(items: list[Item], count: int) -> list[list[Item]]:
    """The items in at most so many parts of about equal bytes and objects, each with large and small ones."""
    ordered = sorted(items, key=lambda item: -item.size)
    return [part for start in range(count) if (part := ordered[start::count])]


def spread(
    source: Store,
    destination: Store,
    manifest_sha256: str,
    items: list[Item],
    there: dict[str, Entry],
    settings: CopySettings,
    spent_bytes: int,
    nodes: int,
    tell: Callable[[Totals], None],
) -> tuple[set[Receipt], Totals]:
    """`carry` over the nodes. A share that is lost with its node is not tried again here: the next attempt knows what it had proven."""
    import ray

    gate: Any = ray.remote(num_cpus=0)(Gate).remote(settings, spent_bytes)
    task = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_share)
    parts = shares(items, nodes * SHARES)
    limited = Allowance(settings).limited
    common = (limited, source, destination, manifest_sha256, settings.workers)
    waiting = []
    for number, part in enumerate(parts):
        present = {item.key: there[item.key] for item in part if item.key in there}
        waiting.append(task.remote(gate, number, part, present, *common))
    proofs: set[Receipt] = set()
    failed: FlywheelError | None = None
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=TELL_S)
            for made, error in ray.get(done):
                proofs |= made
                if error is not None and failed is None:
                    failed = _error(*error)
                    ray.get(gate.stop.remote())  # the other shares end within a second, and keep what they have proven
            tell(ray.get(gate.totals.remote()))
        totals: Totals = ray.get(gate.totals.remote())
    finally:
        ray.kill(gate)
    if failed is not None:
        raise failed
    return proofs, totals


def _share(
    gate: Any, number: int, items: list[Item], there: dict[str, Entry], limited: bool, source: Store, destination: Store, sha256: str, workers: int
) -> tuple[set[Receipt], tuple[str, str] | None]:
    """-> what it has proven, and the kind and text of the error that ended it."""
    import ray

    def take(size: int, requests: int) -> float:
        if not limited:
            return 0.0
        answer: float | str = ray.get(gate.take.remote(size, requests))
        if isinstance(answer, str):
            raise Spent(answer)
        return answer

    def tell(totals: Totals) -> None:
        if not ray.get(gate.tell.remote(number, totals)):
            raise Stopped

    meter = Meter(take)
    try:
        proofs = carry(source, destination, sha256, items, there, workers, meter, tell)
        return proofs, None
    except Stopped:
        return set(), None
    except FlywheelError as error:
        return set(), (type(error).__name__, str(error))
    finally:
        ray.get(gate.tell.remote(number, meter.totals))


def _error(kind: str, message: str) -> FlywheelError:
    known: dict[str, type[FlywheelError]] = {"Spent": Spent, "Mismatch": DataError, "DataError": DataError, "Denied": Denied}
    return known.get(kind, StoreError)(message)
