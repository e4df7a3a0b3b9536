"""The measuring job: what the days lack, a Ray Data stream of segments that measures it, and the ledger, which grows meanwhile."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ray_jobs.curation.measure import Plan
from ray_jobs.curation.pools import operators, unsized
from ray_jobs.curation.report import Load, Span, facts, loads, table
from ray_jobs.curation.segments import segment_count
from ray_jobs.curation.stage import Stage
from ray_jobs.curation.stages import DECODE
from ray_jobs.curation.stream import Item, calibrate, joined, pools, stream
from ray_jobs.curation.tagging import captions
from ray_jobs.driver import Execution, connect
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import CaptionSettings, MeasureConfig
from ray_jobs.seam.errors import FlywheelError, StoreError
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Pointer, Shown
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import LEDGER, from_bytes

FLUSH_ROWS = 256
FLUSH_S = 3.0  # a crash loses at most what came in so long
AT_ONCE = 16  # days looked up at a time
ASSET = "measurements"
EPISODE_COLUMNS = ["episode_id", "status", "states", "actions", "frames", "fps"]


@dataclass
class Day:
    """What one day holds, lacks and gets. `episodes`: id -> (streams' lengths, fps) of those that are ok."""

    episodes: dict[str, tuple[dict[str, int], float]]
    held: dict[str, dict[str, str | None]] = field(default_factory=dict)  # stage -> episode -> the row's error
    absent: dict[str, str] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)


class Book:
    """What the driver writes down: rows into the ledger as they come, and who has what."""

    def __init__(self, store: Store, days: Mapping[str, Day], wanted: Iterable[str], execution: Execution) -> None:
        self.store, self.days, self.execution = store, days, execution
        wanted = set(wanted)
        self.owners: dict[str, list[str]] = {}
        for day, found in days.items():
            for episode_id in wanted & found.episodes.keys():
                self.owners.setdefault(episode_id, []).append(day)
        self.totals = {day: len(wanted & found.episodes.keys()) for day, found in days.items()}
        self.pending: list[pa.Table] = []
        self.flushed = time.monotonic()

    def add(self, rows: pa.Table) -> None:
        self.pending.append(rows)
        if sum(part.num_rows for part in self.pending) >= FLUSH_ROWS or time.monotonic() - self.flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Raises StoreError."""
        if not self.pending:
            return
        rows, self.pending, self.flushed = pa.concat_tables(self.pending), [], time.monotonic()
        touched = set()
        parts: dict[tuple[str, str, str], list[int]] = {}
        for place, row in enumerate(rows.select(["episode_id", "stage", "version", "error"]).to_pylist()):
            for day in self.owners[row["episode_id"]]:
                parts.setdefault((day, row["stage"], row["version"]), []).append(place)
                self.days[day].held.setdefault(row["stage"], {})[row["episode_id"]] = row["error"]
                self.days[day].fresh.add(row["episode_id"])
                touched.add(day)
        for (day, stage, version), places in parts.items():
            ledger.append(self.store, stage, version, day, rows.take(places))
        for day in sorted(touched):
            self.execution.progress(day, "curation", len(self.days[day].fresh), self.totals[day])

    def absent(self, episode_id: str, why: str) -> None:
        for day in self.owners[episode_id]:
            self.days[day].absent[episode_id] = why


@dataclass
class Run:
    """What the passes took: the pools, and worker seconds per recorded second of each stage."""

    pools: list[Load] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def run(config: MeasureConfig, execution: Execution, stages: list[Stage] | None = None) -> dict[str, DayResult]:
    """Measure what the ledger does not hold, of every `ok` episode of the days. Raises StoreError; content never raises."""
    plan = captions.planned(Plan.of(config.settings, stages))
    store = execution.store
    days = inventory(store, config.days, config.episodes, plan)
    items = missing(days, plan)
    done, started = Run(), time.monotonic()
    if items:
        _measure(store, plan, items, days, done, execution, config.deadline_s)
    if config.settings.caption:
        _caption(store, config.settings.caption, days, done, execution, config.deadline_s)
    done.seconds = time.monotonic() - started
    return {day: _result(days[day], plan, done) for day in config.days}


def inventory(store: Store, days: Sequence[str], tables: Mapping[str, str], plan: Plan) -> dict[str, Day]:
    """What each day has, by its table of episodes and the ledger; no episode is looked at. Raises StoreError."""

    def episodes(day: str) -> Day:
        rows = from_bytes(store.get(tables[day]), EPISODE_COLUMNS) if day in tables else []
        return Day({row["episode_id"]: (_lengths(row), row["fps"] or 0.0) for row in rows if row["status"] == "ok"})

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(days, pool.map(episodes, days), strict=True))
    for stage, version in plan.versions.items():
        for day, rows in ledger.read_days(store, stage, version, days, ["error"]).items():
            known = found[day].episodes
            found[day].held[stage] = {episode_id: row["error"] for episode_id, row in rows.items() if episode_id in known}
    return found


def _lengths(row: dict[str, Any]) -> dict[str, int]:
    """As segment_count wants them. A camera counts by its frames."""
    return {"camera:": row["frames"]} if row["frames"] else {"state": row["states"] or 0, "action": row["actions"] or 0}


def missing(days: Mapping[str, Day], plan: Plan) -> list[Item]:
    """One item per segment of each episode that lacks a stage, an episode that several days name once; the longest of a day first."""
    items: dict[str, list[Item]] = {}
    for found in days.values():
        for episode_id, (lengths, fps) in sorted(found.episodes.items(), key=lambda pair: (-max(pair[1][0].values()), pair[0])):
            wanted = tuple(stage for stage in plan.stages if episode_id not in found.held.get(stage, {}))
            if wanted and episode_id not in items:
                count = segment_count(lengths, fps, plan.settings.segment_s)
                seconds = max(lengths.values()) / max(fps, 0.1) / count
                items[episode_id] = [Item(episode_id, index, count, wanted, seconds) for index in range(count)]
    return [item for each in items.values() for item in each]


def _measure(store: Store, plan: Plan, items: list[Item], days: dict[str, Day], done: Run, execution: Execution, deadline_s: float) -> None:
    connect()
    import ray

    chain = operators(plan.stages, {name for item in items for name in item.wanted})
    costs: dict[str, float] = {}
    if len(unsized(chain)) > 1:
        needed = {name for operator in chain for name in operator.names}
        costs = known_costs(store, needed) or calibrate(store, plan, chain, items)
    sized = pools(chain, costs)
    book = Book(store, days, {item.episode_id for item in items}, execution)
    spans: list[Span] = []
    waiting: dict[str, list[Any]] = {}  # partials of longer episodes, kept by Ray
    joining: list[Any] = []
    counts = {item.episode_id: item.count for item in items}
    try:
        for told in stream(store, plan, chain, sized, items):
            spans += told.spans
            for episode_id, kind, message in told.failed:
                if kind != "absent":
                    raise StoreError(message)
                book.absent(episode_id, message)
            for rows in told.rows:
                book.add(rows)
            for episode_id, piece in told.partials:
                parts = waiting.setdefault(episode_id, [])
                parts.append(ray.put(piece))
                if len(parts) == counts[episode_id]:
                    joining.append(ray.remote(joined).remote(store, plan, *waiting.pop(episode_id)))
            joining = _joined(joining, book, 0.0)
            if time.monotonic() - execution.started > deadline_s:
                raise FlywheelError(f"measuring reached its deadline of {deadline_s:.0f} s; raise deadline_s: what is measured stays")
        while joining:
            joining = _joined(joining, book, max(1.0, deadline_s - (time.monotonic() - execution.started)))
    finally:
        book.flush()
    done.pools = loads(spans, sized)
    done.costs = {**costs, **_costs(done.pools, items)}


def _joined(joining: list[Any], book: Book, timeout_s: float) -> list[Any]:
    """Write down the longer episodes that are ready; those that are not."""
    import ray

    if not joining:
        return []
    ready, rest = ray.wait(joining, timeout=timeout_s)
    for rows in ray.get(ready):
        book.add(pa.ipc.open_stream(rows).read_all())
    return rest


def _costs(done: Sequence[Load], items: Sequence[Item]) -> dict[str, float]:
    """Worker seconds per recorded second, of each stage by the segments that wanted it."""
    recorded: dict[str, float] = {}
    for item in items:
        for name in (*item.wanted, DECODE.name):
            recorded[name] = recorded.get(name, 0.0) + item.seconds
    return {name: seconds / max(recorded[name], 1e-3) for load in done for name, seconds in load.stages.items()}


def known_costs(store: Store, needed: set[str]) -> dict[str, float] | None:
    """What the stages cost by the latest published day that knows all of them; None where there is none."""
    latest: dict[str, str] = {}
    for entry in store.list(f"partitions/{ASSET}"):
        day = entry.key.split("/")[2]
        latest[day] = max(latest.get(day, ""), entry.key)
    for day in sorted(latest, reverse=True)[:3]:
        costs = Pointer.model_validate_json(store.get(latest[day])).output.get("costs", {})
        if needed <= costs.keys():
            return {name: float(costs[name]) for name in needed}
    return None


def _caption(store: Store, settings: CaptionSettings, days: dict[str, Day], done: Run, execution: Execution, deadline_s: float) -> None:
    """The second pass: what no caption is held of. Its rows enter the ledger as they come, like the others."""
    wanted = {each for found in days.values() for each in found.episodes.keys() - found.absent.keys() - found.held.get(captions.STAGE, {}).keys()}
    if not wanted:
        return
    connect()
    book, began, spent = Book(store, days, wanted, execution), time.time(), 0.0
    try:
        for row in captions.caption(store, settings, sorted(wanted)):
            spent += row["seconds"]
            book.add(pa.Table.from_pylist([row], schema=LEDGER))
            if time.monotonic() - execution.started > deadline_s:
                raise FlywheelError(f"captioning reached its deadline of {deadline_s:.0f} s; raise deadline_s: what is captioned stays")
    finally:
        book.flush()
    gpus = 1.0 if settings.backend == "vllm" and settings.profile == "gpu" else 0.0
    pool = Load(captions.STAGE, settings.workers, 0.0, gpus, spent, time.time() - began, len(wanted), 0, {captions.STAGE: spent})
    done.pools.append(pool)


def _result(found: Day, plan: Plan, done: Run) -> DayResult:
    errors = [f"{stage}: {error}" for stage, rows in sorted(found.held.items()) for _, error in sorted(rows.items()) if error]
    errors += [f"absent: {text}" for text in found.absent.values()]
    counts = {
        "episodes": len(found.episodes),
        "measured": len(found.fresh),
        "reused": len(found.episodes) - len(found.fresh) - len(found.absent.keys() - found.fresh),
        "errors": len({episode_id for rows in found.held.values() for episode_id, error in rows.items() if error} | set(found.absent)),
    }
    held = sorted([f"{stage}/{episode_id}", error or ""] for stage, rows in found.held.items() for episode_id, error in rows.items())
    return DayResult(
        reason=None if found.episodes else "no data",
        counts=counts,
        output={"stages": plan.versions, "costs": {name: round(seconds, 6) for name, seconds in sorted(done.costs.items())}},
        output_digest=digest(plan.versions, held),
        shown=_shown(counts, errors, done if found.fresh else Run()),
    )


def _shown(counts: dict[str, int], errors: list[str], done: Run) -> dict[str, Shown]:
    shown = {f"{name}": Shown(type="int", value=value) for name, value in counts.items()}
    if done.pools:
        shown["stage_times"] = Shown(type="md", value=table(done.pools, done.seconds, f"{counts['measured']} episodes of this day"))
        shown["run_report"] = Shown(type="json", value=facts(done.pools, done.seconds))
        shown["episodes_per_s"] = Shown(type="float", value=round(counts["measured"] / max(done.seconds, 1e-9), 2))
    if errors:
        tally = {text: errors.count(text) for text in dict.fromkeys(errors)}
        rows = "\n".join(f"| {text.replace('|', '/')} | {count} |" for text, count in sorted(tally.items(), key=lambda pair: -pair[1])[:30])
        shown["errors_by_reason"] = Shown(type="md", value="| error | episodes |\n|---|---|\n" + rows)
    return shown
