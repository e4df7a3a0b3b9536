"""How many planted defects the checks find, and how many clean episodes they drop. The only reader of the planted truth.

`python -m benchmarks.detection`: records days with seeds that no threshold was tuned on, ingests, measures and judges them as the
loop does, and compares the verdicts with the truth, per kind and severity. Thresholds were tuned on seeds 0-4.
"""

import multiprocessing
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.results import figure, write
from fleet.defects import DEFECTS, PLANTED
from fleet.record import record_day
from fleet.truth import TruthRow, read_truth
from orchestration.curation.decide import decide
from orchestration.curation.thresholds import Thresholds
from ray_jobs.curation.job import run as measure
from ray_jobs.curation.measure import Plan, measure_here
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

SEEDS = tuple(range(1001, 1009))  # never used for tuning
HELD_OUT = tuple(name for name in DEFECTS if name not in PLANTED)
HARMLESS = ("camera_lag", "duplicate_upload")  # harmless to the demo's policy (reference: simulation.md), or only wasteful
SETTINGS = MeasureSettings(task="pick_place")
MATCH_NS = 3_000_000_000
Cell = tuple[str, str]


def main() -> None:
    report = run()
    write("detection", figures(report), seeds=list(SEEDS), clean_dropped_for=report["why"])


def run(seeds: tuple[int, ...] = SEEDS, episodes_per_robot: int = 24) -> dict[str, Any]:
    """{"cells": {(kind, severity): {"planted", "found", "reasons"}}, "clean", "false_positives", "why"}; each seed is one day."""
    with tempfile.TemporaryDirectory(prefix="detection-") as folder:
        base = Path(folder)
        verdicts, truth = _judged(base, seeds, episodes_per_robot)
    return compare(verdicts, truth)


def _judged(base: Path, seeds: tuple[int, ...], episodes_per_robot: int) -> tuple[list[dict[str, Any]], list[TruthRow]]:
    days = [f"2026-03-{number + 1:02d}" for number in range(len(seeds))]
    for day, seed in zip(days, seeds, strict=True):
        record_day(base / "raw", base / "truth", day, seed=seed, episodes_per_robot=episodes_per_robot, planted=PLANTED + HELD_OUT, workers=2)
    raw, home = StoreConfig.local(base / "raw"), StoreConfig.local(base / "store")
    store = Store(home)
    execution = Execution(store, "attempts/detection/a1/x", report=lambda message: None)
    uploads = index(UploadsConfig(store=home, raw=raw))
    orders = [(home, raw, row) for row in from_bytes(store.get(uploads.key)) if row["status"] == "ok"]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_work, orders, chunksize=2)
    # Everything is in the ledgers: the jobs themselves have nothing left to do, and need no Ray.
    found = ingest(IngestConfig(store=home, raw=raw, days=tuple(days), uploads=uploads.key), execution)
    tables = {day: found[day].output["episodes"] for day in days}
    measured = measure(MeasureConfig(store=home, days=tuple(days), episodes=tables, settings=SETTINGS), execution)
    verdicts = []
    for day in days:
        published = Pointer(asset="episodes", day=day, generation="1", run_id="detection", output={"episodes": tables[day]})
        store.put(pointer("episodes", day, "1"), published.model_dump_json().encode())
        decided = decide(store, day, tables[day], measured[day].output["stages"], Thresholds.load())
        starts = {(row["episode_id"], row["upload"]): row["start_ns"] for row in from_bytes(store.get(tables[day]))}
        verdicts += [{**row, "start_ns": starts[row["episode_id"], row["upload"]]} for row in decided.rows]
    return verdicts, read_truth(base / "truth")


def _work(order: tuple[StoreConfig, StoreConfig, dict[str, Any]]) -> None:
    """Read one upload and measure its episodes in this process: by test the same rows as the Ray jobs make."""
    home, raw, upload = order
    store, plan = Store(home), Plan.of(SETTINGS)
    for row in read_upload(store, Store(raw), upload, IngestSettings()):
        if row["status"] == "ok":
            for fact in measure_here(store, row["episode_id"], plan):
                ledger.append(store, fact["stage"], fact["version"], row["day"], [fact])


def compare(verdicts: list[dict[str, Any]], truth: list[TruthRow]) -> dict[str, Any]:
    """A damaged episode is found when it is not kept. Of a duplicate pair either may be the one that is kept."""
    by_file: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for judged in verdicts:
        by_file[judged["upload"]].append(judged)
    copied = {(row.duplicate_of, row.episode) for row in truth if row.duplicate_of}
    originals = {(row.file, row.episode): row for row in truth}
    cells: dict[Cell, dict[str, Any]] = {}
    clean, why, dropped = 0, Counter[str](), 0
    for row in truth:
        verdict = _verdict_of(row, by_file)
        kept = verdict is not None and verdict["verdict"] == "kept"
        reasons = [reason.split(":", 1)[0] for reason in verdict["reasons"] if not reason.startswith("note:")] if verdict else ["unreadable"]
        if row.duplicate_of:
            original = originals[row.duplicate_of, row.episode]
            both = kept and (twin := _verdict_of(original, by_file)) is not None and twin["verdict"] == "kept"
            _count(cells, (str(row.defect), str(row.severity)), not both, reasons)
        elif row.defect:
            _count(cells, (row.defect, str(row.severity)), not kept, reasons)
        elif (row.file, row.episode) not in copied:  # an original that was copied may be dropped for its copy
            clean += 1
            dropped += not kept
            why.update(() if kept else reasons)
    return {"cells": cells, "clean": clean, "false_positives": dropped, "why": dict(why)}


def _verdict_of(row: TruthRow, by_file: dict[str, list[dict[str, Any]]]) -> dict[str, Any] | None:
    """The verdict on that episode, or None where ingest could not make it an episode at all (which quarantines it)."""
    near = [item for item in by_file[row.file] if item["start_ns"] is not None and abs(item["start_ns"] - row.start_ns) < MATCH_NS]
    return min(near, key=lambda item: abs(item["start_ns"] - row.start_ns)) if near else None


def _count(cells: dict[Cell, dict[str, Any]], cell: Cell, found: bool, reasons: list[str]) -> None:
    entry = cells.setdefault(cell, {"planted": 0, "found": 0, "reasons": Counter()})
    entry["planted"] += 1
    entry["found"] += found
    entry["reasons"].update(reasons if found else ())


def figures(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Recall per kind and severity (a goal only for what harms and is strong and was not held out), and the false-positive rate."""
    found = []
    print(f"{'defect':24}{'severity':10}{'planted':>8}{'found':>7}  by")
    for (kind, severity), cell in sorted(report["cells"].items()):
        recall = cell["found"] / cell["planted"]
        print(f"{kind:24}{severity:10}{cell['planted']:8}{recall:7.0%}  {', '.join(f'{name} {count}' for name, count in cell['reasons'].most_common(3))}")
        asked = severity == "strong" and kind in PLANTED and kind not in HARMLESS
        label = f"recall.{kind}.{severity}" + (".held_out" if kind in HELD_OUT else "")
        goal, met = ("> 0.9", recall > 0.9) if asked else ("reported", True)
        found.append(figure(label, recall, f"share of {cell['planted']}", None, None, goal, met))
    rate = report["false_positives"] / max(report["clean"], 1)
    print(f"false positives: {report['false_positives']} of {report['clean']} clean episodes, {rate:.1%} {report['why']}")
    found.append(figure("false_positive_rate", rate, f"share of {report['clean']} clean", None, None, "< 0.05", rate < 0.05))
    return found


if __name__ == "__main__":
    main()
