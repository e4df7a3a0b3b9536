"""Receipts: which destination objects were proven equal to the manifest, so that a rerun skips them and only them.

receipts/<manifest sha256>/<digest of the batch>.json in the destination. A receipt holds while the object still has the
size and etag that it had when its SHA-256 was compared.
"""

import threading

from pydantic import ValidationError

from ray_jobs.packing.manifest import ManifestFile
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.model import Strict, canonical, digest
from ray_jobs.seam.store import Entry, Store

BATCH = 64


class Receipt(Strict):
    path: str
    size: int
    sha256: str
    etag: str


class Batch(Strict):
    receipts: tuple[Receipt, ...]


def prefix(manifest_sha256: str) -> str:
    return f"receipts/{manifest_sha256}"


def read(store: Store, manifest_sha256: str) -> set[Receipt]:
    """Every receipt of this dataset; a file that is not one is no proof and is passed over."""
    found: set[Receipt] = set()
    for entry in store.list(prefix(manifest_sha256) + "/"):
        try:
            found.update(Batch.model_validate_json(store.get(entry.key)).receipts)
        except ValidationError:
            continue
    return found


def proven(file: ManifestFile, there: Entry | None, receipts: set[Receipt]) -> bool:
    """Whether the object at the destination is known to be the manifest's file."""
    return there is not None and there.size == file.size and receipt(file, there) in receipts


def receipt(file: ManifestFile, there: Entry) -> Receipt:
    return Receipt(path=file.path, size=file.size, sha256=file.sha256, etag=there.etag)


class Receipts:
    """Collects the proofs of one copy and writes them batch by batch. Safe to use from several threads."""

    def __init__(self, store: Store, manifest_sha256: str):
        self._store, self._prefix = store, prefix(manifest_sha256)
        self._waiting: list[Receipt] = []
        self._lock = threading.Lock()

    def add(self, made: Receipt) -> None:
        with self._lock:
            self._waiting.append(made)
            full = len(self._waiting) >= BATCH
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting. What cannot be written is kept, so that a later flush may."""
        with self._lock:
            batch, self._waiting = sorted(self._waiting, key=lambda item: item.path), []
        if not batch:
            return
        try:
            self._store.put(f"{self._prefix}/{digest(batch)[:32]}.json", canonical(Batch(receipts=tuple(batch))).encode())
        except StoreError:
            with self._lock:
                self._waiting += batch
            raise
