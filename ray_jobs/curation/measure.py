"""One segment through the stages, and an episode's partials to its ledger rows: the same functions in this process and in Ray."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import av
import numpy as np

from ray_jobs.curation.segments import cut, segment_count, with_frames
from ray_jobs.curation.stage import Measured, Partial, Segment, Stage, View, effective_versions, error_row, ledger_row, pack_arrays, unpack_arrays
from ray_jobs.curation.stages import DECODE, measuring
from ray_jobs.episode import EpisodeMeta, Stream, read_episode
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.errors import DataError, UserError
from ray_jobs.seam.store import Store

# What content can cause. A StoreError is none of these: a store that fails says nothing about an episode.
CONTENT_ERRORS = (DataError, av.error.FFmpegError, ValueError, IndexError, KeyError, ArithmeticError, np.linalg.LinAlgError)
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
        """For the way between operators; frames travel along while a later stage wants them."""
        meta = self.segment.meta.model_dump(mode="json") if self.segment else None
        head = {key: getattr(self, key) for key in ("episode_id", "index", "count", "wanted", "errors", "seconds", "failed")}
        arrays: Partial = {f"p/{stage}/{name}": value for stage, part in self.partials.items() for name, value in part.items()}
        views: dict[str, int] = {}
        if self.segment:
            for name, stream in self.segment.streams.items():
                arrays.update({f"s/{name}/{key}": getattr(stream, key) for key in ("t_ns", "log_ns", "values")})
            for name, view in self.segment.views.items():
                views[name] = view.first
                arrays.update({f"v/{name}/{key}": getattr(view, key) for key in ("t_ns", "log_ns", "frames", "previous", "joints")})
        text = json.dumps({**head, "meta": meta, "views": views, "made": list(self.partials)})
        return pack_arrays({**arrays, "head": np.frombuffer(text.encode(), np.uint8)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Piece":
        arrays = unpack_arrays(data)
        head = json.loads(arrays.pop("head").tobytes())
        parts: dict[str, dict[str, dict[str, np.ndarray]]] = {"p": {name: {} for name in head["made"]}, "s": {}, "v": {}}
        for key, value in arrays.items():
            kind, rest = key.split("/", 1)
            owner, name = rest.split("/", 1) if kind == "p" else rest.rsplit("/", 1)
            parts[kind].setdefault(owner, {})[name] = value
        segment = None
        if head["meta"]:
            views = {name: View(first=head["views"][name], **fields) for name, fields in parts["v"].items()}
            streams = {name: Stream(**fields) for name, fields in parts["s"].items()}
            segment = Segment(EpisodeMeta.model_validate(head["meta"]), head["index"], head["count"], streams, views)
        known = {key: head[key] for key in ("episode_id", "index", "count", "errors", "seconds")}
        failed = tuple(head["failed"]) if head["failed"] else None
        return cls(wanted=tuple(head["wanted"]), failed=failed, segment=segment, partials=parts["p"], **known)


def guarded(work: Callable[[], T]) -> tuple[T | None, str | None, float]:
    """(result, None, seconds), or (None, what is wrong with the content, seconds)."""
    started = time.perf_counter()
    try:
        return work(), None, time.perf_counter() - started
    except CONTENT_ERRORS as error:
        text = str(error).strip() or type(error).__name__
        kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
        return None, f"{kind}{text.splitlines()[0][:300]}", time.perf_counter() - started


def load(store: Store, plan: Plan, piece: Piece) -> None:
    """Read the segment's streams, and its frames if a wanted stage reads them. Raises StoreError (NotFound: no such episode)."""
    started = time.perf_counter()
    episode, error, _ = guarded(lambda: read_episode(store, piece.episode_id))
    if episode is None:
        piece.errors.update(dict.fromkeys(piece.wanted, error or ""))
        return
    piece.segment = cut(episode, piece.index, piece.count)
    visual = [name for name in piece.wanted if DECODE.name in plan.stages[name].reads]
    if visual:
        bare = piece.segment
        full, error, _ = guarded(lambda: with_frames(bare, episode, store, plan.settings))
        if full is None:
            piece.errors.update(dict.fromkeys(visual, error or ""))
        else:
            piece.segment = full
    piece.seconds[DECODE.name] = time.perf_counter() - started


def apply(stage: Stage, piece: Piece) -> None:
    """Measure with one stage, if it is wanted and nothing went wrong before."""
    segment = piece.segment
    if stage.name not in piece.wanted or stage.name in piece.errors or segment is None:
        return
    made, error, spent = guarded(lambda: stage.measure(segment))
    piece.seconds[stage.name] = spent
    if made is None:
        piece.errors[stage.name] = error or ""
    else:
        piece.partials[stage.name] = made


def finish(plan: Plan, pieces: list[Piece], meta: EpisodeMeta) -> list[dict[str, Any]]:
    """The LEDGER rows of one episode, one per wanted stage, from all its pieces in any order."""
    ordered = sorted(pieces, key=lambda piece: piece.index)
    rows = []
    for name in ordered[0].wanted:
        stage, version = plan.stages[name], plan.versions[name]
        spent = sum(piece.seconds.get(name, 0.0) for piece in ordered)
        error = next((piece.errors[name] for piece in ordered if name in piece.errors), None)
        measured = None
        if error is None:
            partials = [piece.partials[name] for piece in ordered]
            measured, error, more = guarded(partial(_score, stage, partials, meta))
            spent += more
        now = time.time_ns()
        if measured is None:
            rows.append(error_row(stage, version, ordered[0].episode_id, error or "", spent, now))
        else:
            rows.append(ledger_row(stage, version, ordered[0].episode_id, measured, spent, now))
    return rows


def _score(stage: Stage, partials: list[Partial], meta: EpisodeMeta) -> Measured:
    return stage.scores(stage.merge(partials), meta)


def measure_here(store: Store, episode_id: str, plan: Plan, wanted: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Measure one episode in this process, without Ray: its LEDGER rows. Raises StoreError (NotFound: no such episode)."""
    episode = read_episode(store, episode_id)
    count = segment_count({name: len(stream.t_ns) for name, stream in episode.streams.items()}, episode.meta.fps, plan.settings.segment_s)
    pieces = []
    for index in range(count):
        piece = Piece(episode_id, index, count, tuple(wanted or plan.stages))
        load(store, plan, piece)
        for stage in plan.stages.values():
            apply(stage, piece)
        piece.segment = None  # frames are not kept until the end
        pieces.append(piece)
    return finish(plan, pieces, episode.meta)
