"""One small way to objects, over obstore: a local folder, S3 and compatibles, GCS or Azure by URL."""

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlparse

import obstore
from obstore import exceptions as failures
from obstore.store import LocalStore, from_url

from ray_jobs.seam.errors import Denied, NotFound, StoreError, UserError
from ray_jobs.seam.model import Strict

PART_BYTES = 8 * 1024 * 1024
READ_BYTES = 1024 * 1024  # at least, where a reader of an object asks for the next
RETRY: dict[str, Any] = {"max_retries": 10, "retry_timeout": timedelta(seconds=120)}  # of one request, by the client; then it is a StoreError
REQUEST_S = 30  # a request that is not over by then is begun again where it stopped


class StoreConfig(Strict):
    """Where a store is. Secrets never stand here: `credentials` names a prefix of environment variables.

    With credentials="ROBOTS" the variables ROBOTS_… are read where the store is opened: for s3:// ROBOTS_ACCESS_KEY_ID and
    ROBOTS_SECRET_ACCESS_KEY (and ROBOTS_SESSION_TOKEN if set), for gs:// ROBOTS_SERVICE_ACCOUNT_KEY (its JSON), for az://
    ROBOTS_ACCOUNT_NAME and ROBOTS_ACCOUNT_KEY or ROBOTS_SAS_KEY. Without it the client's own chain applies (instance role,
    AWS_*, GOOGLE_*, AZURE_*).
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    credentials: str | None = None

    @classmethod
    def local(cls, path: str | Path) -> "StoreConfig":
        return cls(url=Path(path).resolve().as_uri())


@dataclass(frozen=True, slots=True)
class Entry:
    """One listed object: key, size in bytes, etag, last change in ns since 1970 UTC. Light, for listings of a million keys."""

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
        except (failures.BaseError, OSError) as error:
            raise failure(error, verb, self.config, key) from error

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

    def create(self, key: str, data: bytes) -> bool:
        """Write the object where there is none. -> whether it is these bytes that stand there now, be it from an earlier try whose reply was lost.

        One of several writers gets it (If-None-Match on S3 and its like). It is read back, since a gateway to a file system
        may let two of them through, of whom the last counts.
        """
        with self._told("write", key), suppress(failures.AlreadyExistsError):
            obstore.put(self._store, key, data, mode="create", use_multipart=False)
        return self.get(key) == data

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

    def folders(self, folder: str) -> tuple[str, ...]:
        """Names of the folders right below it, sorted; what is in them is not listed."""
        with self._told("list", folder):
            names = obstore.list_with_delimiter(self._store, prefix=folder)["common_prefixes"]
        return tuple(sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in names))

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

    @contextmanager
    def opened(self, key: str) -> Iterator[Path | BinaryIO]:
        """The file itself in a local store, else a seekable reader that fetches only what is asked for. Both have a `name`."""
        if self.root is not None:
            with self.local_copy(key) as path:
                yield path
            return
        with io.BufferedReader(_Ranged(self, key), READ_BYTES) as reader:
            yield cast(BinaryIO, reader)

    def free_bytes(self) -> int | None:
        """Free space where that is known (a local folder), else None."""
        return shutil.disk_usage(self.root).free if self.root is not None else None

    @property
    def raw(self) -> Any:
        """The obstore store itself, for the bulk copy."""
        return self._store


class _Ranged(io.RawIOBase):
    """An object read by ranges."""

    def __init__(self, store: Store, key: str):
        self._store, self.name, self._size, self._place = store, key, store.head(key).size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._place))
        if length:
            buffer[:length] = self._store.get_range(self.name, self._place, length)
        self._place += length
        return length


# Scheme -> option of the client -> end of the variable's name. The options of the first group are all needed, of the second one at least.
_CREDENTIALS: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str]]] = {
    "s3": ({"access_key_id": "ACCESS_KEY_ID", "secret_access_key": "SECRET_ACCESS_KEY"}, {}, {"session_token": "SESSION_TOKEN"}),
    "gs": ({"service_account_key": "SERVICE_ACCOUNT_KEY"}, {}, {}),
    "az": ({"account_name": "ACCOUNT_NAME"}, {"account_key": "ACCOUNT_KEY", "sas_key": "SAS_KEY"}, {}),
}


def _remote_options(config: StoreConfig) -> dict[str, Any]:
    scheme = urlparse(config.url).scheme
    options: dict[str, Any] = {"retry_config": RETRY, "client_options": {"timeout": timedelta(seconds=REQUEST_S)}}
    if config.endpoint:
        options["base_url" if scheme == "gs" else "endpoint"] = config.endpoint
        if config.endpoint.startswith("http://"):
            options["client_options"]["allow_http"] = True
    if config.region:
        options["region"] = config.region
    if scheme == "s3":
        options["checksum_algorithm"] = "SHA256"  # kept by the store with the object, of each part too; it is computed for the signature anyway
    if config.credentials:
        if scheme not in _CREDENTIALS:
            raise UserError(f"the store {config.url} has credentials, which are for {', '.join(f'{name}://' for name in _CREDENTIALS)}: remove them")
        options |= _credentials(config, *_CREDENTIALS[scheme])
    return options


def _credentials(config: StoreConfig, needed: dict[str, str], one_of: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    variables = {option: f"{config.credentials}_{end}" for option, end in (needed | one_of | more).items()}
    found = {option: value for option, name in variables.items() if (value := os.environ.get(name))}
    for option in needed:
        if option not in found:
            raise UserError(f"the store {config.url} wants {variables[option]} in the environment, and it is not set")
    if one_of and not one_of.keys() & found.keys():
        raise UserError(f"the store {config.url} wants {' or '.join(variables[option] for option in one_of)} in the environment, and none is set")
    return found


def failure(error: Exception, verb: str, config: StoreConfig, key: str) -> StoreError:
    """The client's error as one line that names the object, says what is wrong, and what to do where that is known."""
    what, code = f"cannot {verb} {config.url}/{key}", _code(str(error))
    keys = f"{config.credentials}_…" if config.credentials else "the client's own (AWS_*, GOOGLE_*, AZURE_*, or the instance's role)"
    if code == "RequestTimeTooSkewed":
        return Denied(f"{what}: the clock of this machine and that of the store differ by more than 15 minutes: set this machine's (NTP)")
    if code in ("ExpiredToken", "TokenRefreshRequired", "RequestExpired"):
        return StoreError(f"{what}: the credentials have expired ({code}): renew {keys}; what is done stays, a new attempt reads them again")
    if isinstance(error, failures.PermissionDeniedError | failures.UnauthenticatedError) or code in _REFUSED:
        return Denied(f"{what}: the store refuses the credentials{f' ({code})' if code else ''}: correct {keys}, or what they are allowed to do")
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return Denied(f"{what}: there is no such bucket: make it, or correct the store's url")
    if isinstance(error, failures.NotFoundError | FileNotFoundError):
        return NotFound(f"{what}: no such object")
    if code in ("InsufficientStorage", "QuotaExceeded") or "No space left" in str(error):
        return StoreError(f"{what}: the store is full: make room there and launch it again, what is written stays")
    return StoreError(f"{what}: {_first_line(error)}")


_REFUSED = frozenset(
    # of S3, of Azure, and of versitygw
    {"AccessDenied", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"} | {"AuthenticationFailed", "AuthorizationFailure"} | {"XAdminUserNotFound"}
)


def _entry(meta: Any) -> Entry:
    modified_ns = int(meta["last_modified"].timestamp() * 1e6) * 1000
    return Entry(key=meta["path"], size=meta["size"], etag=meta.get("e_tag") or "", modified_ns=modified_ns)


def _first_line(error: BaseException) -> str:
    """The client's text without its debugging output, of a server's answer only its status and code."""
    text = str(error).strip() or type(error).__name__
    if not (answer := re.search(r"non-2xx status code: (\d{3}[A-Za-z ]*)", text)):
        return text.splitlines()[0][:300]
    retries = re.search(r"after (\d+) retries", text)
    return (
        f"the store answers {answer.group(1).strip()}{f' ({code})' if (code := _code(text)) else ''}{f' after {retries.group(1)} retries' if retries else ''}"
    )


def _code(text: str) -> str:
    """Of an S3 error."""
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found.group(1) if found else ""
