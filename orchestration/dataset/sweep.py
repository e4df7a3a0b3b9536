"""Sweeping what copies leave: datasets that a later one of their day has superseded, and uploads that never ended. Never what is named.

Named are the datasets of every pointer that counts (of packing, and of the copies in each region) and of every model's lineage. Age counts
from the day's newest pointer too: whoever read the one before it may still be reading.
"""

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from ray_jobs.seam import layout
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Entry, Store
from ray_jobs.seam.unfinished import abort_unfinished

DAY_S = 86400.0
BUDGET_S = 15.0  # of one round; a sensor may take 60, and the attempts have 25
AT_ONCE = 16
ASSETS = ("curated_dataset", "dataset_at_compute")  # the second also as dataset_at_compute@<region>
UPLOADS_IN = ("datasets", "episodes", "models")
MANIFEST = "manifest.json"  # without it a dataset is not whole


@dataclass(frozen=True)
class Named:
    """What pointers and models name. `decided`: day -> when its newest pointer was written, in seconds since 1970."""

    prefixes: frozenset[str]
    decided: Mapping[str, float]


def superseded(folders: Mapping[str, float], named: Named, cutoff: float) -> list[str]:
    """Prefixes that may go. `folders`: prefix (datasets/<day>-<hash>) -> when its youngest object was written."""

    def goes(prefix: str, newest: float) -> bool:
        return prefix not in named.prefixes and max(newest, named.decided.get(day_of(prefix), 0.0)) < cutoff

    return sorted(prefix for prefix, newest in folders.items() if goes(prefix, newest))


def day_of(prefix: str) -> str:
    return prefix.removeprefix("datasets/")[:10]


def sweep_datasets(home: Store, stores: Collection[Store], keep_days: int) -> list[str]:
    """One round over every store that datasets lie in; `home` has the pointers and models. A line for whatever went. Raises StoreError."""
    started, cutoff = time.monotonic(), time.time() - keep_days * DAY_S
    told = []
    named = _named(home)
    for store in stores:
        for folder in UPLOADS_IN:
            told += [f"aborted the upload of {store.config.url}/{key}, begun before {_date(cutoff)}" for key in abort_unfinished(store, folder, cutoff)]
        if named is None:
            told.append(f"kept every dataset in {store.config.url}: a pointer or a model's lineage cannot be read")
            continue
        unnamed = [prefix for name in store.folders("datasets") if (prefix := f"datasets/{name}") not in named.prefixes]
        found = {prefix: entries for prefix in unnamed if (entries := list(store.list(prefix + "/")))}  # of a local store, swept folders stay, empty
        for prefix in superseded({prefix: _newest(entries) for prefix, entries in found.items()}, named, cutoff):
            if time.monotonic() - started > BUDGET_S:
                told.append("the rest of the datasets waits for the next round")
                return told
            now = _pointed(home, day_of(prefix))
            if now is None or prefix not in superseded({prefix: _newest(found[prefix])}, now, cutoff):
                continue  # it is named meanwhile
            _remove(store, prefix, [entry.key for entry in found[prefix]])
            told.append(f"swept {store.config.url}/{prefix}: {len(found[prefix])} objects, superseded before {_date(cutoff)}")
    return told


def _remove(store: Store, prefix: str, keys: list[str]) -> None:
    """What proves and marks it whole goes first: a sweep that dies leaves nothing that looks whole."""
    if data := store.find(f"{prefix}/{MANIFEST}"):
        for entry in list(store.list(layout.receipts_prefix(hashlib.sha256(data).hexdigest()) + "/")):
            store.delete(entry.key)
        store.delete(f"{prefix}/{MANIFEST}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(store.delete, keys))


def _named(home: Store) -> Named | None:
    """None where something cannot be read: then nobody knows what it names."""
    pointed = _pointed(home)
    lineages = [f"models/{name}/lineage.json" for name in home.folders("models")]
    prefixes: set[str] = set()
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for data in pool.map(home.find, lineages):
                prefixes |= {dataset["prefix"] for dataset in json.loads(data)["datasets"]} if data else set()
    except (ValueError, KeyError, TypeError):
        return None
    return pointed and Named(pointed.prefixes | prefixes, pointed.decided)


def _pointed(home: Store, day: str | None = None) -> Named | None:
    """By the pointers alone, of one day or of all."""
    assets = [name for name in home.folders("partitions") if name.split("@")[0] in ASSETS]
    current: dict[tuple[str, str], Entry] = {}
    decided: dict[str, float] = {}
    for asset in assets:
        for entry in sorted(home.list(layout.pointer_prefix(asset, day) if day else f"partitions/{asset}"), key=lambda entry: entry.key):
            parts = entry.key.split("/")
            if len(parts) == 4:
                current[asset, parts[2]] = entry
                decided[parts[2]] = max(decided.get(parts[2], 0.0), entry.modified_ns / 1e9)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            pointers = pool.map(lambda entry: Pointer.model_validate_json(home.get(entry.key)), current.values())
            return Named(frozenset(dataset["prefix"] for pointer in pointers if (dataset := pointer.output.get("dataset"))), decided)
    except (ValidationError, KeyError, TypeError):
        return None


def _newest(entries: Collection[Entry]) -> float:
    return max((entry.modified_ns / 1e9 for entry in entries), default=0.0)


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
