"""Copy one object, or find it already right: constant memory, SHA-256 taken in flight and compared before anything is visible."""

import hashlib
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import obstore
from obstore import exceptions as failures

from ray_jobs.seam.errors import DataError, NotFound, StoreError
from ray_jobs.seam.store import PART_BYTES, Entry, Store, failure
from ray_jobs.transfer.meter import Meter
from ray_jobs.transfer.plan import PACK_AGAIN, Item

READ_AHEAD = 3  # parts of one large object that are read beside the one being hashed
WRITES_AT_ONCE = 2  # parts of one large object being written
MOST_PARTS = 10_000  # of one S3 multipart upload
ENDING_S = 600.0  # how long a store may put the parts of an upload together after the client has stopped waiting for it
LOOK_S = 2.0
LARGE = PART_BYTES  # an object of more bytes is read by ranges and written in parts


class Mismatch(DataError):
    """The bytes that arrived are not those of the manifest."""


def copy(source: Store, destination: Store, item: Item, meter: Meter) -> str:
    """Copy the object as frozen to the same key; the etag of what was written. Bytes that differ from the manifest never become visible.

    A difference, or an upload that the destination refuses as damaged, is tried once more, because it may have happened on the way. A write
    whose answer is lost is read back. Raises DataError where a difference stays or the source has changed since the plan, StoreError where a
    store fails.
    """
    stream = _large if item.size > LARGE else _small
    for last in (False, True):
        try:
            return stream(source, destination, item, meter)
        except Mismatch:
            if last:
                raise
        except WriteFailed as error:
            if (etag := _written_all_the_same(destination, item, meter, ENDING_S if error.ending else 0.0)) is not None:
                return etag
            if last or not error.damaged:
                raise
    raise AssertionError("the second attempt returns or raises")


class WriteFailed(StoreError):
    """The destination did not confirm the write. `damaged`: it says that the bytes did not arrive as they were sent.

    `ending`: it knows no such upload, or says that it has ended and shows no object. So an earlier request to end it still does: gigabytes take
    it longer than one request may. Seen of versitygw with 8 GiB.
    """

    damaged = False
    ending = False


def _small(source: Store, destination: Store, item: Item, meter: Meter) -> str:
    meter.lease(item.size, requests=2)
    with _reading(source, item):
        body = obstore.get(source.raw, item.key, options=_condition(item)).bytes()
    _compare(hashlib.sha256(body), len(body), source, item)
    with _writing(destination, item):
        written = obstore.put(destination.raw, item.key, body, use_multipart=False)
    return written["e_tag"] or ""


def _large(source: Store, destination: Store, item: Item, meter: Meter) -> str:
    seen, size = hashlib.sha256(), 0
    parts = _parts(source, item, meter)
    # Leaving the block with an error abandons the upload: nothing becomes visible.
    with _writing(destination, item):
        with obstore.open_writer(destination.raw, item.key, buffer_size=part_bytes(item.size), max_concurrency=WRITES_AT_ONCE) as writer:
            for part in parts:
                seen.update(part)
                size += len(part)
                writer.write(part)
            _compare(seen, size, source, item)
        return obstore.head(destination.raw, item.key)["e_tag"] or ""


def part_bytes(size: int) -> int:
    """Bytes of a part: 8 MiB, more only where there would be too many of them."""
    return max(PART_BYTES, -(-size // MOST_PARTS))


def _parts(source: Store, item: Item, meter: Meter) -> Iterator[Any]:
    """The object's parts in order, some of them under way at a time, each read on condition that the object is the one planned."""

    def read(start: int) -> Any:
        end = min(start + length, item.size)
        meter.lease(end - start, requests=2)
        with _reading(source, item):
            return obstore.get(source.raw, item.key, options={**_condition(item), "range": (start, end)}).bytes()

    length = part_bytes(item.size)
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        under_way: deque[Any] = deque()
        try:
            for start in range(0, item.size, length):
                under_way.append(pool.submit(read, start))
                if len(under_way) == READ_AHEAD:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _condition(item: Item) -> Any:
    return {"if_match": item.etag} if item.etag else {}


def _compare(seen: Any, size: int, source: Store, item: Item) -> None:
    if size != item.size or seen.hexdigest() != item.sha256:
        raise Mismatch(
            f"{source.config.url}/{item.key} does not have the content that its manifest names ({size} bytes read): nothing of it was published; {PACK_AGAIN}"
        )


def holds(store: Store, entry: Entry, item: Item) -> bool:
    """Read the object back and say whether it is the manifest's file. Raises StoreError."""
    if entry.size != item.size:
        return False
    seen = hashlib.sha256()
    try:
        for chunk in obstore.get(store.raw, entry.key).stream(min_chunk_size=PART_BYTES // 8):
            seen.update(chunk)
    except (failures.BaseError, OSError) as error:
        raise failure(error, "read", store.config, entry.key) from error
    return seen.hexdigest() == item.sha256


def _written_all_the_same(destination: Store, item: Item, meter: Meter, patience_s: float) -> str | None:
    """The etag of the object where it is the manifest's, or becomes it within that time: the write had succeeded and its answer was lost."""
    deadline, looked_at = time.monotonic() + patience_s, None
    while True:
        try:
            there = destination.head(item.key)
            if there.etag != looked_at and holds(destination, there, item):
                return there.etag
            looked_at = there.etag
        except NotFound:
            pass
        except StoreError:  # the write's own error says more
            return None
        if time.monotonic() >= deadline or meter.stopped.wait(LOOK_S):
            return None


@contextmanager
def _reading(source: Store, item: Item) -> Iterator[None]:
    try:
        yield
    except failures.PreconditionError as error:
        raise DataError(f"{source.config.url}/{item.key} changed while it was being copied: a dataset is immutable; {PACK_AGAIN}") from error
    except (failures.BaseError, OSError) as error:
        told = failure(error, "read", source.config, item.key)
        if isinstance(told, NotFound):
            raise DataError(f"{source.config.url}/{item.key} vanished while it was being copied: {PACK_AGAIN}") from error
        raise told from error


@contextmanager
def _writing(destination: Store, item: Item) -> Iterator[None]:
    try:
        yield
    except (failures.BaseError, OSError) as error:
        told = failure(error, "write", destination.config, item.key)
        if told.failure_class == "user":
            raise told from error
        failed = WriteFailed(str(told))
        failed.damaged = any(f"<Code>{code}</Code>" in str(error) for code in _DAMAGED)
        failed.ending = isinstance(told, NotFound)
        raise failed from error


_DAMAGED = ("BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest", "IncompleteBody")
