"""What is to be read, frozen: each file of the manifest with the version that the source has now. Light: a dataset may have a million files."""

from collections.abc import Iterable
from typing import NamedTuple

from ray_jobs.packing.manifest import NAME, ManifestFile
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Entry, Store


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


def freeze(store: Store, prefix: str, files: tuple[ManifestFile, ...]) -> list[Item]:
    """Each file with its version at the source. Raises DataError for one that is missing or has another size than the manifest says."""
    there = listing(store, prefix)
    frozen = []
    for file in files:
        key = f"{prefix}/{file.path}"
        entry = there.get(key)
        if entry is None:
            raise DataError(f"{store.config.url}/{key} is in the manifest and not in the store: pack the day again")
        if entry.size != file.size:
            raise DataError(f"{store.config.url}/{key} has {entry.size} bytes and the manifest says {file.size}: pack the day again")
        frozen.append(Item(file.path, key, file.size, file.sha256, entry.etag))
    return frozen


def strays(prefix: str, items: Iterable[Item], there: Iterable[str]) -> list[str]:
    """Keys below the dataset's folder that its manifest does not name."""
    return sorted(set(there) - {item.key for item in items} - {f"{prefix}/{NAME}"})
