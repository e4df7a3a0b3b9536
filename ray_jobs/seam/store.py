"""One small way to objects, over obstore: a local folder, S3 and compatibles, GCS or Azure by URL."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import obstore
from obstore import exceptions as failures
from obstore.store import LocalStore, from_url

from ray_jobs.seam.errors import NotFound, StoreError, UserError
from ray_jobs.seam.model import Strict

PART_BYTES = 8 * 1024 * 1024


class StoreConfig(Strict):
    """Where a store is. Secrets never stand here: `credentials` names a prefix of environment variables.

    With credentials="ROBOTS", ROBOTS_ACCESS_KEY_ID and ROBOTS_SECRET_ACCESS_KEY (and ROBOTS_SESSION_TOKEN if set) are
    read where the store is opened; without it the client's own chain (instance role, AWS_*) applies.
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    credentials: str | None = None

    @classmethod
    def local(cls, path: str | Path) -> "StoreConfig":
        return cls(url=Path(path).resolve().as_uri())


class Entry(Strict):
    """One listed object: key, size in bytes, etag, last change in ns since 1970 UTC."""

    key: str
    size: int
    etag: str
    modified_ns: int


class Store:
    """Objects under one URL. Every failure is a StoreError of one line (NotFound where the key is absent)."""

    def __init__(self, config: StoreConfig):
        self.config = config
        parsed = urlparse(config.url)
        self.root: Path | None = None
        try:
            if parsed.scheme == "file":
                self.root = Path(unquote(parsed.path))
                self.root.mkdir(parents=True, exist_ok=True)
                self._store: Any = LocalStore(self.root)
            else:
                self._store = from_url(config.url, **_remote_options(config))
        except OSError as error:
            raise StoreError(f"cannot open the store {config.url}: {error.strerror}; make it writable or change its url") from error
        except (failures.BaseError, ValueError) as error:
            raise UserError(f"the store url {config.url!r} is not understood: {_first_line(error)}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return (Store, (self.config,))

    @contextmanager
    def _told(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except (failures.NotFoundError, FileNotFoundError) as error:
            raise NotFound(f"cannot {verb} {self.config.url}/{key}: no such object") from error
        except (failures.BaseError, OSError) as error:
            raise StoreError(f"cannot {verb} {self.config.url}/{key}: {_first_line(error)}") from error

    def get(self, key: str) -> bytes:
        with self._told("read", key):
            return bytes(obstore.get(self._store, key).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._told("read", key):
            return bytes(obstore.get_range(self._store, key, start=start, length=length))

    def find(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""
        try:
            return self.get(key)
        except NotFound:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write the whole object; readers see the old bytes or the new ones, never a part."""
        with self._told("write", key):
            obstore.put(self._store, key, data)

    def put_file(self, key: str, path: str | Path) -> None:
        """Write a local file as an object, in constant memory."""
        with self._told("write", key), open(path, "rb") as source:
            obstore.put(self._store, key, source, chunk_size=PART_BYTES)

    def head(self, key: str) -> Entry:
        with self._told("stat", key):
            return _entry(obstore.head(self._store, key))

    def exists(self, key: str) -> bool:
        try:
            self.head(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every object whose key starts with the folder `prefix`, in no promised order."""
        with self._told("list", prefix):
            for batch in obstore.list(self._store, prefix=prefix or None):
                for meta in batch:
                    yield _entry(meta)

    def delete(self, key: str) -> None:
        """Remove the object; absent is fine."""
        try:
            with self._told("delete", key):
                obstore.delete(self._store, key)
        except NotFound:
            return

    @contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """A local path with the object's bytes: the file itself in a local store, else a temporary copy. Read only."""
        if self.root is not None:
            path = self.root / key
            if not path.is_file():
                raise NotFound(f"cannot read {self.config.url}/{key}: no such object")
            yield path
            return
        with tempfile.NamedTemporaryFile(suffix=Path(key).suffix) as target:
            with self._told("read", key):
                for chunk in obstore.get(self._store, key).stream(min_chunk_size=PART_BYTES):
                    target.write(bytes(chunk))
                target.flush()
            yield Path(target.name)

    def free_bytes(self) -> int | None:
        """Free space where that is known (a local folder), else None."""
        return shutil.disk_usage(self.root).free if self.root is not None else None

    @property
    def raw(self) -> Any:
        """The obstore store itself, for the bulk copy."""
        return self._store


def _remote_options(config: StoreConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if config.endpoint:
        options["endpoint"] = config.endpoint
        if config.endpoint.startswith("http://"):
            options["client_options"] = {"allow_http": True}
    if config.region:
        options["region"] = config.region
    if config.credentials:
        for name, variable in (("access_key_id", "ACCESS_KEY_ID"), ("secret_access_key", "SECRET_ACCESS_KEY")):
            value = os.environ.get(f"{config.credentials}_{variable}")
            if not value:
                raise UserError(f"the store {config.url} wants {config.credentials}_{variable} in the environment, and it is not set")
            options[name] = value
        if token := os.environ.get(f"{config.credentials}_SESSION_TOKEN"):
            options["session_token"] = token
    return options


def _entry(meta: Any) -> Entry:
    modified_ns = int(meta["last_modified"].timestamp() * 1e6) * 1000
    return Entry(key=meta["path"], size=meta["size"], etag=meta.get("e_tag") or "", modified_ns=modified_ns)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
