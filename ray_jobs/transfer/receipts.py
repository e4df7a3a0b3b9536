"""Receipts: which destination objects were proven equal to the manifest, so that a rerun skips them and only them.

receipts/<manifest sha256>/<digest of the batch>.json in the destination. A receipt holds while the object still has the
size and etag that it had when its SHA-256 was compared.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pydantic import ValidationError

from ray_jobs.seam import layout
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.model import Strict, canonical, digest
from ray_jobs.seam.store import Entry, Store
from ray_jobs.transfer.plan import Item

BATCH = 1000  # receipts of one file
BATCH_S = 2.0  # what a killed copy loses at most
READS_AT_ONCE = 16


class Receipt(NamedTuple):
    path: str
    size: int
    sha256: str
    etag: str


class Batch(Strict):
    receipts: tuple[Receipt, ...]


def read(store: Store, manifest_sha256: str) -> set[Receipt]:
    """Every receipt of this dataset; a file that is not one is no proof and is passed over."""

    def one(entry: Entry) -> tuple[Receipt, ...]:
        try:
            return Batch.model_validate_json(store.get(entry.key)).receipts
        except ValidationError:
            return ()

    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        return {receipt for batch in pool.map(one, store.list(layout.receipts_prefix(manifest_sha256) + "/")) for receipt in batch}


def proven(item: Item, there: Entry | None, receipts: set[Receipt]) -> bool:
    """Whether the object at the destination is known to be the manifest's file. An object without an etag never is."""
    return there is not None and there.etag != "" and there.size == item.size and receipt(item, there.etag) in receipts


def receipt(item: Item, etag: str) -> Receipt:
    return Receipt(item.path, item.size, item.sha256, etag)


class Receipts:
    """Collects the proofs of one copy and writes them batch by batch. Safe to use from several threads."""

    def __init__(self, store: Store, manifest_sha256: str):
        self.all: set[Receipt] = set()
        self._store, self._prefix = store, layout.receipts_prefix(manifest_sha256)
        self._waiting: list[Receipt] = []
        self._lock, self._flushed = threading.Lock(), time.monotonic()

    def add(self, made: Receipt) -> None:
        with self._lock:
            self.all.add(made)
            self._waiting.append(made)
            due = len(self._waiting) >= BATCH or time.monotonic() - self._flushed >= BATCH_S
        if due:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting. What cannot be written is kept, so that a later flush may."""
        with self._lock:
            batch, self._waiting, self._flushed = sorted(self._waiting), [], time.monotonic()
        if not batch:
            return
        try:
            self._store.put(f"{self._prefix}/{digest(batch)[:32]}.json", canonical(Batch(receipts=tuple(batch))).encode())
        except StoreError:
            with self._lock:
                self._waiting += batch
            raise
