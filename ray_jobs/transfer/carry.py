"""Copy many objects in the threads of one process, large and small beside each other."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from ray_jobs.seam.store import Entry, Store
from ray_jobs.transfer.copy import LARGE, copy, holds
from ray_jobs.transfer.meter import Meter, Stopped, Totals
from ray_jobs.transfer.plan import Item
from ray_jobs.transfer.receipts import Receipt, Receipts, receipt

TELL_S = 1.0
LARGE_AT_ONCE = 4  # each holds up to READ_AHEAD + WRITES_AT_ONCE + 1 parts in memory


def carry(
    source: Store,
    destination: Store,
    manifest_sha256: str,
    items: Iterable[Item],
    there: dict[str, Entry],
    workers: int,
    meter: Meter,
    tell: Callable[[Totals], None],
) -> set[Receipt]:
    """Copy each item, or prove that the object of that name is it. `there`: what the destination holds. `tell` is called once a second.

    Whatever ends it early, the proofs so far are kept. Raises DataError naming the object, StoreError, budget.Spent, and whatever `tell` raises.
    """
    proofs = Receipts(destination, manifest_sha256)

    def one(item: Item) -> None:
        present = there.get(item.key)
        if present is not None and holds(destination, present, item):
            proofs.add(receipt(item, present.etag))
            meter.proven(item.size, copied=False)
        else:
            proofs.add(receipt(item, copy(source, destination, item, meter)))
            meter.proven(item.size, copied=True)

    ordered = sorted(items, key=lambda item: -item.size)
    count = sum(item.size > LARGE for item in ordered)
    lanes = [_Lane(ordered[:count], one, meter)] * min(count, LARGE_AT_ONCE, max(1, workers // 2))
    lanes += [_Lane(ordered[count:], one, meter)] * min(len(ordered) - count, workers)
    try:
        _run(lanes, meter, tell)
    finally:
        proofs.flush()
    return proofs.all


class _Lane:
    """Several threads take one item after the other, until there is none or somebody stops them."""

    def __init__(self, items: list[Item], work: Callable[[Item], None], meter: Meter):
        self._items, self._work, self._meter, self._lock = iter(items), work, meter, threading.Lock()

    def __call__(self) -> None:
        while not self._meter.stopped.is_set():
            with self._lock:
                item = next(self._items, None)
            if item is None:
                return
            self._work(item)


def _run(lanes: list[_Lane], meter: Meter, tell: Callable[[Totals], None]) -> None:
    """The first error stops everything, and is raised."""
    if not lanes:
        return
    with ThreadPoolExecutor(len(lanes)) as pool:
        left = {pool.submit(lane) for lane in lanes}
        try:
            while left:
                done, left = wait(left, timeout=TELL_S, return_when=FIRST_EXCEPTION)
                for error in sorted((error for each in done if (error := each.exception())), key=lambda error: isinstance(error, Stopped)):
                    raise error
                tell(meter.totals)
        finally:
            meter.stopped.set()
