"""Whether the measuring job keeps up as the work grows, on made-up episodes. `python -m benchmarks.growth [part …] [--scale 0.1]`.

* memory: 1, 10 and 100 times the episodes: peak memory (PSS) of the driver, Ray and its workers together
* long: one recording of three hours among 200 of ten seconds, against these alone: peak memory, and how long workers stood idle
* ledger: a million rows: written as many small files, merged, one day read, all of it looked up
* planning: how long until a job of 365 days knows what it has to do
* fed: a stage of fixed service time, like a GPU that nobody else uses: the share of its time that it works
"""

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa

from benchmarks.results import figure, write_part
from benchmarks.served_stage import Served
from ray_jobs.curation.job import inventory, missing
from ray_jobs.curation.job import run as measure
from ray_jobs.curation.measure import Plan
from ray_jobs.curation.stage import Stage
from ray_jobs.driver import Execution, connect
from ray_jobs.episode import Clip, Episode, EpisodeMeta, Stream, write_episode
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import MeasureConfig, MeasureSettings
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import EPISODES, LEDGER, to_bytes

FPS, STATES_HZ, START_NS = 30, 100, 1_790_000_000_000_000_000
SETTINGS = MeasureSettings()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    for part in given.parts:
        load = os.getloadavg()[0]
        figures, details = PARTS[part](given.scale)
        write_part("growth", part, list(PARTS), figures, {"scale": given.scale, "load": [round(load, 1), round(os.getloadavg()[0], 1)], **details})


def memory(scale: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    peaks = {}
    for times in (1, 10, 100):
        count = max(2, round(10 * times * scale))
        with _store() as store:
            table = _recorded(store, {f"{number:032x}": 10.0 for number in range(count)})
            peaks[count] = _measured(store, table)
    most, least = max(peaks.values(), key=lambda run: run["peak_mb"]), next(iter(peaks.values()))
    ratio = most["peak_mb"] / least["peak_mb"]
    name = f"peak memory at {max(peaks)} episodes against {min(peaks)}"
    return [figure("memory.growth", most["peak_mb"], "MB", (name, least["peak_mb"]), ratio, "<= 1.2", ratio <= 1.2)], {
        str(key): run for key, run in peaks.items()
    }


def long(scale: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    shorts = {f"{number:032x}": 10.0 for number in range(max(20, round(200 * scale)))}
    with _store() as store:
        alone = _measured(store, _recorded(store, shorts))
    with _store() as store:
        table = _recorded(store, {**shorts, "f" * 32: 3 * 3600 * scale})
        beside = _measured(store, table)
    ratio = beside["peak_mb"] / alone["peak_mb"]
    figures = [
        figure("long.memory", beside["peak_mb"], "MB", ("the short ones alone", alone["peak_mb"]), ratio, "<= 1.2", ratio <= 1.2),
        figure("long.idle", beside["idle"], "share of the workers' time", ("the short ones alone", alone["idle"]), None, "<= 0.1", beside["idle"] <= 0.1),
    ]
    return figures, {"alone": alone, "beside": beside, "hours": 3 * scale}


def ledger_rows(scale: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows as a day of 1,000 episodes has them, 16 to a file, in days enough for a million."""
    days = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(max(2, round(1000 * scale)))]
    with _store() as store:
        for number, day in enumerate(days):
            table = _facts(f"{number:05x}", 1000, 0.25)
            for first in range(0, 1000, 16) if number % 100 == 0 else (0,):  # a hundredth of the days as small files: the others merged before
                ledger.append(store, "image", "1", day, table.slice(first, 16 if number % 100 == 0 else 1000))
        for entry in store.list("ledger"):  # all of it is old
            path = Path(str(store.root)) / entry.key
            os.utime(path, (path.stat().st_mtime - 2 * ledger.GRACE_S,) * 2)
        before = _timed(lambda: ledger.read(store, "image", "1", days[:1]))
        merged = _timed(lambda: ledger.compact(store, 3600))
        after = _timed(lambda: ledger.read(store, "image", "1", days[:1]))
        looked = _timed(lambda: ledger.read_days(store, "image", "1", days, ["error"]))
    rows = 1000 * len(days)
    figures = [
        figure("ledger.lookup", looked, f"s for {rows} rows", None, None, "reported", True),
        figure("ledger.day", after, "s for 1000 rows", ("63 small files", before), after / before, "reported", True),
        figure("ledger.merge", merged, f"s for {-(-len(days) // 100)} days of 63 files", None, None, "reported", True),
    ]
    return figures, {"rows": rows}


def planning(scale: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A year of 100 episodes a day, all stages held of all but the last day."""
    days = tuple((date(2025, 1, 1) + timedelta(days=number)).isoformat() for number in range(max(2, round(365 * scale))))
    plan = Plan.of(SETTINGS)
    with _store() as store:
        tables = {}
        for number, day in enumerate(days):
            tables[day] = f"tables/{day}.parquet"
            store.put(tables[day], to_bytes([_row(f"{number:05x}{each:027x}", 10.0) for each in range(100)], EPISODES))
            for stage, version in plan.versions.items() if day != days[-1] else ():
                ledger.append(store, stage, version, day, _facts(f"{number:05x}", 100, 4.0, stage, version))
        found: list[Any] = []
        seconds = _timed(lambda: found.extend(missing(inventory(store, days, tables, plan), plan)))
    assert len(found) == 100, len(found)
    unit = f"s for {len(days)} days, {100 * len(days) * len(plan.stages)} rows"
    return [figure("planning.year", seconds, unit, None, None, "reported", True)], {"days": len(days), "stages": len(plan.stages)}


def fed(scale: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Ten seconds of recording take it half a second, which decoding on two cores can keep up with."""
    count, service_s = max(10, round(100 * scale)), 0.5
    with _store() as store:
        report = _report(store, _recorded(store, {f"{number:032x}": 10.0 for number in range(count)}), [Served(service_s)])
    decode, served = report["operators"]
    use = 1 - served["idle"]
    figures = [figure("fed.use", use, "share of its time that the stage works", None, None, ">= 0.85", use >= 0.85)]
    return figures, {
        "episodes": count,
        "service_s": service_s,
        "worked_s": served["busy_s"],
        "of_s": served["wall_s"],
        "decoding_worked": round(1 - decode["idle"], 4),
    }


PARTS: dict[str, Callable[[float], tuple[list[dict[str, Any]], dict[str, Any]]]] = {
    "planning": planning,
    "ledger": ledger_rows,
    "memory": memory,
    "long": long,
    "fed": fed,
}


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def _store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        yield Store(StoreConfig.local(folder))


def _recorded(store: Store, lengths_s: dict[str, float]) -> str:
    """Episodes of these lengths. Their table's key. Made in a process of its own, whose memory is not the job's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_record, (store, lengths_s))


def _record(store: Store, lengths_s: dict[str, float]) -> str:
    """14 joints at 100 Hz, one 128x96 camera at 30 Hz; one video serves all of one length."""
    videos: dict[float, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        for episode_id, seconds in lengths_s.items():
            if seconds not in videos:
                videos[seconds] = Path(folder) / f"{seconds}.mp4"
                _film(videos[seconds], round(seconds * FPS))
            write_episode(store, _episode(episode_id, seconds), {"front": videos[seconds]})
    store.put("tables/day.parquet", to_bytes([_row(episode_id, seconds) for episode_id, seconds in lengths_s.items()], EPISODES))
    return "tables/day.parquet"


def _film(path: Path, frames: int) -> None:
    """A bright square on its way to and fro, and a background that is not plain."""
    rows, columns = np.mgrid[0:96, 0:128]
    background = np.repeat((100 + 60 * np.sin(rows / 9) * np.cos(columns / 11))[..., None], 3, axis=2).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"crf": "30", "preset": "ultrafast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 128, 96, "yuv420p", 60
        for number in range(frames):
            picture = background.copy()
            left = round(50 + 48 * np.sin(number / 17))
            picture[30:60, left : left + 24] = 240
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _episode(episode_id: str, seconds: float) -> Episode:
    meta = EpisodeMeta(
        episode_id=episode_id,
        robot="arm",
        task="test",
        fps=FPS,
        state_names=tuple("abcdefghijklmn"),
        action_names=tuple("abcdefghijklmn"),
        cameras={"front": Clip(codec="h264", width=128, height=96, frames=round(seconds * FPS))},
        source="mcap",
        upload="made",
    )
    times = START_NS + (np.arange(round(seconds * STATES_HZ)) * 1e9 / STATES_HZ).astype(np.int64)
    phases = np.arange(14) + int(episode_id[:8], 16) % 7
    values = np.sin(np.arange(len(times))[:, None] / (30 + phases)).astype(np.float32)
    frames = START_NS + (np.arange(round(seconds * FPS)) * 1e9 / FPS).astype(np.int64)
    arm = Stream(times, times, values)
    return Episode(meta, {"state": arm, "action": arm, "camera:front": Stream(frames, frames, np.zeros((len(frames), 0), np.float32))})


def _row(episode_id: str, seconds: float) -> dict[str, Any]:
    counts = {"states": round(seconds * STATES_HZ), "actions": round(seconds * STATES_HZ), "frames": round(seconds * FPS)}
    known = {"episode_id": episode_id, "status": "ok", "robot": "arm", "fps": float(FPS), "cameras": ["front"], "notes": [], **counts}
    return {**dict.fromkeys(EPISODES.names), **known}


def _facts(prefix: str, count: int, kilobytes: float, stage: str = "image", version: str = "1") -> pa.Table:
    """LEDGER rows of a usual size."""
    draw = np.random.default_rng(0)
    picture = draw.bytes(round(kilobytes * 1024))
    scores = [(f"image.{name}:front", float(name)) for name in range(20)]
    row = {"stage": stage, "version": version, "scores": scores, "vectors": [("background:front", draw.normal(size=320).astype(np.float32))]}
    rows = [{**row, "tags": [], "picture": picture, "error": None, "seconds": 0.03, "measured_ns": START_NS} for _ in range(count)]
    return pa.Table.from_pylist([{**each, "episode_id": f"{prefix}{number:027x}"} for number, each in enumerate(rows)], schema=LEDGER)


def _measured(store: Store, table: str) -> dict[str, float]:
    """Measure a day once on a warm Ray: peak memory above the idle Ray's, seconds, and the idle share of the pool."""
    connect()
    with _peak() as peak:
        report = _report(store, table)
    return {"peak_mb": round(max(peak), 1), "seconds": report["wall_s"], "idle": report["operators"][0]["idle"], "episodes": report["episodes"]}


def _report(store: Store, table: str, stages: list[Stage] | None = None) -> dict[str, Any]:
    """The run report of measuring the day's episodes, none of which may have an error."""
    connect()
    config = MeasureConfig(store=store.config, days=("2026-01-01",), episodes={"2026-01-01": table}, settings=SETTINGS)
    result = measure(config, Execution(store, "attempts/bench/a1/x", report=lambda message: None), stages)["2026-01-01"]
    assert result.counts["errors"] == 0, result.shown["errors_by_reason"].value
    return {"episodes": result.counts["episodes"], **result.shown["run_report"].value}


@contextmanager
def _peak() -> Iterator[list[float]]:
    """Samples of the memory (PSS, MB) of this process and all that it started, every half second."""
    samples, over = [_memory_mb()], threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            samples.append(_memory_mb())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def _memory_mb() -> float:
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    mine, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in mine} - mine
        grown, mine = bool(more), mine | more
    total = 0
    for pid in mine:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


if __name__ == "__main__":
    main()
