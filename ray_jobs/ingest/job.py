"""The ingest job: every upload that names a day is read once, ever, and each day gets its EPISODES table.

What an upload held is written down beside the ledger's other facts, one file per upload, so a re-run or a backfill reads
nothing again and needs no raw store: ledger/ingest@<version>/<2 hex>/<hash of path, digest and settings>.parquet.
"""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from ray_jobs.driver import Execution, connect
from ray_jobs.episode import read_meta, write_episode
from ray_jobs.ingest.days import episode_day
from ray_jobs.ingest.formats import READERS, VERSION
from ray_jobs.ingest.gather import gather
from ray_jobs.ingest.reader import Recorded, Refused, Upload
from ray_jobs.ingest.sidecar import read_with_videos
from ray_jobs.seam.configs import IngestConfig, IngestSettings
from ray_jobs.seam.errors import FailureClass, FlywheelError, NotFound, StoreError
from ray_jobs.seam.layout import ledger_prefix
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import EPISODES, from_bytes, to_bytes

BYTES_PER_WORKER = 64 << 20  # a worker takes seconds to start, in which another reads this much
Row = dict[str, Any]


def run(config: IngestConfig, execution: Execution) -> dict[str, DayResult]:
    """One EPISODES table per day. Raises StoreError where a store fails: that is no fact about an upload."""
    store, days = execution.store, set(config.days)
    named = [row for row in from_bytes(store.get(config.uploads)) if days & set(row["days"])]
    facts: dict[tuple[str, str], list[Row]] = {}
    unread = []
    for upload in named:
        name = (upload["path"], upload["digest"])
        known = recall(store, upload, config.settings) if upload["status"] != "quarantined" else None
        if known is not None:
            facts[name] = known
        elif upload["status"] == "ok":
            unread.append(upload)
        else:
            facts[name] = [refused_row(upload, Refused(upload["reason"] or "unreadable"), config.settings)]
    if unread:
        facts |= _read_all(unread, config, execution)
        _settle_duplicates(unread, facts, config, store)
    by_day: dict[str, list[Row]] = defaultdict(list)
    for upload in named:
        for row in facts[upload["path"], upload["digest"]]:
            if upload["status"] == "superseded":
                row = {**row, "status": "superseded", "reason": upload["reason"]}
            by_day[row["day"]].append(row)
    return {day: _publishable(store, day, by_day.get(day, [])) for day in config.days}


def _read_all(unread: list[Row], config: IngestConfig, execution: Execution) -> dict[tuple[str, str], list[Row]]:
    """Each upload in a Ray task of its own; a reader that fails or dies costs its upload and nothing else."""
    import ray

    connect()
    facts: dict[tuple[str, str], list[Row]] = {}
    task = ray.remote(num_cpus=1, max_retries=1)(_task)
    size = sum(upload["size"] for upload in unread)
    most = max(2, min(int(ray.cluster_resources().get("CPU", 1)), size // BYTES_PER_WORKER))
    waiting = list(reversed(unread))
    running: dict[Any, Row] = {}
    due: dict[Any, float] = {}  # when a read is given up, by the monotonic clock; it waits for its worker before it begins
    patience = config.settings.limits.read_s
    while waiting or running:
        while waiting and len(running) < most:
            upload = waiting.pop()
            reference = task.remote(execution.store.config, config.raw, upload, config.settings)
            running[reference], due[reference] = upload, time.monotonic() + patience
        left = config.deadline_s - (time.monotonic() - execution.started)
        soonest = min(due.values()) - time.monotonic()
        ready, _ = ray.wait(list(running), timeout=max(0.0, min(left, soonest)))
        for reference in [] if ready or left <= 0 else [reference for reference, at in due.items() if at <= time.monotonic()]:
            ray.cancel(reference, force=True)
            upload = running.pop(reference)
            due.pop(reference)
            reason = f"reading it took longer than limits.read_s ({patience:g} s)"
            facts[upload["path"], upload["digest"]] = [refused_row(upload, Refused(reason), config.settings)]
        if not ready and left <= 0:
            for reference in running:
                ray.cancel(reference, force=True)
            raise FlywheelError(
                f"ingest reached its deadline of {config.deadline_s:.0f} s with {len(waiting) + len(running)} uploads to read; raise deadline_s"
            )
        for reference in ready:
            upload = running.pop(reference)
            due.pop(reference)
            try:
                failure = ray.get(reference)
            except ray.exceptions.OutOfMemoryError as error:
                raise _Told("out_of_memory", f"reading {upload['path']} took more memory than there is") from error
            except (ray.exceptions.RayTaskError, ray.exceptions.WorkerCrashedError) as error:
                reason = f"the reader failed: {str(error).strip().splitlines()[-1][:300]}"
                facts[upload["path"], upload["digest"]] = [refused_row(upload, Refused(reason), config.settings)]
            else:
                if failure is not None:
                    raise _Told(*failure)
                facts[upload["path"], upload["digest"]] = _recalled(execution.store, upload, config.settings)
            execution.progress(config.days[0], "ingest", len(facts), len(unread), "uploads")
    return facts


class _Told(FlywheelError):
    """A task's failure, told again in the driver."""

    def __init__(self, failure_class: FailureClass, message: str):
        super().__init__(message)
        self.failure_class = failure_class


def _task(store: StoreConfig, raw: StoreConfig, upload: Row, settings: IngestSettings) -> tuple[FailureClass, str] | None:
    """Small in, small out: the rows go through the store. A store's failure comes back as a value, without Ray's traceback."""
    try:
        read_upload(Store(store), Store(raw), upload, settings)
    except FlywheelError as error:
        return error.failure_class, str(error)
    return None


def read_upload(store: Store, raw: Store, row: Row, settings: IngestSettings, overwrite: frozenset[str] = frozenset()) -> list[Row]:
    """Read one upload, write its normalised episodes and its facts, return its EPISODES rows. Raises StoreError."""
    upload = _find(raw, row)
    if isinstance(upload, Refused):
        rows = [refused_row(row, upload, settings)]
    else:
        reader = next(reader for reader in READERS if reader.name == row["format"])
        rows = []
        try:
            for item in read_with_videos(reader, raw, upload, settings):
                if isinstance(item, Refused):
                    rows.append(refused_row(row, item, settings))
                    continue
                if item.episode.meta.episode_id in overwrite or not _stored(store, item):
                    meta = item.episode.meta.model_copy(update={"ingest": VERSION})
                    write_episode(store, type(item.episode)(meta, item.episode.streams), item.clips)
                rows.append(_recorded_row(row, item, settings))
        except OSError as error:
            raise StoreError(f"cannot read {row['path']}: {error.strerror or error}; is there space in the temporary folder?") from error
        if not rows:
            rows = [refused_row(row, Refused("it holds no episodes"), settings)]
    store.put(_fact_key(row, settings), to_bytes(rows, EPISODES))
    return rows


def _find(raw: Store, row: Row) -> Upload | Refused:
    """The upload as it was indexed. Gone or changed since, it is a row, unless the whole store is away."""
    try:
        is_folder = row["path"] == "." or (raw.root is not None and (raw.root / row["path"]).is_dir())
        entries = [] if is_folder else [raw.head(row["path"])]
    except NotFound:
        entries = []
    found = gather(entries).get(row["path"])
    if found is None or found.digest != row["digest"]:  # a folder, or a file with others beside it
        inside = found is None and next(raw.list(row["path"].removesuffix(".")), None) is not None
        folder = row["path"] if inside else str(PurePosixPath(row["path"]).parent)
        found = gather(raw.list(folder.removesuffix("."))).get(row["path"])
    if found is None and next(raw.list(), None) is None:
        raise StoreError(f"the raw store {raw.config.url} is empty, and {row['path']} was never read; is it mounted?")
    if found is None:
        return Refused("gone from the raw store before it was read")
    if found.digest != row["digest"]:
        return Refused("replaced in the raw store before it was read")
    return Upload(found.path, found.files, row["robot"])


def _stored(store: Store, item: Recorded) -> bool:
    """Whether this very content is already stored, by this version of ingest: what was measured must not change under its id."""
    try:
        return read_meta(store, item.episode.meta.episode_id).ingest == VERSION
    except NotFound:
        return False


def _settle_duplicates(unread: list[Row], facts: dict[tuple[str, str], list[Row]], config: IngestConfig, store: Store) -> None:
    """Two uploads of one episode, read at once: the stored one is the earliest logged, whichever task came last."""
    claims: dict[str, set[tuple[int, str, str]]] = defaultdict(set)
    for upload in unread:
        for row in facts[upload["path"], upload["digest"]]:
            if row["status"] == "ok":
                claims[row["episode_id"]].add((row["start_ns"], row["upload"], row["upload_digest"]))
    again: dict[tuple[str, str], set[str]] = defaultdict(set)
    for episode_id, claim in claims.items():
        first = min(claim)
        if len(claim) > 1 and read_meta(store, episode_id).upload in {path for _, path, _ in claim} - {first[1]}:
            again[first[1:]].add(episode_id)
    for upload in unread:
        if (ids := again.get((upload["path"], upload["digest"]))) is not None:
            read_upload(store, Store(config.raw), upload, config.settings, overwrite=frozenset(ids))


def _fact_key(row: Row, settings: IngestSettings) -> str:
    name = digest(row["path"], row["digest"], row["robot"], row["days"], settings.model_dump(exclude={"quiet_s"}))[:32]
    return f"{ledger_prefix('ingest', VERSION, name[:2])}/{name}.parquet"


def recall(store: Store, upload: Row, settings: IngestSettings) -> list[Row] | None:
    """The rows of an upload that was read before, or None."""
    data = store.find(_fact_key(upload, settings))
    return from_bytes(data) if data is not None else None


def _recalled(store: Store, upload: Row, settings: IngestSettings) -> list[Row]:
    rows = recall(store, upload, settings)
    if rows is None:
        raise StoreError(f"the facts of {upload['path']} were written and cannot be found in {store.config.url}")
    return rows


def _recorded_row(upload: Row, item: Recorded, settings: IngestSettings) -> Row:
    meta, streams = item.episode.meta, item.episode.streams
    shift_ns = upload["modified_ns"] if meta.synthetic_clock else 0
    day, source = episode_day(None if meta.synthetic_clock else item.start_ns, upload["modified_ns"], upload["days"], settings)
    cameras = sorted(meta.cameras)
    return {
        "episode_id": meta.episode_id,
        "day": day,
        "day_source": source,
        "robot": meta.robot,
        "task": meta.task,
        "upload": upload["path"],
        "upload_digest": upload["digest"],
        "status": "ok",
        "reason": None,
        "start_ns": item.start_ns + shift_ns,
        "end_ns": item.end_ns + shift_ns,
        "states": len(streams["state"].t_ns) if "state" in streams else 0,
        "actions": len(streams["action"].t_ns) if "action" in streams else 0,
        "frames": max((meta.cameras[name].frames for name in cameras), default=0),
        "cameras": cameras,
        "fps": meta.fps,
        "notes": list(meta.notes),
    }


def refused_row(upload: Row, refused: Refused, settings: IngestSettings) -> Row:
    """The quarantined row of an upload, or of a part of it, that could not be read."""
    day, source = episode_day(refused.start_ns, upload["modified_ns"], upload["days"], settings)
    return {
        "episode_id": hashlib.sha256(f"{upload['path']}\n{upload['digest']}\n{refused.part}".encode()).hexdigest()[:32],
        "day": day,
        "day_source": source,
        "robot": upload["robot"],
        "task": "",
        "upload": upload["path"],
        "upload_digest": upload["digest"],
        "status": "quarantined",
        "reason": f"{refused.part}: {refused.reason}" if refused.part else refused.reason,
        "start_ns": refused.start_ns if refused.start_ns is not None else upload["modified_ns"],
        "end_ns": refused.start_ns if refused.start_ns is not None else upload["modified_ns"],
        "states": 0,
        "actions": 0,
        "frames": 0,
        "cameras": [],
        "fps": 0.0,
        "notes": [],
    }


def _publishable(store: Store, day: str, rows: list[Row]) -> DayResult:
    rows = sorted(rows, key=lambda row: (row["start_ns"], row["upload"], row["upload_digest"], row["episode_id"]))
    data = to_bytes(rows, EPISODES)
    content = hashlib.sha256(data).hexdigest()
    key = f"episodes_index/{day}/{content}.parquet"
    store.put(key, data)
    status = Counter(row["status"] for row in rows)
    counts = {"uploaded": len(rows), **{name: status[name] for name in ("ok", "quarantined", "superseded")}}
    return DayResult(
        reason=None if rows else "no data",
        counts=counts,
        output={"episodes": key},
        output_digest=content,
        shown={name: Shown(type=kind, value=value) for name, kind, value in _shown(rows)},
    )


def _shown(rows: list[Row]) -> Iterator[tuple[str, Any, Any]]:
    good = [row for row in rows if row["status"] == "ok"]
    yield "robots", "text", ", ".join(sorted({row["robot"] for row in good})) or "none"
    yield "robot minutes", "float", round(sum(row["end_ns"] - row["start_ns"] for row in good) / 60e9, 2)
    reasons = Counter((row["status"], (row["reason"] or "").replace("|", "/")[:120]) for row in rows)
    lines = [f"| {status} | {reason} | {count} |" for (status, reason), count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))]
    yield "episodes", "md", "\n".join(["| status | reason | episodes |", "|---|---|---|", *lines[:30]])
    noted = Counter(note.split(":")[0][:80] for row in good for note in row["notes"])
    if noted:
        yield "notes", "md", "\n".join(["| note | episodes |", "|---|---|", *(f"| {note} | {count} |" for note, count in noted.most_common(20))])
