"""Reading a part of an object: what PyAV and pyarrow open and seek in, without fetching the rest."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ray_jobs.seam.store import Store

WHOLE_BYTES = 1 << 20  # an object up to this size comes with one request
AHEAD_BYTES = 1 << 20  # of a larger one, this much is fetched at a time


@contextmanager
def readable(store: Store, key: str) -> Iterator[str | BinaryIO]:
    """The object to read and seek in: its path in a local store, else a file. Raises StoreError (NotFound: no such object), now or when read."""
    size = store.head(key).size
    if store.root is not None:
        yield str(store.root / key)
    elif size <= WHOLE_BYTES:
        yield io.BytesIO(store.get(key))
    else:
        with io.BufferedReader(_Ranges(store, key, size), AHEAD_BYTES) as file:
            yield file


class _Ranges(io.RawIOBase):
    def __init__(self, store: Store, key: str, size: int) -> None:
        self._store, self._key, self._size, self._at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        length = min(len(target), self._size - self._at)
        if length <= 0:
            return 0
        target[:length] = self._store.get_range(self._key, self._at, length)
        self._at += length
        return length
