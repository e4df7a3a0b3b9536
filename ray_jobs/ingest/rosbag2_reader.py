"""ROS 2 bags: a folder of metadata.yaml and storage files (SQLite or MCAP, split, compressed), or a lone .db3 file."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
import zstandard
from mcap.records import Message

from ray_jobs.ingest.joined import bag_files, episodes_of_files
from ray_jobs.ingest.log import Log, Record, Survey
from ray_jobs.ingest.mcap_file import peeked, ranged
from ray_jobs.ingest.mcap_reader import McapLog
from ray_jobs.ingest.reader import Recorded, Refused, Upload, UploadFacts, spanned
from ray_jobs.ingest.sqlite_file import MAGIC, SqliteLog
from ray_jobs.seam.configs import IngestSettings, Limits
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Entry, Store

METADATA = "metadata.yaml"
LARGEST_METADATA = 16 << 20
PEEK_BYTES = 256 << 20  # a remote database up to this size is fetched to learn its times


class ZstdMessages:
    """A log whose messages are compressed one by one (rosbag2's compression mode MESSAGE)."""

    def __init__(self, log: Log, limits: Limits):
        self.log, self.limits = log, limits

    def survey(self) -> Survey:
        return self.log.survey()

    def records(self, losses: list[str]) -> Iterator[Record]:
        lost, first = 0, ""
        for record in self.log.records(losses):
            if isinstance(record, Message):
                try:
                    record.data = _unpacked(record.data, self.limits)
                except (zstandard.ZstdError, ValueError) as error:
                    lost, first = lost + 1, first or str(error)
                    continue
            yield record
        if lost:
            losses.append(f"{lost} messages could not be unpacked, the first: {first}")


def _unpacked(data: bytes, limits: Limits) -> bytes:
    largest = limits.message_mb << 20
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        found = bytearray()
        while part := reader.read(1 << 20):
            found += part
            if len(found) > largest:
                raise ValueError(f"it unpacks to more than limits.message_mb ({limits.message_mb})")
    return bytes(found)


class Rosbag2Reader:
    name = "rosbag2"
    folder_marker: str | None = None  # which folders are bags: gather.py

    def recognises(self, upload: Upload, head: bytes) -> bool:
        keys = {entry.key for entry in upload.files}
        return head.startswith(MAGIC) or (upload.path not in keys and upload.key(METADATA) in keys)

    def peek(self, store: Store, upload: Upload) -> UploadFacts:
        try:
            information = _metadata(store, upload)
        except DataError:
            information = {}
        try:
            start_ns, length_ns = int(information["starting_time"]["nanoseconds_since_epoch"]), int(information["duration"]["nanoseconds"])
        except (KeyError, TypeError, ValueError):
            return _times(store, upload)
        if not 0 < start_ns < 1 << 62 or not 0 <= length_ns < 1 << 62 or not information.get("message_count"):
            return UploadFacts()
        return UploadFacts(start_ns=start_ns, end_ns=start_ns + length_ns)

    def read(self, store: Store, upload: Upload, settings: IngestSettings) -> Iterator[Recorded | Refused]:
        try:
            information, notes = _metadata(store, upload), []
        except DataError as error:
            information, notes = {}, [str(error)]
        files = _storage(upload)
        keys = {entry.key for entry in upload.files}
        missing = [name for name in (PurePosixPath(str(name)).name for name in information.get("relative_file_paths", ())) if upload.key(name) not in keys]
        notes += [f"metadata.yaml names files that are not there: {', '.join(missing[:4])}"] if missing else []
        compressed = str(information.get("compression_mode") or "").lower() == "message"
        with tempfile.TemporaryDirectory(prefix="ingest-") as folder, ExitStack() as stack:

            def opens(path: Path, entry: Entry) -> Log:
                if entry.key.endswith(".zstd"):
                    path = _unzipped(path, Path(folder) / PurePosixPath(entry.key).stem, settings.limits)
                with open(path, "rb") as source:
                    head = source.read(len(MAGIC))
                if not head.startswith(MAGIC):
                    log: Log = McapLog(path, settings.limits)
                else:
                    journal = next((other for other in upload.files if other.key == entry.key + "-wal" and other.size), None)
                    log = SqliteLog(path, settings.limits, stack.enter_context(store.local_copy(journal.key)) if journal is not None else None)
                return ZstdMessages(log, settings.limits) if compressed else log

            yield from episodes_of_files(store, upload, files, opens, self.name, settings, notes)
        if not files:
            yield Refused("; ".join(["the bag has no storage files", *notes]))


def _storage(upload: Upload) -> list[Entry]:
    return bag_files(upload, ".db3", ".mcap", ".db3.zstd", ".mcap.zstd")


def _metadata(store: Store, upload: Upload) -> dict[str, Any]:
    """rosbag2_bagfile_information, {} for a lone file. Raises DataError where it is damaged: the files may still be whole."""
    entry = next((entry for entry in upload.files if entry.key == upload.key(METADATA)), None)
    if entry is None or upload.path == entry.key:
        return {}
    if entry.size > LARGEST_METADATA:
        raise DataError(f"metadata.yaml is not read: it has {entry.size} bytes")
    try:
        found = yaml.safe_load(store.get(entry.key))
        information = found["rosbag2_bagfile_information"]
        information["relative_file_paths"] = list(information.get("relative_file_paths") or [])
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"metadata.yaml is damaged and was not used: {type(error).__name__}") from error
    return information


def _times(store: Store, upload: Upload) -> UploadFacts:
    """Times from the files themselves, where that is cheap."""
    facts = []
    for entry in _storage(upload):
        if not entry.size or entry.key.endswith(".zstd") or (store.root is None and entry.size > PEEK_BYTES):
            continue
        head = store.get_range(entry.key, 0, min(len(MAGIC), entry.size))
        if not head.startswith(MAGIC):
            survey = peeked(ranged(store, entry.key, entry.size), entry.modified_ns)
            facts.append(UploadFacts(start_ns=survey.start_ns, end_ns=survey.end_ns))
            continue
        with store.local_copy(entry.key) as path:
            try:
                span = SqliteLog(path, Limits()).span()
            except DataError:
                continue
        if span is not None:
            facts.append(UploadFacts(start_ns=min(span), end_ns=max(span)))
    return spanned(facts)


def _unzipped(path: Path, target: Path, limits: Limits) -> Path:
    """The file unpacked beside the others. Raises DataError where it is damaged or too large."""
    left = limits.unpacked_mb << 20
    try:
        with open(path, "rb") as source, zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True) as reader, open(target, "wb") as sink:
            while part := reader.read(1 << 20):
                left -= len(part)
                if left < 0:
                    raise DataError(f"it unpacks to more than limits.unpacked_mb ({limits.unpacked_mb})")
                sink.write(part)
    except zstandard.ZstdError as error:
        if not target.exists() or not target.stat().st_size:
            raise DataError(f"a damaged zstd file: {error}") from error
    return target
