"""The measuring job: a Ray Data stream of segments through the stages; the ledger grows while it runs."""

import io
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from ray_jobs.curation.measure import Piece, Plan, apply, finish, load
from ray_jobs.curation.segments import PREFIX, segment_count
from ray_jobs.curation.stage import Resources, Stage
from ray_jobs.curation.stages import DECODE
from ray_jobs.curation.tagging import captions
from ray_jobs.driver import Execution, connect
from ray_jobs.episode import EpisodeMeta, read_episode, read_meta
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import CaptionSettings, MeasureConfig
from ray_jobs.seam.errors import FlywheelError, NotFound, StoreError
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import LEDGER, from_bytes

FLUSH_ROWS = 48  # a crash loses at most these
FLUSH_S = 5.0
SEGMENTS_PER_BLOCK = 4


@dataclass
class Day:
    """What one day holds, lacks and gets."""

    episodes: set[str]
    held: dict[str, dict[str, Any]] = field(default_factory=dict)  # "<stage>/<episode>" -> row's error and seconds
    absent: dict[str, str] = field(default_factory=dict)
    measured: int = 0
    fresh: set[str] = field(default_factory=set)


def run(config: MeasureConfig, execution: Execution, stages: list[Stage] | None = None) -> dict[str, DayResult]:
    """Measure what the ledger does not hold, of every `ok` episode of the days. Raises StoreError; content never raises."""
    plan = captions.planned(Plan.of(config.settings, stages))
    store = execution.store
    days = {day: _inventory(store, day, config.episodes.get(day), plan) for day in config.days}
    items = [item for day in config.days for item in _missing(store, day, days[day], plan)]
    started = time.monotonic()
    stage_seconds: dict[str, float] = {}
    if items:
        _measure(store, plan, items, days, stage_seconds, execution, config.deadline_s)
    if config.settings.caption:
        _caption(store, config.settings.caption, days, stage_seconds, execution, config.deadline_s)
    spent = time.monotonic() - started
    return {day: _result(days[day], plan, stage_seconds, spent) for day in config.days}


def _inventory(store: Store, day: str, key: str | None, plan: Plan) -> Day:
    rows = from_bytes(store.get(key)) if key else []
    found = Day({row["episode_id"] for row in rows if row["status"] == "ok"})
    for stage, version in plan.versions.items():
        for episode_id, row in ledger.read(store, stage, version, [day]).items():
            if episode_id in found.episodes:
                found.held[f"{stage}/{episode_id}"] = {"error": row["error"], "seconds": row["seconds"]}
    return found


def _missing(store: Store, day: str, found: Day, plan: Plan) -> Iterator[dict[str, Any]]:
    """One item per segment of each episode that lacks a stage. An episode that is not in the store is noted, not measured."""
    for episode_id in sorted(found.episodes):
        wanted = [stage for stage in plan.stages if f"{stage}/{episode_id}" not in found.held]
        if not wanted:
            continue
        try:
            meta = read_meta(store, episode_id)
        except NotFound as error:
            found.absent[episode_id] = str(error)
            continue
        count = _segments(store, meta, plan)
        for index in range(count):
            yield {"day": day, "episode_id": episode_id, "index": index, "count": count, "wanted": wanted}


def _segments(store: Store, meta: EpisodeMeta, plan: Plan) -> int:
    samples = {f"{PREFIX}{name}": clip.frames for name, clip in meta.cameras.items()}
    if not samples:
        samples = {name: len(stream.t_ns) for name, stream in read_episode(store, meta.episode_id).streams.items()}
    return segment_count(samples, meta.fps, plan.settings.segment_s)


def operators(plan: Plan) -> list[tuple[Resources, list[str]]]:
    """Stages in order, neighbours with the same resources together: they share a task, and the frames stay where they are."""
    groups: list[tuple[Resources, list[str]]] = [(DECODE.resources, [DECODE.name])]
    for name, stage in plan.stages.items():
        if groups[-1][0] == stage.resources:
            groups[-1][1].append(name)
        else:
            groups.append((stage.resources, [name]))
    return groups


def _work(row: dict[str, Any], store: Store, plan: Plan, names: list[str], last: bool) -> dict[str, Any]:
    """One operator's part of one segment. A one-segment episode leaves as finished rows, a longer one's pieces as partials."""
    if "piece" in row:
        piece = Piece.from_bytes(row["piece"])
    else:
        piece = Piece(row["episode_id"], int(row["index"]), int(row["count"]), tuple(row["wanted"]))
    try:
        for name in names:
            if name == DECODE.name:
                load(store, plan, piece)
            else:
                apply(plan.stages[name], piece)
    except StoreError as error:  # no fact about the episode; told to the driver as data, since Ray keeps no cause of an exception
        piece = Piece(piece.episode_id, piece.index, piece.count, ())
        piece.failed = ("absent" if isinstance(error, NotFound) else "store", str(error))
    if not last:
        return {"piece": piece.to_bytes()}
    segment, piece.segment = piece.segment, None
    spent = dict(piece.seconds)
    if piece.count > 1 or segment is None or piece.failed:
        return {"rows": b"", "piece": piece.to_bytes(), "seconds": json.dumps(spent)}
    rows = finish(plan, [piece], segment.meta)
    spent.update({row["stage"]: row["seconds"] for row in rows})
    return {"rows": _pack(rows), "piece": b"", "seconds": json.dumps(spent)}


def _measure(
    store: Store, plan: Plan, items: list[dict[str, Any]], days: dict[str, Day], seconds: dict[str, float], execution: Execution, deadline_s: float
) -> None:
    connect()
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # progress is told through the execution
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context.target_max_block_size = 32 * 1024 * 1024
    whose = {item["episode_id"]: item["day"] for item in items}
    totals = {day: sum(1 for owner in whose.values() if owner == day) for day in days}
    blocks = max(1, -(-len(items) // SEGMENTS_PER_BLOCK))
    data: Any = ray.data.from_items([{key: item[key] for key in ("episode_id", "index", "count", "wanted")} for item in items], override_num_blocks=blocks)
    groups = operators(plan)
    for number, (resources, names) in enumerate(groups):
        work = partial(_work, store=store, plan=plan, names=names, last=number == len(groups) - 1)
        data = data.map(work, compute=ray.data.TaskPoolStrategy(size=resources.pool), num_cpus=resources.num_cpus, memory=resources.memory)
    waiting: dict[str, list[Piece]] = {}
    pending: list[dict[str, Any]] = []
    flushed = time.monotonic()
    try:
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                for name, value in json.loads(row["seconds"]).items():
                    seconds[name] = seconds.get(name, 0.0) + value
                if row["rows"]:
                    pending.extend(_unpack(row["rows"]))
                    continue
                piece = Piece.from_bytes(row["piece"])
                if piece.failed is None:
                    pending.extend(_whole(store, plan, piece, waiting))
                elif piece.failed[0] == "absent":
                    days[whose[piece.episode_id]].absent[piece.episode_id] = piece.failed[1]
                else:
                    raise StoreError(piece.failed[1])
            if time.monotonic() - execution.started > deadline_s:
                raise FlywheelError(f"measuring reached its deadline of {deadline_s:.0f} s; raise deadline_s: what is measured stays")
            if pending and (len(pending) >= FLUSH_ROWS or time.monotonic() - flushed > FLUSH_S):
                _flush(store, pending, whose, days, totals, execution)
                pending, flushed = [], time.monotonic()
    finally:
        _flush(store, pending, whose, days, totals, execution)


def _caption(store: Store, settings: CaptionSettings, days: dict[str, Day], seconds: dict[str, float], execution: Execution, deadline_s: float) -> None:
    """The second pass: what no caption is held of. Its rows enter the ledger as they come, like the others."""
    wanted = {each: day for day, found in days.items() for each in found.episodes - found.absent.keys() if f"{captions.STAGE}/{each}" not in found.held}
    if not wanted:
        return
    connect()
    totals = {day: sum(1 for owner in wanted.values() if owner == day) for day in days}
    pending: list[dict[str, Any]] = []
    try:
        for row in captions.caption(store, settings, sorted(wanted)):
            seconds[captions.STAGE] = seconds.get(captions.STAGE, 0.0) + row["seconds"]
            pending.append(row)
            if time.monotonic() - execution.started > deadline_s:
                raise FlywheelError(f"captioning reached its deadline of {deadline_s:.0f} s; raise deadline_s: what is captioned stays")
            if len(pending) >= FLUSH_ROWS:
                _flush(store, pending, wanted, days, totals, execution)
                pending = []
    finally:
        _flush(store, pending, wanted, days, totals, execution)


def _whole(store: Store, plan: Plan, piece: Piece, waiting: dict[str, list[Piece]]) -> list[dict[str, Any]]:
    """The finished rows of an episode, once its last segment has come."""
    pieces = waiting.setdefault(piece.episode_id, [])
    pieces.append(piece)
    if len(pieces) < piece.count:
        return []
    return finish(plan, waiting.pop(piece.episode_id), read_meta(store, piece.episode_id))


def _flush(store: Store, rows: list[dict[str, Any]], whose: dict[str, str], days: dict[str, Day], totals: dict[str, int], execution: Execution) -> None:
    files: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        files.setdefault((row["stage"], row["version"], whose[row["episode_id"]]), []).append(row)
    for (stage, version, day), part in files.items():
        ledger.append(store, stage, version, day, part)
        for row in part:
            days[day].held[f"{stage}/{row['episode_id']}"] = {"error": row["error"], "seconds": row["seconds"]}
            days[day].fresh.add(row["episode_id"])
            days[day].measured += 1
    for day in sorted({day for _, _, day in files}):
        execution.progress(day, "curation", len(days[day].fresh), totals[day])


def _pack(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, LEDGER) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=LEDGER))
    return sink.getvalue()


def _unpack(data: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.ipc.open_stream(data).read_all().to_pylist()
    return [{**row, "scores": dict(row["scores"]), "vectors": dict(row["vectors"])} for row in rows]


def _result(found: Day, plan: Plan, seconds: dict[str, float], spent: float) -> DayResult:
    errors = [f"{key.split('/', 1)[0]}: {row['error']}" for key, row in sorted(found.held.items()) if row["error"]]
    errors += [f"absent: {text}" for text in found.absent.values()]
    counts = {
        "episodes": len(found.episodes),
        "measured": len(found.fresh),
        "reused": len(found.episodes) - len(found.fresh) - len(found.absent),
        "errors": len({key.split("/", 1)[1] for key, row in found.held.items() if row["error"]} | set(found.absent)),
    }
    facts = sorted([key, row["error"] or ""] for key, row in found.held.items())
    return DayResult(
        reason=None if found.episodes else "no data",
        counts=counts,
        output={"stages": plan.versions},
        output_digest=digest(plan.versions, facts),
        shown=_shown(counts, errors, seconds if found.fresh else {}, spent),
    )


def _shown(counts: dict[str, int], errors: list[str], seconds: dict[str, float], spent: float) -> dict[str, Shown]:
    shown = {f"{name}": Shown(type="int", value=value) for name, value in counts.items()}
    if seconds:
        total = sum(seconds.values())
        slowest = max(seconds, key=lambda name: seconds[name])
        lines = [f"| {name} | {value:.2f} | {value / max(total, 1e-9):.0%} |" for name, value in sorted(seconds.items(), key=lambda pair: -pair[1])]
        table = "| stage | core seconds | share |\n|---|---|---|\n" + "\n".join(lines) + f"\n\nThe bottleneck is **{slowest}**."
        shown["stage_times"] = Shown(type="md", value=table)
        shown["episodes_per_s"] = Shown(type="float", value=round(counts["measured"] / max(spent, 1e-9), 2))
    if errors:
        tally = {text: errors.count(text) for text in dict.fromkeys(errors)}
        rows = "\n".join(f"| {text.replace('|', '/')} | {count} |" for text, count in sorted(tally.items(), key=lambda pair: -pair[1])[:30])
        shown["errors_by_reason"] = Shown(type="md", value="| error | episodes |\n|---|---|\n" + rows)
    return shown
