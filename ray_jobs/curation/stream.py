"""Segments through the operators on Ray Data: what runs in its workers, and what they say to the driver.

Between operators goes a table with one row per piece; finished LEDGER rows and what a worker has to tell go along in rows of their own.
An episode whose segments are all in one batch is finished by the worker that measured it; the pieces of a longer one come out as partials.
"""

import ctypes
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.curation.measure import Piece, Plan, apply, finish, load
from ray_jobs.curation.pools import Operator, blocks, workers
from ray_jobs.curation.report import Load, Span
from ray_jobs.curation.stage import Segment
from ray_jobs.curation.stages import DECODE
from ray_jobs.episode import read_meta
from ray_jobs.seam.errors import NotFound, StoreError
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import LEDGER

BLOCK_BYTES = 32 * 1024 * 1024  # Ray Data hands on what it has when it is this much
TRIM_BYTES = 16 * 1024 * 1024  # of frames, after which a worker gives memory back: more often costs more than it saves
TRIED = 3  # segments that tell what the stages cost, where no earlier run did
WAY = pa.schema([("episode_id", pa.string()), ("piece", pa.large_binary()), ("rows", pa.large_binary()), ("told", pa.string())])


@dataclass(frozen=True, slots=True)
class Item:
    """One segment of an episode that lacks some stages. `seconds`: of recording, about."""

    episode_id: str
    index: int
    count: int
    wanted: tuple[str, ...]
    seconds: float


@dataclass
class Told:
    """What came out of the last operator at a time: finished LEDGER rows, partials of longer episodes, and word of the workers.

    failed: (episode, "absent" or "store", message): nothing that the ledger should hold.
    """

    rows: list[pa.Table] = field(default_factory=list)
    partials: list[tuple[str, np.ndarray]] = field(default_factory=list)  # with the episode; u8, which Ray hands on without a copy
    spans: list[Span] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)


class Work:
    """One operator in a worker: called with a batch, in a task; in an actor it is made once and keeps its stages set up."""

    def __init__(self, store: Store, plan: Plan, chain: Sequence[Operator], number: int) -> None:
        self.store, self.plan, self.operator, self.number = store, plan, chain[number], number
        self.later = frozenset(name for operator in chain[number + 1 :] for name in operator.names)
        if self.operator.keeps:
            for name in self.operator.names:
                plan.stages[name].ready()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        began = time.time()
        if "piece" in batch.column_names:
            sizes = pc.binary_length(batch["piece"])
            if (others := batch.filter(pc.equal(sizes, 0))).num_rows:
                yield others
            pieces = [Piece.from_bytes(value.as_buffer()) for value in batch["piece"].filter(pc.greater(sizes, 0))]
        else:
            pieces = [Piece(row["episode_id"], row["index"], row["count"], tuple(row["wanted"])) for row in batch.to_pylist()]
        rows: list[dict[str, Any]] = []
        failed: list[tuple[str, str, str]] = []
        spent: dict[str, float] = {}
        waiting: dict[str, list[Piece]] = {}  # longer episodes, whose other pieces may come in this batch
        sent = freed = 0
        for first in range(0, len(pieces), self.operator.resources.batch):
            part = pieces[first : first + self.operator.resources.batch]
            before = [dict(piece.seconds) for piece in part]
            self._measure(part)
            for piece, known in zip(part, before, strict=True):
                for name in piece.seconds.keys() - known.keys():
                    spent[name] = spent.get(name, 0.0) + piece.seconds[name]
                if piece.failed:
                    failed.append((piece.episode_id, *piece.failed))
                    continue
                rows += self._finished(piece, waiting, spent)
                if piece.wanted and piece.segment is not None and self.later & set(piece.wanted):
                    data = self._trimmed(piece).to_bytes()
                    sent += len(data)
                    yield _way(piece.episode_id, piece=data)
            freed += sum(_frame_bytes(piece.segment) for piece in part if piece.segment)
            pieces[first : first + len(part)] = [_GONE] * len(part)  # their frames are not needed any more
            del part, piece
            if freed > TRIM_BYTES:
                _give_back()
                freed = 0
        _give_back()  # recordings without a camera free no frames
        for piece in (piece for parts in waiting.values() for piece in parts):
            data = piece.to_bytes()
            sent += len(data)
            yield _way(piece.episode_id, piece=data)
        made = _ledger_bytes(rows) if rows else b""
        worker = f"{os.uname().nodename}:{os.getpid()}"
        span = Span(self.number, worker, began, time.time(), spent, len(pieces), sent + len(made))
        yield _way(rows=made, told=json.dumps({"span": asdict(span), "failed": failed}))

    def _measure(self, pieces: list[Piece]) -> None:
        for name in self.operator.names:
            if name == DECODE.name:
                for piece in pieces:
                    try:
                        load(self.store, self.plan, piece)
                    except StoreError as error:  # told to the driver as data: Ray keeps no cause of an exception
                        piece.failed = ("absent" if isinstance(error, NotFound) else "store", str(error))
            else:
                apply(self.plan.stages[name], *pieces)

    def _finished(self, piece: Piece, waiting: dict[str, list[Piece]], spent: dict[str, float]) -> list[dict[str, Any]]:
        """The rows that this piece decides, alone or as the last of its episode, after which it wants them no more; else it waits."""
        meta, pieces = piece.segment.meta if piece.segment else None, [piece]
        done = tuple(name for name in piece.wanted if name not in self.later or name in piece.errors)
        if piece.count > 1:
            if piece.segment is not None and self.later & set(piece.wanted):
                return []  # later stages see it first
            pieces = waiting.setdefault(piece.episode_id, [])
            pieces.append(replace(piece, segment=None))
            if len(pieces) < piece.count:
                return []
            del waiting[piece.episode_id]
            meta, done = meta or read_meta(self.store, piece.episode_id), piece.wanted
        piece.wanted = tuple(name for name in piece.wanted if name not in done)
        rows = finish(self.plan, [replace(each, wanted=done) for each in pieces], meta, self.store)
        for row in rows:
            scoring = row["seconds"] - sum(each.seconds.get(row["stage"], 0.0) for each in pieces)
            spent[row["stage"]] = spent.get(row["stage"], 0.0) + scoring
        return rows

    def _trimmed(self, piece: Piece) -> Piece:
        """Without the frames and samples that no later stage reads."""
        piece = replace(piece, partials={name: part for name, part in piece.partials.items() if name in piece.wanted})
        stages = [self.plan.stages[name] for name in piece.wanted if name in self.later and name not in piece.errors]
        if not stages or piece.segment is None:
            return replace(piece, segment=None)
        picks = {stage.picks for stage in stages}
        visual = any(DECODE.name in stage.reads and stage.picks is None for stage in stages)
        picked = {pick: views for pick, views in piece.segment.picked.items() if pick in picks}
        return replace(piece, segment=replace(piece.segment, views=piece.segment.views if visual else {}, picked=picked))


_GONE = Piece("", 0, 1, ())
_LIBC = ctypes.CDLL(None)


def _frame_bytes(segment: Segment) -> int:
    return sum(view.frames.nbytes for cameras in (segment.views, *segment.picked.values()) for view in cameras.values())


def _give_back() -> None:
    """Return to the system what segments' frames took: glibc keeps tens of MB a worker in holes between small things."""
    pa.default_memory_pool().release_unused()
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def _way(episode_id: str = "", piece: bytes = b"", rows: bytes = b"", told: str = "") -> pa.Table:
    return pa.Table.from_pylist([{"episode_id": episode_id, "piece": piece, "rows": rows, "told": told}], schema=WAY)


def _ledger_bytes(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, LEDGER) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=LEDGER))
    return sink.getvalue().to_pybytes()


def pools(chain: Sequence[Operator], costs: Mapping[str, float]) -> list[Load]:
    """The operators' pools on the cluster that Ray is connected to. A chain of one takes what there is, and what will be there."""
    import ray

    have = ray.cluster_resources()
    cpus, real = float(have.get("CPU", 0)), float(os.cpu_count() or 1)
    overbooked = len(ray.nodes()) == 1 and cpus > real  # the embedded Ray promises more than there are
    count = workers(chain, costs, min(cpus, real) if overbooked else cpus, float(have.get("GPU", 0)))
    if len(chain) == 1 and not chain[0].resources.pool and not overbooked:
        count = [0]
    return [Load(each.title, number, each.resources.num_cpus, each.resources.num_gpus) for each, number in zip(chain, count, strict=True)]


def stream(store: Store, plan: Plan, chain: Sequence[Operator], sized: Sequence[Load], items: Sequence[Item]) -> Iterator[Told]:
    """Measure the items. Ray must be connected; a worker that dies is replaced and its block measured again."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # progress is told through the execution
    context.target_max_block_size = BLOCK_BYTES
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    rows = _listed(items)
    parts = blocks([(item.episode_id, item.seconds) for item in items], sized[0].workers or int(ray.cluster_resources().get("CPU", 1)))
    data: Any = ray.data.from_arrow([rows.slice(first, last - first).combine_chunks() for first, last in parts])
    for number, (operator, pool) in enumerate(zip(chain, sized, strict=True)):
        wants = operator.resources
        options: dict[str, Any] = {"num_cpus": wants.num_cpus, "num_gpus": wants.num_gpus, "memory": wants.memory, "batch_format": "pyarrow"}
        work: dict[str, Any] = {"store": store, "plan": plan, "chain": chain, "number": number}
        if operator.keeps:
            compute: Any = ray.data.ActorPoolStrategy(size=pool.workers)
            data = data.map_batches(Work, fn_constructor_kwargs=work, compute=compute, batch_size=wants.batch, **options)
        else:
            ahead = 0 if wants.pool else 1  # Ray Data takes 0.2 s to follow a task with the next: one more is there by then
            compute = ray.data.TaskPoolStrategy(size=pool.workers + ahead if pool.workers else None)
            data = data.map_batches(Work(**work), compute=compute, batch_size=None, **options)
    for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield _told(batch)


def _listed(items: Sequence[Item]) -> pa.Table:
    names = ("episode_id", "index", "count", "wanted")
    return pa.table({name: [getattr(item, name) for item in items] for name in names})


def _told(batch: pa.Table) -> Told:
    told = Told()
    for episode, piece, rows, text in zip(batch["episode_id"], batch["piece"], batch["rows"], batch["told"], strict=True):
        if piece.as_buffer().size:
            told.partials.append((episode.as_py(), np.frombuffer(piece.as_buffer(), np.uint8)))
        if rows.as_buffer().size:
            told.rows.append(pa.ipc.open_stream(rows.as_buffer()).read_all())
        if text.as_py():
            said = json.loads(text.as_py())
            told.spans.append(Span(**said["span"]))
            told.failed += [(episode_id, kind, message) for episode_id, kind, message in said["failed"]]
    return told


def joined(store: Store, plan: Plan, *partials: np.ndarray) -> bytes:
    """The finished rows of one longer episode, as LEDGER bytes; run by a worker, since the sums over hours take a while."""
    pieces = [Piece.from_bytes(pa.py_buffer(data)) for data in partials]
    return _ledger_bytes(finish(plan, pieces, read_meta(store, pieces[0].episode_id), store))


def calibrate(store: Store, plan: Plan, chain: Sequence[Operator], items: Sequence[Item]) -> dict[str, float]:
    """stage -> worker seconds per recorded second, from measuring a few segments of this run; loading a model does not count."""
    import ray

    tried = [items[place] for place in sorted({round(number * (len(items) - 1) / TRIED) for number in range(TRIED)})]
    tables = [_listed(tried)]
    spent: dict[str, float] = {}
    for number, operator in enumerate(chain):
        wants = operator.resources
        attempt = ray.remote(num_cpus=wants.num_cpus, num_gpus=wants.num_gpus, memory=wants.memory, max_calls=1)(_tried)
        tables = ray.get(attempt.remote(store, plan, chain, number, tables))
        for span in (span for table in tables for span in _told(table).spans if span.operator == number):
            spent.update(span.stages)
    return {name: seconds / max(sum(item.seconds for item in tried), 1e-3) for name, seconds in spent.items()}


def _tried(store: Store, plan: Plan, chain: Sequence[Operator], number: int, tables: list[pa.Table]) -> list[pa.Table]:
    work = Work(store, plan, chain, number)
    return [made for table in tables for made in work(table)]
