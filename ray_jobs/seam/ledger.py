"""The ledger: facts about episodes, one row per (episode, stage, version), appended and never changed.

Two jobs that measured the same leave two rows; the reader keeps one by a fixed rule, so every reader sees the same.

In the background many small files of a day become one (`compact`): a file that names those whose rows it holds. They are ignored from
then on, and deleted by a later round, when nobody can still be reading what he listed before. A file is deleted only when another one
holds its rows, and no name is written twice; so compactions may die anywhere, meet each other, and meet readers and writers.
"""

import hashlib
import io
import json
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.seam.errors import NotFound
from ray_jobs.seam.layout import ledger_prefix
from ray_jobs.seam.ranges import readable
from ray_jobs.seam.store import Entry, Store
from ray_jobs.seam.tables import LEDGER, rows_of

MERGED = "merged-"  # begins the name of a file that stands for others
COVERS = b"covers"  # in its metadata: their names
GRACE_S = 3600.0  # between a merge and the end of what it covers
QUIET_S = 600.0  # younger files are left alone: a job is at work there
AT_ONCE = 16  # files read at a time
LISTED = 3  # for so many days each is listed by itself, for more the whole stage
WHOLE_BYTES = 1 << 18  # a file up to this size is read whole, of a larger one the columns that are wanted
RULE = ("error", "measured_ns", "seconds")  # what the choice between two rows looks at
DAY = re.compile(r"\d{4}-\d\d-\d\d")


def append(store: Store, stage: str, version: str, day: str, rows: list[dict[str, Any]] | pa.Table) -> str:
    """Write LEDGER rows as one new file, visible at once; returns its key."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema=LEDGER)
    data = _bytes(table)
    key = f"{ledger_prefix(stage, version, day)}/{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    store.put(key, data)
    return key


def read(store: Store, stage: str, version: str, days: Iterable[str], columns: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """One row per episode of these days: a result before an error, then the earliest measured. `columns`: only these."""
    best: dict[str, dict[str, Any]] = {}
    for part in read_days(store, stage, version, days, columns).values():
        for episode_id, row in part.items():
            if _counts(row, best.get(episode_id)):
                best[episode_id] = row
    return best


def read_days(store: Store, stage: str, version: str, days: Iterable[str], columns: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """day -> episode -> row, by the same rule."""
    found: dict[str, dict[str, dict[str, Any]]] = {day: {} for day in sorted(set(days))}
    wanted = None if columns is None else list(dict.fromkeys(["episode_id", *columns, *RULE]))
    folders = _folders(store, stage, version, found)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for day, tables in pool.map(lambda day: (day, _tables(store, stage, version, day, folders[day], wanted)), folders):
            for row in (row for table in tables for row in rows_of(table)):
                if _counts(row, found[day].get(row["episode_id"])):
                    found[day][row["episode_id"]] = row
    return found


def _counts(row: dict[str, Any], other: dict[str, Any] | None) -> bool:
    """Whether this one of two rows counts. It hangs on the rows alone, not on the files they are in."""
    if other is None or (one := _rank(row)) < (two := _rank(other)):
        return True
    return one == two and str(row.get("scores")) < str(other.get("scores"))


def _rank(row: dict[str, Any]) -> tuple[bool, int, float]:
    return bool(row["error"]), row["measured_ns"] or 0, row["seconds"] or 0.0


def _folders(store: Store, stage: str, version: str, days: Collection[str]) -> dict[str, list[Entry]]:
    folders: dict[str, list[Entry]] = {day: [] for day in days}
    if len(folders) > LISTED:
        prefix = ledger_prefix(stage, version, "")
        for entry in store.list(prefix):
            if (day := entry.key.removeprefix(prefix).split("/")[0]) in folders:
                folders[day].append(entry)
    else:
        for day in folders:
            folders[day] = list(store.list(ledger_prefix(stage, version, day) + "/"))
    return folders


def _tables(store: Store, stage: str, version: str, day: str, entries: list[Entry], columns: list[str] | None) -> list[pa.Table]:
    """The tables of one day that no other stands for."""
    for _ in range(3):
        try:
            merged = {entry.key: _table(store, entry, columns) for entry in entries if _name(entry.key).startswith(MERGED)}
            covered = {name for table in merged.values() for name in _covers(table)}
            others = [entry for entry in entries if entry.key not in merged and _name(entry.key) not in covered]
            return [table for key, table in merged.items() if _name(key) not in covered] + [_table(store, entry, columns) for entry in others]
        except NotFound:  # listed longer ago than the grace, and merged since
            entries = list(store.list(ledger_prefix(stage, version, day) + "/"))
    raise NotFound(f"the ledger of {stage}@{version}, {day}, changes faster than it can be read; try again")


def _table(store: Store, entry: Entry, columns: list[str] | None) -> pa.Table:
    """As LEDGER has it (its `columns`), also where an earlier LEDGER lacked a column."""
    if entry.size <= WHOLE_BYTES or columns is None:
        table = pq.read_table(io.BytesIO(store.get(entry.key)), columns=columns, use_threads=False)
    else:
        with readable(store, entry.key) as source:
            table = pq.ParquetFile(source).read(columns, use_threads=False)
    for field in LEDGER:
        if field.name not in table.column_names and (columns is None or field.name in columns):
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select([name for name in LEDGER.names if name in table.column_names])


def _covers(table: pa.Table) -> list[str]:
    names: list[str] = json.loads((table.schema.metadata or {}).get(COVERS, b"[]"))
    return names


def _name(key: str) -> str:
    return key.rsplit("/", 1)[1]


def _bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


@dataclass(frozen=True)
class Due:
    """What one round does in one folder: `merge` becomes one file, which stands for `covers`; `delete` goes."""

    merge: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()


def due(written: Mapping[str, float], covers: Mapping[str, Collection[str]], now: float) -> Due:
    """`written`: name -> seconds since 1970, of every file of a folder. `covers`: of each merged one, the names that it stands for."""
    covered = {name: merged for merged, names in covers.items() for name in names if name in written}
    alive = sorted(name for name in written if name not in covered)
    gone = sorted(name for name in covered if any(name in names and written[merged] < now - GRACE_S for merged, names in covers.items()))
    merge = tuple(alive) if len(alive) > 1 and max(written[name] for name in alive) < now - QUIET_S else ()
    left = {name for name in covered if name not in gone}
    return Due(merge, tuple(sorted(left | set(merge))) if merge else (), tuple(gone))


def compact(store: Store, budget_s: float) -> list[str]:
    """One round over all days; a line that says what was done. Raises StoreError. It may be stopped and repeated at any time."""
    started, merged, deleted, waiting = time.monotonic(), 0, 0, 0
    folders: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.list("ledger"):
        parts = entry.key.split("/")
        if len(parts) == 4 and DAY.fullmatch(parts[2]):
            folders[entry.key.rsplit("/", 1)[0]].append(entry)
    for folder in sorted(name for name, entries in folders.items() if len(entries) > 1):
        if time.monotonic() - started > budget_s:
            waiting += 1
            continue
        try:
            more, fewer = _compact(store, folder, {_name(entry.key): entry for entry in folders[folder]})
        except NotFound:  # another round was faster
            continue
        merged, deleted = merged + more, deleted + fewer
    told = [f"ledger: {merged} files became fewer, {deleted} that others stand for were deleted"] if merged or deleted else []
    return told + ([f"ledger: {waiting} folders wait for the next round"] if waiting else [])


def _compact(store: Store, folder: str, entries: dict[str, Entry]) -> tuple[int, int]:
    covers = {name: _covers(_table(store, entry, ["episode_id"])) for name, entry in entries.items() if name.startswith(MERGED)}
    todo = due({name: entry.modified_ns / 1e9 for name, entry in entries.items()}, covers, time.time())
    if todo.merge:
        table = _chosen(pa.concat_tables([_table(store, entries[name], None).replace_schema_metadata() for name in todo.merge]))
        table = table.replace_schema_metadata({COVERS: json.dumps(todo.covers)})
        store.put(f"{folder}/{MERGED}{uuid.uuid4().hex}.parquet", _bytes(table))
    for name in todo.delete:
        store.delete(f"{folder}/{name}")
    return len(todo.merge), len(todo.delete)


def _chosen(table: pa.Table) -> pa.Table:
    """Without the rows that no reader would choose."""
    rows = table.select(["episode_id", *RULE]).to_pylist()
    best: dict[str, tuple[bool, int, float]] = {}
    for row in rows:
        best[row["episode_id"]] = min(_rank(row), best.get(row["episode_id"], _rank(row)))
    kept = [place for place, row in enumerate(rows) if _rank(row) == best[row["episode_id"]]]
    return table.take(pa.array(sorted(kept, key=lambda place: rows[place]["episode_id"]), pa.int64()))
