"""Sweeping the store: old attempts that no publication names and no run wants, and code archives that nothing uses. Nothing else ever.

A sweep may die anywhere, and the next one goes on: whose a base is, its plan says until nothing else of it is there, and what is
left is no younger than before. A step that meets what is left of an attempt finds it ended; or, with ended.json gone, created and
lost, which is what became of it; never one that it would have to create. `phases` is this order.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from orchestration.launching.work import Attempt, Plan
from ray_jobs.seam import layout
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Entry, Store

DAY_S = 86400.0
BUDGET_S = 25.0  # of one round; a sensor may take 60, for this, the datasets and the ledger
AT_ONCE = 16  # reads and deletes
ORDER = ("ended.json", "attempt.json", "submitted.json")  # in which an attempt's documents go


@dataclass(frozen=True)
class Base:
    """A folder below attempts/ as a sweep sees it. `newest`: when its youngest object was written, in seconds since 1970.

    `root_run` and `code` are "" where no run asked for it (a job by hand), None where its plan cannot be read. `named`: a pointer
    of its generation counts for one of its days.
    """

    name: str
    newest: float
    root_run: str | None = ""
    code: str | None = ""
    named: bool = False


@dataclass(frozen=True)
class Due:
    bases: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()  # by the hash of their code


def due(bases: Collection[Base], archives: Mapping[str, float], alive: Callable[[str], bool], code: str, cutoff: float) -> Due:
    """What may go. `archives`: hash -> when it was written. `alive(root run)`: it works, queues, or waits to be retried. `code`: today's."""

    def wanted(base: Base) -> bool:
        return base.newest >= cutoff or base.root_run is None or (base.root_run != "" and alive(base.root_run))

    old = {sha256 for sha256, written in archives.items() if written < cutoff and sha256 != code}
    used = {base.code for base in bases if (base.code is None or base.code in old) and wanted(base)}
    return Due(
        bases=tuple(sorted(base.name for base in bases if not base.named and not wanted(base))),
        archives=() if None in used else tuple(sorted(old - used)),
    )


def phases(base: str, keys: Collection[str]) -> list[list[str]]:
    """The base's objects, group after group as they go; within a group in any order.

    First what drivers wrote. Then each attempt, the last one last, for it speaks for the base: ended.json before attempt.json
    (the other way round, the next attempt of this number would be born ended), and submitted.json after both (without it the attempt
    would look as if it had never been created, and be created). The plan goes last: it says whose run this is.
    """
    documents: dict[int, list[str]] = defaultdict(list)
    rest, plan = [], []
    for key in sorted(keys):
        match key.removeprefix(f"attempts/{base}/").split("/"):
            case ["plan.json"]:
                plan.append(key)
            case [attempt, "attempt.json" | "submitted.json" | "ended.json"] if attempt[1:].isdigit():
                documents[int(attempt[1:])].append(key)
            case _:
                rest.append(key)
    ordered = [[key] for number in sorted(documents) for key in sorted(documents[number], key=lambda key: ORDER.index(key.rsplit("/", 1)[1]))]
    return [group for group in [rest, *ordered, plan] if group]


def sweep(store: Store, deployment: str, alive: Callable[[str], bool], keep_days: int, code: str) -> list[str]:
    """One round; a line for whatever went, or could not be judged. Raises StoreError."""
    started, cutoff = time.monotonic(), time.time() - keep_days * DAY_S
    archives = {entry.key.split("/")[1]: entry for entry in store.list("code/")}
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.list("attempts/"):
        found[entry.key.split("/")[1]].append(entry)
    counts: dict[tuple[str, str], str] = {}
    for key in sorted(entry.key for entry in store.list("partitions/")):
        if len(parts := key.split("/")) == 4:
            counts[parts[1], parts[2]] = parts[3].removesuffix(".json")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        bases = list(pool.map(lambda name: _look(store, name, found[name], counts), sorted(found)))
        told = [f"kept {base.name}: its plan cannot be read" for base in bases if base.root_run is None]
        gone = due(bases, {sha256: _written(entry) for sha256, entry in archives.items()}, alive, code, cutoff)
        for sha256 in gone.archives:
            store.delete(archives[sha256].key)
            told.append(f"swept the code archive {sha256[:12]}")
        for name in gone.bases:
            if time.monotonic() - started > BUDGET_S:
                told.append("the rest waits for the next round")
                break
            keys = [entry.key for entry in found[name]]
            if (reason := _spared(store, name, keys, deployment)) is not None:
                told.append(f"kept {name}: {reason}")
                continue
            for group in phases(name, keys):
                list(pool.map(store.delete, group))
            newest = datetime.fromtimestamp(max(_written(entry) for entry in found[name]), UTC)
            told.append(f"swept {name}: {len(keys)} objects, untouched since {newest:%Y-%m-%d}")
    return told


def _written(entry: Entry) -> float:
    return entry.modified_ns / 1e9


def _look(store: Store, name: str, entries: Collection[Entry], counts: Mapping[tuple[str, str], str]) -> Base:
    newest = max(_written(entry) for entry in entries)
    if (data := store.find(layout.plan(name))) is None:
        return Base(name, newest)
    try:
        plan = Plan.model_validate_json(data)
    except ValidationError:
        return Base(name, newest, None, None)
    return Base(name, newest, plan.root_run, plan.code, any(counts.get((plan.asset, day)) == plan.generation for day in plan.days))


def _spared(store: Store, name: str, keys: Collection[str], deployment: str) -> str | None:
    """Why it must stay after all, asked when its run is known to be over: no pointer that names it can appear after that."""
    try:
        if data := store.find(layout.plan(name)):
            plan = Plan.model_validate_json(data)
            for day in plan.days:
                pointer = read_pointer(store, plan.asset, day)
                if pointer is not None and (pointer.attempt or "").rsplit("-a", 1)[0] == name:
                    return f"{day} is published from it"
        for key in keys:
            if key.endswith("/attempt.json") and (data := store.find(key)):
                owner = Attempt.model_validate_json(data).deployment
                if owner != deployment:
                    return f"it belongs to the deployment {owner}"
    except ValidationError:
        return "its documents cannot be read"
    return None
