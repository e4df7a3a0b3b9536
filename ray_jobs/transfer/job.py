"""Step "transfer": copy each day's dataset to the destination, resumable, and only what is new there.

What is to be read is frozen first, what is proven is passed over, the rest is carried by threads, over the nodes of a Ray cluster where
there are several. After a last look at counts and sizes, manifest.json goes last and is the mark that the dataset is whole.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ray_jobs.driver import Execution, peak_memory
from ray_jobs.packing.manifest import NAME, read_manifest
from ray_jobs.seam.configs import CopyConfig, CopySettings, DayDataset
from ray_jobs.seam.errors import DataError, NotFound, StoreError
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Entry, Store
from ray_jobs.transfer import receipts
from ray_jobs.transfer.budget import Allowance, Spent, cost_usd
from ray_jobs.transfer.carry import carry
from ray_jobs.transfer.copy import holds
from ray_jobs.transfer.meter import Meter, Totals, clocked
from ray_jobs.transfer.plan import Item, freeze, listing, named, strays
from ray_jobs.transfer.spread import nodes, spread

MB = 10**6
SAVE_S = 5.0  # how often it is written down what was read from the source, where that costs money


def run(config: CopyConfig, execution: Execution) -> dict[str, DayResult]:
    """One result per day. Content that is not what the manifest names, or no money left, fails its day alone; a failing store raises StoreError."""
    job = Job(Store(config.store), Store(config.destination), config.settings, execution)
    results = {}
    for day in config.days:
        dataset = config.datasets.get(day)
        if dataset is None:
            counts = {"objects": 0, "copied": 0, "skipped": 0, "bytes": 0}
            results[day] = DayResult(reason="no data", counts=counts, output={"dataset": None}, output_digest=digest(None))
            continue
        try:
            results[day] = job.copy(dataset)
        except (DataError, NotFound, Spent) as error:
            results[day] = DayResult(status="failed", reason=str(error))
    return results


@dataclass
class Job:
    """One execution. `read_bytes`: what it and the earlier executions of its base have read from the source."""

    source: Store
    destination: Store
    settings: CopySettings
    execution: Execution
    read_bytes: int = 0
    _saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.settings.egress_cap_usd is not None:
            self.read_bytes = sum(
                json.loads(data)["read_bytes"] for each in self.execution.siblings() if (data := self.execution.store.find(f"{each}/egress.json"))
            )
        self._before = self.read_bytes

    def copy(self, dataset: DayDataset) -> DayResult:
        """Copy what is not proven to be there. Whatever ends it early, the proofs so far are kept as receipts.

        Raises DataError (NotFound beside it) naming the object whose content is wrong or missing, budget.Spent, StoreError where a store fails.
        """
        started = time.monotonic()
        with ThreadPoolExecutor(2) as pool:  # the destination lists, which takes longest, while the rest is read
            listed = pool.submit(listing, self.destination, dataset.prefix)
            noted = pool.submit(receipts.read, self.destination, dataset.manifest_sha256)
            manifest, data = read_manifest(self.source, dataset)
            there, known = listed.result(), noted.result()
        items = named(dataset.prefix, manifest.files)
        todo = [item for item in items if not receipts.proven(item, there.get(item.key), known)]
        todo = freeze(self.source, dataset.prefix, todo) if todo else []
        progress = Progress(self.execution, self.settings, dataset.day, manifest.total_bytes, sum(item.size for item in todo))
        totals = self._carry(dataset, todo, there, known, progress) if todo else Totals()
        if todo:
            there = listing(self.destination, dataset.prefix)
        self._check(dataset, items, there, known)
        if self.destination.find(f"{dataset.prefix}/{NAME}") != data:
            self.destination.put(f"{dataset.prefix}/{NAME}", data)
        progress(totals)
        counts = {"objects": len(items), "copied": totals.copied, "skipped": len(items) - totals.copied, "bytes": totals.copied_bytes}
        shown = self._shown(dataset, manifest.total_bytes, len(items), len(todo), totals, time.monotonic() - started)
        return DayResult(counts=counts, output={"dataset": dataset.model_dump(mode="json")}, output_digest=dataset.manifest_sha256, shown=shown)

    def _carry(self, dataset: DayDataset, todo: list[Item], there: dict[str, Entry], known: set[receipts.Receipt], progress: "Progress") -> Totals:
        """Adds the proofs to `known`."""
        before, seen = self.read_bytes, Totals()

        def tell(totals: Totals) -> None:
            nonlocal seen
            seen = totals
            self.read_bytes = before + totals.read_bytes
            self._save(SAVE_S)
            progress(totals)

        count = nodes()
        try:
            if count > 1:
                made, seen = spread(self.source, self.destination, dataset.manifest_sha256, todo, there, self.settings, before, count, tell)
            else:
                meter = Meter(clocked(Allowance(self.settings, before)))
                try:
                    made = carry(self.source, self.destination, dataset.manifest_sha256, todo, there, self.settings.workers, meter, tell)
                finally:
                    seen = meter.totals
        finally:
            self.read_bytes = before + seen.read_bytes
            self._save(0.0)
        known |= made
        return seen

    def _save(self, every_s: float) -> None:
        if self.settings.egress_cap_usd is not None and time.monotonic() - self._saved >= every_s:
            self._saved = time.monotonic()
            self.execution.store.put(f"{self.execution.prefix}/egress.json", json.dumps({"read_bytes": self.read_bytes - self._before}).encode())

    def _check(self, dataset: DayDataset, items: list[Item], there: dict[str, Entry], known: set[receipts.Receipt]) -> None:
        """The last look before the manifest: every object there, of its size and as it was proven, and nothing else."""
        for item in items:
            entry = there.get(item.key)
            if entry is None or not (receipts.proven(item, entry, known) or holds(self.destination, entry, item)):
                what = "is gone" if entry is None else "is another object"
                raise StoreError(f"{self.destination.config.url}/{item.key} {what} since it was copied: does something else write there? Launch it again")
        if found := strays(dataset.prefix, items, there):
            where = f"{self.destination.config.url}/{found[0]}"
            raise DataError(f"{where} ({len(found)} such) is below the dataset and not in its manifest: delete it, readers could take it for data")

    def _shown(self, dataset: DayDataset, size: int, objects: int, todo: int, totals: Totals, seconds: float) -> dict[str, Shown]:
        proof = (
            f"**{objects}** objects, **{size:,}** bytes: each object's SHA-256 is the one in manifest `{dataset.manifest_sha256[:12]}`, "
            f"whose own is that of the packed day. {totals.copied} copied now and compared in flight, {todo - totals.copied} read back "
            f"at the destination, {objects - todo} proven before."
        )
        shown = {
            "proof": Shown(type="md", value=proof),
            "destination": Shown(type="text", value=f"{self.destination.config.url}/{dataset.prefix}"),
            "dataset_bytes": Shown(type="int", value=size),
            "copied_mb": Shown(type="float", value=round(totals.copied_bytes / MB, 3)),
            "egress_usd": Shown(type="float", value=round(cost_usd(totals.read_bytes, self.settings), 6)),
            "copy_seconds": Shown(type="float", value=round(seconds, 3)),
        }
        if totals.copied_bytes:
            shown["copy_mb_per_s"] = Shown(type="float", value=round(totals.copied_bytes / MB / seconds, 3))
        return shown


UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


class Progress:
    """Tells how one day's copy goes, in a unit of which it has at least ten, so that a watcher's line of whole numbers says something.

    A part that was read counts as done. `rate` is of what moves now; what was proven before counts as done and takes no time.
    """

    def __init__(self, execution: Execution, settings: CopySettings, day: str, total: int, todo: int):
        self._execution, self._settings, self._day = execution, settings, day
        self._total, self._todo, self._started = total, todo, time.monotonic()
        self._unit, self._bytes = next((each for each in UNITS if total >= 10 * each[1]), ("bytes", 1))

    def __call__(self, totals: Totals) -> None:
        seconds = time.monotonic() - self._started
        moved = min(self._todo, max(totals.read_bytes, totals.bytes))
        rate = moved / max(seconds, 1e-9)
        message = {
            "day": self._day,
            "stage": "copy",
            "done": round((self._total - self._todo + moved) / self._bytes, 3),
            "total": round(self._total / self._bytes, 3),
            "unit": self._unit,
            "elapsed_s": round(seconds, 1),
            "objects": totals.objects,
            "rate": round(rate / self._bytes, 3),
            "left_s": round((self._todo - moved) / rate, 1) if rate else None,
            "egress_usd": round(cost_usd(totals.read_bytes, self._settings), 6),
            "peak_memory_bytes": peak_memory(),
        }
        self._execution.report(message)
