"""The ledger: facts about episodes, one row per (episode, stage, version), appended and never changed.

Two jobs that measured the same leave two rows; the reader keeps one by a fixed rule, so every reader sees the same.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from ray_jobs.seam.layout import ledger_prefix
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import LEDGER, from_bytes, to_bytes


def append(store: Store, stage: str, version: str, day: str, rows: list[dict[str, Any]], schema: Any = LEDGER) -> str:
    """Write rows as one new file, visible at once; returns its key."""
    data = to_bytes(rows, schema)
    key = f"{ledger_prefix(stage, version, day)}/{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    store.put(key, data)
    return key


def read(store: Store, stage: str, version: str, days: Iterable[str], key: str = "episode_id") -> dict[str, dict[str, Any]]:
    """One row per key of these days: a result before an error, then the earliest measured, then the first file."""
    best: dict[str, tuple[tuple[bool, int, str], dict[str, Any]]] = {}
    for day in sorted(set(days)):
        for entry in sorted(store.list(ledger_prefix(stage, version, day) + "/"), key=lambda entry: entry.key):
            for row in from_bytes(store.get(entry.key)):
                rank = (bool(row.get("error")), row.get("measured_ns") or 0, entry.key)
                if row[key] not in best or rank < best[row[key]][0]:
                    best[row[key]] = (rank, row)
    return {name: row for name, (_, row) in best.items()}
