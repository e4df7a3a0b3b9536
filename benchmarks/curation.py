"""Video-hours per core-hour of the measuring job, against a hand-written loop that runs the same checks on the same episodes.

The loop is what one would write without us: a multiprocessing pool of two over PyAV and NumPy, no Ray, no ledger, no segments. Both
take turns in the same run on the same two cores, with Ray already up; ours includes planning, scheduling and writing the ledger.
"""

import contextlib
import multiprocessing
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.results import figure, write
from fleet.record import record_day
from ray_jobs.curation.agreement import agreement
from ray_jobs.curation.images import look, signature, strip, summary
from ray_jobs.curation.job import run as measure
from ray_jobs.curation.pick_place import blobs, outcome
from ray_jobs.curation.segments import decode, joints_at
from ray_jobs.curation.signals import idleness, in_order, ranges, timing
from ray_jobs.curation.stage import View
from ray_jobs.driver import Execution, connect
from ray_jobs.episode import Episode, open_clip, read_episode
from ray_jobs.ingest.index import index
from ray_jobs.ingest.job import run as ingest
from ray_jobs.seam.configs import IngestConfig, MeasureConfig, MeasureSettings, UploadsConfig
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import from_bytes

DAY = "2026-04-01"
CORES = 2
ROUNDS = 3
GOAL = 0.9
SETTINGS = MeasureSettings(task="pick_place")


def main() -> None:
    report = run()
    ratio = report["ours"] / report["loop"]
    figures = [
        figure("video_hours_per_core_hour", report["ours"], "h/h", ("multiprocess PyAV + NumPy loop", report["loop"]), ratio, f">= {GOAL}", ratio >= GOAL),
        figure("episodes_per_s", report["episodes_per_s"], "episodes/s", None, None, "reported", True),
    ]
    write("curation", figures, rounds=report["rounds"], episodes=report["episodes"])


def run(episodes_per_robot: int = 100) -> dict[str, Any]:
    """{"ours", "loop": video-hours per core-hour, medians of three rounds each; "rounds": seconds; "episodes_per_s"}."""
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
        _ours(config, quiet, store, names[:8])  # both warm: imports, workers
        rounds: dict[str, list[float]] = {"ours": [], "loop": []}
        with multiprocessing.get_context("spawn").Pool(CORES, _open, (home.model_dump_json(),)) as pool:
            pool.map(by_hand, names[:8])
            for _ in range(ROUNDS):
                rounds["ours"].append(_ours(config, quiet, store, names))
                started = time.perf_counter()
                pool.map(by_hand, names, chunksize=4)
                rounds["loop"].append(time.perf_counter() - started)
    rates = {name: hours * 3600 / median(seconds) / CORES for name, seconds in rounds.items()}
    return {**rates, "rounds": rounds, "episodes": len(names), "episodes_per_s": len(names) / median(rounds["ours"])}


def _ours(config: MeasureConfig, execution: Execution, store: Store, names: list[str]) -> float:
    """Seconds to measure everything from an empty ledger."""
    for entry in list(store.list("ledger")):
        if not entry.key.startswith("ledger/ingest"):
            store.delete(entry.key)
    started = time.perf_counter()
    result = measure(config, execution)[DAY]
    assert result.counts["errors"] == 0 and result.counts["measured"] >= len(names)
    return time.perf_counter() - started


_STORE: list[Store] = []


def _open(config: str) -> None:
    _STORE[:] = [Store(StoreConfig.model_validate_json(config))]


def by_hand(episode_id: str) -> dict[str, float]:
    """All checks of one episode, written out: the same pure functions, nothing else."""
    store = _STORE[0]
    episode = read_episode(store, episode_id)
    scores = _signals(episode)
    for camera, clip in episode.meta.cameras.items():
        stream = episode.streams[f"camera:{camera}"]
        with open_clip(store, episode_id, camera) as path:
            frames = decode(str(path), clip.lead_in, clip.lead_in + len(stream.t_ns), SETTINGS.frame_px)
        joints = joints_at(episode.streams.get("state"), stream.t_ns)
        part = look(View(stream.t_ns, stream.log_ns, 0, frames, frames[:0], joints))
        scores.update(summary(part, episode.meta.fps))
        signature(part["thumbs"])
        strip(part["thumbs"])
        scores.update(outcome(*blobs(frames)))
    return scores


def _signals(episode: Episode) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, stream in episode.streams.items():
        scores.update({f"{name}.{key}": value for key, value in timing(stream.t_ns, stream.log_ns).items()})
    state_t, state = in_order(episode.streams["state"].t_ns, episode.streams["state"].values.astype(float))
    action_t, action = in_order(episode.streams["action"].t_ns, episode.streams["action"].values.astype(float))
    ranges(state)
    ranges(action)
    scores.update(idleness(state_t, state))
    with contextlib.suppress(ValueError):
        found = agreement((state_t - state_t[0]) / 1e9, state, (action_t - state_t[0]) / 1e9, action)
        scores.update({"command.r2": found.r2} if found else {})
    return scores


if __name__ == "__main__":
    main()
