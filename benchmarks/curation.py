"""Video-hours per core-hour of the measuring job, beside other ways to run the same checks on the same episodes on the same cores.

* loop: what one would write without us: a multiprocessing pool over PyAV and NumPy; no Ray, no ledger, no segments, nothing kept
* naive: Ray Data as its tutorial has it: from_items, map one episode, default settings, write_parquet
* Daft: the same function as its user-defined step, in an environment of its own (benchmarks.engines)

All take turns in one run, with Ray up and every worker warm; ours includes planning, scheduling and writing the ledger. All but the loop
write what they found. `python -m benchmarks.curation --episodes 20` is a small run.
"""

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.curation_step import SETTINGS, STAGES, by_hand, opened
from benchmarks.engines import Peer, peers
from benchmarks.results import figure, write
from fleet.record import record_day
from ray_jobs.curation.job import run as measure
from ray_jobs.driver import Execution, connect
from ray_jobs.ingest.index import index
from ray_jobs.ingest.job import run as ingest
from ray_jobs.seam.configs import IngestConfig, MeasureConfig, UploadsConfig
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import from_bytes

DAY = "2026-04-01"
CORES = 2
ROUNDS = 3
GOAL = 0.9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=100, help="per robot; there are three")
    report = run(parser.parse_args().episodes)
    ours = report["rates"]["ours"]
    figures = []
    for name, rate in report["rates"].items():
        if name != "ours":
            goal = (f">= {GOAL}", ours / rate >= GOAL) if name == "loop" else ("reported", True)
            figures.append(figure(f"video_hours_per_core_hour.{name}", ours, "h/h", (TITLES.get(name, name), rate), ours / rate, *goal))
    figures.append(figure("episodes_per_s", report["episodes_per_s"], "episodes/s", None, None, "reported", True))
    write("curation", figures, **{name: report[name] for name in ("rounds", "episodes", "left_out")})


TITLES = {"loop": "multiprocess PyAV + NumPy loop", "naive": "Ray Data, one episode per row, default settings"}


def run(episodes_per_robot: int = 100) -> dict[str, Any]:
    """{"rates": name -> video-hours per core-hour by the median round; "rounds": seconds; "episodes_per_s"; "left_out": peer -> why}."""
    with tempfile.TemporaryDirectory(prefix="bench-curation-") as folder:
        base = Path(folder)
        record_day(base / "raw", base / "truth", DAY, seed=77, episodes_per_robot=episodes_per_robot, damaged=0.0, workers=CORES)
        home, raw = StoreConfig.local(base / "store"), StoreConfig.local(base / "raw")
        store = Store(home)
        connect()
        quiet = Execution(store, "attempts/bench/a1/x", report=lambda message: None)
        key = index(UploadsConfig(store=home, raw=raw)).key
        table = ingest(IngestConfig(store=home, raw=raw, days=(DAY,), uploads=key), quiet)[DAY].output["episodes"]
        rows = [row for row in from_bytes(store.get(table)) if row["status"] == "ok"]
        hours = sum(row["frames"] / row["fps"] for row in rows) / 3600
        names = [row["episode_id"] for row in rows]
        config = MeasureConfig(store=home, days=(DAY,), episodes={DAY: table}, settings=SETTINGS)
        with multiprocessing.get_context("spawn").Pool(CORES, opened, (home.model_dump_json(),)) as pool, peers(home, CORES) as (others, left_out):
            ways: dict[str, Callable[[list[str]], None]] = {
                "ours": lambda wanted: _ours(config, quiet, store, wanted),
                "loop": lambda wanted: _loop(pool, wanted),
                "naive": lambda wanted: _naive(home, base / "naive", wanted),
                **{name: _peer(each, base / name) for name, each in others.items()},
            }
            rounds: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(ROUNDS + 1):
                for name, way in ways.items():
                    started = time.perf_counter()
                    way(names)
                    if number:  # the first round is for imports and workers
                        rounds[name].append(round(time.perf_counter() - started, 3))
    rates = {name: hours * 3600 / median(seconds) / CORES for name, seconds in rounds.items()}
    return {"rates": rates, "rounds": rounds, "episodes": len(names), "episodes_per_s": len(names) / median(rounds["ours"]), "left_out": left_out}


def _ours(config: MeasureConfig, execution: Execution, store: Store, names: list[str]) -> None:
    """Measure everything from an empty ledger."""
    for stage in STAGES:
        shutil.rmtree(next(Path(str(store.root)).glob(f"ledger/{stage.name}@*"), "absent"), ignore_errors=True)
    result = measure(config, execution)[DAY]
    assert result.counts["errors"] == 0 and result.counts["measured"] == len(names), result.counts


def _loop(pool: Any, names: list[str]) -> None:
    assert len(pool.map(by_hand, names, chunksize=4)) == len(names)


def _naive(home: StoreConfig, target: Path, names: list[str]) -> None:
    import ray

    shutil.rmtree(target, ignore_errors=True)
    document = home.model_dump_json()

    def work(row: dict[str, Any]) -> dict[str, Any]:
        opened(document)
        return {"episode_id": row["item"], "scores": by_hand(row["item"])}

    ray.data.from_items(names).map(work).write_parquet(str(target))


def _peer(peer: Peer, target: Path) -> Callable[[list[str]], None]:
    return lambda names: peer.measure(names, target)


if __name__ == "__main__":
    main()
