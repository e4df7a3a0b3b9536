"""Step "transfer": copy each day's dataset to the destination, resumable, and only what is new there.

Worker threads stream the objects; manifest.json goes last and is the mark that the dataset is whole.
"""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from ray_jobs.driver import Execution
from ray_jobs.packing.manifest import NAME, ManifestFile, read_manifest
from ray_jobs.seam.configs import CopyConfig, DayDataset
from ray_jobs.seam.errors import DataError, NotFound
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Entry, Store
from ray_jobs.transfer import receipts
from ray_jobs.transfer.copy import copy, holds, plan

REPORT_EVERY = 50


def run(config: CopyConfig, execution: Execution) -> dict[str, DayResult]:
    """One result per day. Content that is not what the manifest names fails its day alone; a failing store raises StoreError."""
    source, destination = Store(config.store), Store(config.destination)
    results = {}
    for day in config.days:
        dataset = config.datasets.get(day)
        if dataset is None:
            counts = {"objects": 0, "copied": 0, "skipped": 0, "bytes": 0}
            results[day] = DayResult(reason="no data", counts=counts, output={"dataset": None}, output_digest=digest(None))
            continue
        try:
            report = _reporter(execution, day)
            results[day] = copy_dataset(source, destination, dataset, config.settings.workers, report)
        except (DataError, NotFound) as error:
            results[day] = DayResult(status="failed", reason=str(error))
    return results


def _reporter(execution: Execution, day: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done % REPORT_EVERY == 0 or done == total:
            execution.progress(day, "copy", done, total, unit="objects")

    return report


def copy_dataset(source: Store, destination: Store, dataset: DayDataset, workers: int, report: Callable[[int, int], None]) -> DayResult:
    """Copy what is not proven to be there. Whatever ends it early, the proofs so far are kept as receipts.

    Raises DataError (NotFound beside it) naming the object whose content is wrong or missing, StoreError where a store fails.
    """
    manifest, data = read_manifest(source, dataset)
    frozen = plan(source, dataset.prefix, manifest.files)
    there = {entry.key: entry for entry in destination.list(dataset.prefix + "/")}
    known = receipts.read(destination, dataset.manifest_sha256)
    todo = [(file, entry) for file, entry in frozen if not receipts.proven(file, there.get(entry.key), known)]
    proofs = receipts.Receipts(destination, dataset.manifest_sha256)
    progress = _Progress(len(frozen), len(frozen) - len(todo), report)

    def one(item: tuple[ManifestFile, Entry]) -> None:
        file, entry = item
        if progress.stopped.is_set():
            return
        present = there.get(entry.key)
        skipped = present is not None and holds(destination, present, file)
        if not skipped:
            copy(source, entry, destination, file)
            present = destination.head(entry.key)
        assert present is not None
        proofs.add(receipts.receipt(file, present))
        progress.step(None if skipped else file.size)

    try:
        _all(one, todo, workers, progress.stopped)
    finally:
        proofs.flush()
    if destination.find(f"{dataset.prefix}/{NAME}") != data:
        destination.put(f"{dataset.prefix}/{NAME}", data)
    counts = {"objects": len(frozen), "copied": progress.copied, "skipped": len(frozen) - progress.copied, "bytes": progress.bytes}
    shown = {
        "destination": Shown(type="text", value=f"{destination.config.url}/{dataset.prefix}"),
        "dataset_bytes": Shown(type="int", value=manifest.total_bytes),
    }
    return DayResult(counts=counts, output={"dataset": dataset.model_dump(mode="json")}, output_digest=dataset.manifest_sha256, shown=shown)


def _all(work: Callable[[tuple[ManifestFile, Entry]], None], items: list[tuple[ManifestFile, Entry]], workers: int, stopped: threading.Event) -> None:
    """Run the work in threads; the first error stops what has not begun, and is raised."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            stopped.set()


class _Progress:
    """Counts of one copy, kept under a lock."""

    def __init__(self, total: int, done: int, report: Callable[[int, int], None]):
        self.total, self.done, self.copied, self.bytes = total, done, 0, 0
        self.stopped = threading.Event()
        self._report, self._lock = report, threading.Lock()

    def step(self, size: int | None) -> None:
        """One more object proven; size is None where it was there already."""
        with self._lock:
            self.done += 1
            self.copied += size is not None
            self.bytes += size or 0
            self._report(self.done, self.total)
