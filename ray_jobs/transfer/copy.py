"""Copy one object, or find it already right: streamed in constant memory, SHA-256 taken in flight and compared before it is visible."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import obstore
from obstore import exceptions as failures

from ray_jobs.packing.manifest import ManifestFile
from ray_jobs.seam.errors import DataError, StoreError
from ray_jobs.seam.store import PART_BYTES, Entry, Store

Outcome = Literal["copied", "skipped"]
WRITES_AT_ONCE = 2  # parts of one large object under way: workers * (this + 1) * PART_BYTES bounds the memory


class Mismatch(DataError):
    """The bytes that arrived are not those of the manifest."""


def plan(store: Store, prefix: str, files: tuple[ManifestFile, ...]) -> list[tuple[ManifestFile, Entry]]:
    """Freeze what is to be read: each file with its size and etag now.

    Raises DataError for a source object that is missing or has another size than the manifest says.
    """
    there = {entry.key: entry for entry in store.list(prefix + "/")}
    frozen = []
    for file in files:
        key = f"{prefix}/{file.path}"
        entry = there.get(key)
        if entry is None:
            raise DataError(f"{store.config.url}/{key} is in the manifest and not in the store: pack the day again")
        if entry.size != file.size:
            raise DataError(f"{store.config.url}/{key} has {entry.size} bytes and the manifest says {file.size}: pack the day again")
        frozen.append((file, entry))
    return frozen


def copy(source: Store, entry: Entry, destination: Store, file: ManifestFile) -> None:
    """Stream the object as frozen in `entry` to the same key. Bytes that differ from the manifest never become visible.

    A difference is tried once more, because it may have happened on the way. Raises DataError where it stays, or where the
    source changed since the plan; StoreError where a store fails.
    """
    for last in (False, True):
        try:
            _stream(source, entry, destination, file)
            return
        except Mismatch:
            if last:
                raise


def _stream(source: Store, entry: Entry, destination: Store, file: ManifestFile) -> None:
    seen = hashlib.sha256()
    chunks = _chunks(source, entry, seen)
    with _told("write", destination, entry.key):
        if file.size <= PART_BYTES:
            body = b"".join(chunks)
            _compare(seen, len(body), source, entry, file)
            obstore.put(destination.raw, entry.key, body)
            return
        # Leaving the block with an error abandons the upload: nothing becomes visible.
        with obstore.open_writer(destination.raw, entry.key, buffer_size=PART_BYTES, max_concurrency=WRITES_AT_ONCE) as writer:
            size = 0
            for chunk in chunks:
                size += writer.write(chunk)
            _compare(seen, size, source, entry, file)


def _chunks(source: Store, entry: Entry, seen: Any) -> Iterator[bytes]:
    with _told("read", source, entry.key):
        options: Any = {"if_match": entry.etag} if entry.etag else {}
        for chunk in obstore.get(source.raw, entry.key, options=options).stream(min_chunk_size=PART_BYTES // 8):
            data = bytes(chunk)
            seen.update(data)
            yield data


def _compare(seen: Any, size: int, source: Store, entry: Entry, file: ManifestFile) -> None:
    if size != file.size or seen.hexdigest() != file.sha256:
        raise Mismatch(
            f"{source.config.url}/{entry.key} does not have the content that its manifest names ({size} bytes read): "
            "delete it and pack the day again; nothing of it was published"
        )


def holds(destination: Store, entry: Entry, file: ManifestFile) -> bool:
    """Read the destination's object and say whether it is the manifest's file."""
    if entry.size != file.size:
        return False
    seen = hashlib.sha256()
    for _ in _chunks(destination, entry, seen):
        pass
    return bool(seen.hexdigest() == file.sha256)


@contextmanager
def _told(verb: str, store: Store, key: str) -> Iterator[None]:
    try:
        yield
    except failures.PreconditionError as error:
        raise DataError(f"{store.config.url}/{key} changed while it was being copied: a dataset is immutable, pack the day again") from error
    except (failures.NotFoundError, FileNotFoundError) as error:
        raise DataError(f"{store.config.url}/{key} vanished while it was being copied: pack the day again") from error
    except (failures.BaseError, OSError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise StoreError(f"cannot {verb} {store.config.url}/{key}: {text}") from error
