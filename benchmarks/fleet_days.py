"""Days of the simulated fleet, recorded with damage, ingested and measured as the loop does, and judged as often as one likes."""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.record import record_day
from fleet.truth import TruthRow, read_truth
from orchestration.curation.decide import decide
from orchestration.curation.thresholds import Thresholds
from ray_jobs.curation.images import Images
from ray_jobs.curation.job import run as measure
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.curation.pick_place import PickPlace
from ray_jobs.curation.signals import Signal
from ray_jobs.curation.stage import Stage
from ray_jobs.driver import Execution
from ray_jobs.ingest.index import index
from ray_jobs.ingest.job import read_upload
from ray_jobs.ingest.job import run as ingest
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import IngestConfig, IngestSettings, MeasureConfig, MeasureSettings, UploadsConfig
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import from_bytes

SETTINGS = MeasureSettings(task="pick_place")
STAGES: list[Stage] = [Signal(), Images(), PickPlace()]
MATCH_NS = 3_000_000_000


@dataclass(frozen=True)
class FleetDays:
    """tables: day -> key of EPISODES; stages: day -> stage -> version; truth: what was planted."""

    store: Store
    tables: dict[str, str]
    stages: dict[str, dict[str, str]]
    truth: list[TruthRow]

    def judged(self) -> list[dict[str, Any]]:
        """Verdicts of all days with the default thresholds, each with its episode's `start_ns`."""
        verdicts = []
        for day, table in self.tables.items():
            published = Pointer(asset="episodes", day=day, generation="1", run_id="bench", output={"episodes": table})
            self.store.put(pointer("episodes", day, "1"), published.model_dump_json().encode())
            decided = decide(self.store, day, table, self.stages[day], Thresholds.load())
            starts = {(row["episode_id"], row["upload"]): row["start_ns"] for row in from_bytes(self.store.get(table))}
            verdicts += [{**row, "start_ns": starts[row["episode_id"], row["upload"]]} for row in decided.rows]
        return verdicts


def record(base: Path, seeds: tuple[int, ...], episodes_per_robot: int, planted: tuple[str, ...], strong: float, damaged: float = 0.4) -> FleetDays:
    """One day per seed, below `base`, by two processes."""
    days = [f"2026-03-{number + 1:02d}" for number in range(len(seeds))]
    for day, seed in zip(days, seeds, strict=True):
        record_day(
            base / "raw", base / "truth", day, seed=seed, episodes_per_robot=episodes_per_robot, planted=planted, workers=2, strong=strong, damaged=damaged
        )
    raw, home = StoreConfig.local(base / "raw"), StoreConfig.local(base / "store")
    store = Store(home)
    execution = Execution(store, "attempts/bench/a1/x", report=lambda message: None)
    uploads = index(UploadsConfig(store=home, raw=raw))
    orders = [(home, raw, row) for row in from_bytes(store.get(uploads.key)) if row["status"] == "ok"]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_work, orders, chunksize=2)
    # Everything is in the ledgers: the jobs themselves have nothing left to do, and need no Ray.
    found = ingest(IngestConfig(store=home, raw=raw, days=tuple(days), uploads=uploads.key), execution)
    tables = {day: found[day].output["episodes"] for day in days}
    measured = measure(MeasureConfig(store=home, days=tuple(days), episodes=tables, settings=SETTINGS), execution, STAGES)
    return FleetDays(store, tables, {day: measured[day].output["stages"] for day in days}, read_truth(base / "truth"))


def _work(order: tuple[StoreConfig, StoreConfig, dict[str, Any]]) -> None:
    """Read one upload and measure its episodes in this process: by test the same rows as the Ray jobs make."""
    home, raw, upload = order
    store, plan = Store(home), Plan.of(SETTINGS, STAGES)
    for row in read_upload(store, Store(raw), upload, IngestSettings()):
        if row["status"] == "ok":
            for fact in measure_here(store, row["episode_id"], plan):
                ledger.append(store, fact["stage"], fact["version"], row["day"], [fact])


def verdict_of(row: TruthRow, by_file: dict[str, list[dict[str, Any]]]) -> dict[str, Any] | None:
    """The verdict on that episode, or None where ingest could not make it an episode at all (which quarantines it)."""
    near = [item for item in by_file[row.file] if item["start_ns"] is not None and abs(item["start_ns"] - row.start_ns) < MATCH_NS]
    return min(near, key=lambda item: abs(item["start_ns"] - row.start_ns)) if near else None
