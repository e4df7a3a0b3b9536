"""One segment through the stages, and an episode's partials to its ledger rows: the same functions in this process and in Ray."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import av
import numpy as np
import pyarrow as pa

from ray_jobs.curation.rows import Rows
from ray_jobs.curation.segments import read_lengths, read_rows, read_segment, segment_count, with_frames
from ray_jobs.curation.stage import Measured, Partial, Picks, Segment, Stage, View, effective_versions, error_row, ledger_row
from ray_jobs.curation.stages import DECODE, measuring
from ray_jobs.episode import EpisodeMeta, Stream, read_meta
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.errors import DataError, UserError
from ray_jobs.seam.store import Store

# What content can cause. A StoreError is none of these: a store that fails says nothing about an episode.
CONTENT_ERRORS = (DataError, av.error.FFmpegError, ValueError, IndexError, KeyError, ArithmeticError, np.linalg.LinAlgError)
STREAM_ARRAYS = ("t_ns", "log_ns", "values")
VIEW_ARRAYS = ("t_ns", "log_ns", "frames", "previous")
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What to measure: the stages and their effective versions, by name."""

    settings: MeasureSettings
    stages: dict[str, Stage]
    versions: dict[str, str]

    @classmethod
    def of(cls, settings: MeasureSettings, stages: list[Stage] | None = None) -> "Plan":
        chosen = measuring(settings) if stages is None else stages
        known = {DECODE.name, *(stage.name for stage in chosen)}
        for stage in chosen:
            if missing := set(stage.reads) - known:
                raise UserError(f"the stage {stage.name} reads {sorted(missing)}, which no stage makes; add it to ray_jobs/curation/stages.py")
        versions = effective_versions([DECODE, *chosen], settings)
        return cls(settings, {stage.name: stage for stage in chosen}, {stage.name: versions[stage.name] for stage in chosen})


@dataclass
class Piece:
    """A segment on its way: what is wanted of it, and what the stages have made so far. Errors are the content's."""

    episode_id: str
    index: int
    count: int
    wanted: tuple[str, ...]
    segment: Segment | None = None
    partials: dict[str, Partial] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: tuple[str, str] | None = None  # "absent" or "store", and the message: nothing that the ledger should hold

    def to_bytes(self) -> bytes:
        """For the way between operators. One row per array, so that the reader copies nothing; nothing that could run code when read."""
        meta = self.segment.meta.model_dump(mode="json") if self.segment else None
        head = {key: getattr(self, key) for key in ("episode_id", "index", "count", "wanted", "errors", "seconds", "failed")}
        views: list[dict[str, Any]] = []
        arrays: list[tuple[list[Any], np.ndarray]] = [(["p", stage, name], value) for stage, part in self.partials.items() for name, value in part.items()]
        if self.segment:
            for name, stream in self.segment.streams.items():
                arrays += [(["s", name, key], getattr(stream, key)) for key in STREAM_ARRAYS]
            for pick, cameras in [(None, self.segment.views), *self.segment.picked.items()]:
                for camera, view in cameras.items():
                    arrays += [(["v", len(views), key], getattr(view, key)) for key in VIEW_ARRAYS]
                    views.append({"pick": pick, "camera": camera, "first": view.first})
        text = json.dumps({**head, "meta": meta, "views": views, "made": list(self.partials)})
        labels = [json.dumps([path, value.dtype.str, value.shape]) for path, value in arrays]
        table = pa.table({"label": [text, *labels], "data": pa.array([b"", *(_buffer(value) for _, value in arrays)], pa.large_binary())})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_bytes(cls, data: bytes | pa.Buffer) -> "Piece":
        table = pa.ipc.open_stream(data).read_all().combine_chunks()
        labels, values = table["label"].to_pylist(), table["data"].chunk(0)
        head = json.loads(labels[0])
        partials: dict[str, Partial] = {name: {} for name in head["made"]}
        streams: dict[str, dict[str, np.ndarray]] = {}
        seen: list[dict[str, np.ndarray]] = [{} for _ in head["views"]]
        for row, label in enumerate(labels[1:], 1):
            (kind, owner, name), dtype, shape = json.loads(label)
            value = np.frombuffer(values[row].as_buffer(), np.dtype(dtype)).reshape(shape)
            (partials[owner] if kind == "p" else seen[owner] if kind == "v" else streams.setdefault(owner, {}))[name] = value
        segment = None
        if head["meta"]:
            views: dict[Picks | None, dict[str, View]] = {None: {}}
            for told, fields in zip(head["views"], seen, strict=True):
                views.setdefault(Picks(*told["pick"]) if told["pick"] else None, {})[told["camera"]] = View(first=told["first"], **fields)
            whole = views.pop(None)
            picked = {pick: cameras for pick, cameras in views.items() if pick is not None}
            meta = EpisodeMeta.model_validate(head["meta"])
            segment = Segment(meta, head["index"], head["count"], {name: Stream(**fields) for name, fields in streams.items()}, whole, picked)
        known = {key: head[key] for key in ("episode_id", "index", "count", "errors", "seconds")}
        failed = tuple(head["failed"]) if head["failed"] else None
        return cls(wanted=tuple(head["wanted"]), failed=failed, segment=segment, partials=partials, **known)


def _buffer(value: np.ndarray) -> memoryview:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data if value.size else memoryview(b"")


def guarded(work: Callable[[], T]) -> tuple[T | None, str | None, float]:
    """(result, None, seconds), or (None, what is wrong with the content, seconds)."""
    started = time.perf_counter()
    try:
        return work(), None, time.perf_counter() - started
    except CONTENT_ERRORS as error:
        told = error.strerror if isinstance(error, av.error.FFmpegError) else None  # its text names the file, wherever that was fetched to
        text = (told or str(error)).strip() or type(error).__name__
        kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
        return None, f"{kind}{text.splitlines()[0][:300]}", time.perf_counter() - started


def load(store: Store, plan: Plan, piece: Piece) -> None:
    """Read the segment's streams, and its frames if a wanted stage reads them. Raises StoreError (NotFound: no such episode)."""
    started = time.perf_counter()
    bare, error, _ = guarded(lambda: read_segment(store, read_meta(store, piece.episode_id), piece.index, piece.count))
    if bare is None:
        piece.errors.update(dict.fromkeys(piece.wanted, error or ""))
        return
    piece.segment = bare
    visual = [name for name in piece.wanted if DECODE.name in plan.stages[name].reads]
    if visual:
        wants = [plan.stages[name].picks for name in visual]
        picks = sorted({pick for pick in wants if pick})
        frame_px = plan.settings.frame_px if None in wants else None
        full, error, _ = guarded(lambda: with_frames(bare, store, frame_px, picks))
        if full is None:
            piece.errors.update(dict.fromkeys(visual, error or ""))
        else:
            piece.segment = full
    piece.seconds[DECODE.name] = time.perf_counter() - started


def apply(stage: Stage, *pieces: Piece) -> None:
    """Measure with one stage, of each piece that wants it and with which nothing went wrong before. A bad one does not spoil its batch."""
    ready = [(piece, piece.segment.shown_to(stage)) for piece in pieces if piece.segment and stage.name in piece.wanted and stage.name not in piece.errors]
    if not ready:
        return
    stage.ready()
    made, error, spent = guarded(lambda: stage.measure_batch([segment for _, segment in ready]))
    if made is None and len(ready) > 1:
        for piece, _ in ready:
            apply(stage, piece)
        return
    for place, (piece, _) in enumerate(ready):
        piece.seconds[stage.name] = spent / len(ready)
        if made is None:
            piece.errors[stage.name] = error or ""
        else:
            piece.partials[stage.name] = made[place]


def finish(plan: Plan, pieces: list[Piece], meta: EpisodeMeta | None, store: Store) -> list[dict[str, Any]]:
    """The LEDGER rows of one episode, one per wanted stage, from all its pieces in any order. `meta`: None where every stage has an error.

    Samples come from the piece where it is the whole episode, else from the store. Raises StoreError.
    """
    ordered = sorted(pieces, key=lambda piece: piece.index)
    alone = ordered[0].segment if len(ordered) == 1 else None
    whole: list[Rows] = []  # read once, where any stage gets so far
    rows = []
    for name in ordered[0].wanted:
        stage, version = plan.stages[name], plan.versions[name]
        spent = sum(piece.seconds.get(name, 0.0) for piece in ordered)
        error = next((piece.errors[name] for piece in ordered if name in piece.errors), None)
        measured = None
        if error is None and meta is not None:
            partials = [piece.partials[name] for piece in ordered]
            if not whole:
                whole.append(Rows.of(alone.streams) if alone else read_rows(store, ordered[0].episode_id))
            measured, error, more = guarded(partial(_score, stage, partials, meta, whole[0]))
            spent += more
        now = time.time_ns()
        if measured is None:
            rows.append(error_row(stage, version, ordered[0].episode_id, error or "", spent, now))
        else:
            rows.append(ledger_row(stage, version, ordered[0].episode_id, measured, spent, now))
    return rows


def _score(stage: Stage, partials: list[Partial], meta: EpisodeMeta, rows: Rows) -> Measured:
    return stage.scores(stage.merge(partials), meta, rows)


def measure_here(store: Store, episode_id: str, plan: Plan, wanted: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Measure one episode in this process, without Ray: its LEDGER rows. Raises StoreError (NotFound: no such episode)."""
    meta = read_meta(store, episode_id)
    count = segment_count(read_lengths(store, episode_id), meta.fps, plan.settings.segment_s)
    pieces = []
    for index in range(count):
        piece = Piece(episode_id, index, count, tuple(wanted or plan.stages))
        load(store, plan, piece)
        for stage in plan.stages.values():
            apply(stage, piece)
        if piece.segment:
            piece.segment = replace(piece.segment, views={}, picked={})  # frames are not kept until the end
        pieces.append(piece if count == 1 else replace(piece, segment=None))
    return finish(plan, pieces, meta, store)
