"""What is to be read, frozen: each file of the manifest with the version that the source has now. Light: a dataset may have a million files."""

from collections.abc import Iterable
from typing import NamedTuple

from ray_jobs.packing.manifest import NAME, ManifestFile
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Entry, Store

PACK_AGAIN = "delete the dataset's manifest.json there and pack the day again"


class Item(NamedTuple):
    """One object: path below the dataset, key in both stores, bytes, SHA-256 of the manifest, and the source's etag ("" where it has none)."""

    path: str
    key: str
    size: int
    sha256: str
    etag: str


def listing(store: Store, prefix: str) -> dict[str, Entry]:
    """Key -> object, of all that is below the folder."""
    return {entry.key: entry for entry in store.list(prefix + "/")}


def named(prefix: str, files: tuple[ManifestFile, ...]) -> list[Item]:
    """The manifest's files, of no version yet."""
    return [Item(file.path, f"{prefix}/{file.path}", file.size, file.sha256, "") for file in files]


def freeze(store: Store, prefix: str, items: list[Item]) -> list[Item]:
    """Each item with its version at the source. Raises DataError for one that is missing or has another size than the manifest says."""
    there = listing(store, prefix)
    frozen = []
    for item in items:
        entry = there.get(item.key)
        if entry is None:
            raise DataError(f"{store.config.url}/{item.key} is in the manifest and not in the store: {PACK_AGAIN}")
        if entry.size != item.size:
            raise DataError(f"{store.config.url}/{item.key} has {entry.size} bytes and the manifest says {item.size}: {PACK_AGAIN}")
        frozen.append(item._replace(etag=entry.etag))
    return frozen


def strays(prefix: str, items: Iterable[Item], there: Iterable[str]) -> list[str]:
    """Keys below the dataset's folder that its manifest does not name."""
    return sorted(set(there) - {item.key for item in items} - {f"{prefix}/{NAME}"})
