"""How well training is fed, what a checkpoint costs, and what a killed worker costs: `python -m benchmarks.training [PART …] [--batches N …] [--steps N]`.

A step of 20 ms stands for a GPU (training_step.py). Fed: samples/s while the video is decoded by Ray Data on other CPUs, beside the same loop with everything
decoded in memory, in turns, for larger and larger batches, until decoding no longer keeps up. Beside them LeRobot's own loader, in an environment of its own
(tests/oracle), on the same files. What a part found is kept until it is measured again.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch

from benchmarks.results import RESULTS, figure, write
from benchmarks.training_step import SERVICE_S, Timed
from ray_jobs.driver import Execution
from ray_jobs.packing.view import PackedEpisode, episodes_of
from ray_jobs.seam.configs import DayDataset, TrainConfig, TrainSettings
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training import checkpoint
from ray_jobs.training.features import find_extractor
from ray_jobs.training.ingest import Part, read_parts
from ray_jobs.training.job import run
from ray_jobs.training.loop import State, fresh, train
from ray_jobs.training.plan import make_plan, moment_bytes
from ray_jobs.training.policy import build_policy
from ray_jobs.training.samples import Batch, Moments, statistics
from ray_jobs.training.spec import PolicyConfig
from ray_jobs.training.stream import Fetch, Reader, batches, resident
from tests.environments import environment
from tests.training.faulty import faults
from tests.training.recorded import DAY, demo_day

ROOT = Path(__file__).parents[1]
POLICY = "benchmarks.training_step:Timed"
EPISODES = 200
BATCHES = (8, 16, 32, 64)
STEPS = 300
WARM = 20  # steps that are not counted: until then Ray Data grants one task at a time
CPUS = os.cpu_count() or 1
GOAL = 0.95
WEIGHTS = 5_000_000  # of the checkpoint that is measured: 60 MB with its two moments
PARTS = ("fed", "checkpoint", "killed")


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("parts", nargs="*", default=list(PARTS))
    asked.add_argument("--batches", type=int, nargs="*", default=list(BATCHES))
    asked.add_argument("--steps", type=int, default=STEPS)
    chosen = asked.parse_args([] if __name__ != "__main__" else None)
    torch.set_num_threads(1)
    path = RESULTS / "training.json"
    found = json.loads(path.read_text())["found"] if path.exists() else {}
    folder = Path(tempfile.mkdtemp(prefix="fw-", dir="/tmp"))  # Ray's socket paths must stay short
    try:
        store = Store(StoreConfig.local(folder / "store"))
        for part in chosen.parts:
            load = os.getloadavg()[0]
            if part != "checkpoint" and not ray.is_initialized():
                ray.init(address="local", num_cpus=CPUS + 2, include_dashboard=False, _temp_dir=f"{folder}/ray", log_to_driver=False, object_store_memory=10**9)
            if part == "fed":
                made = fed(store, demo_day(store, folder, EPISODES), chosen.batches, chosen.steps)
            elif part == "checkpoint":
                made = checkpoints(store)
            else:
                made = killed(store, demo_day(store, folder, 8))
            found[part] = {**made, "load": [round(load, 1), round(os.getloadavg()[0], 1)]}
            write("training", [each for part in PARTS if part in found for each in FIGURES[part](found[part])], found=found)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


class Fed:
    """The loop that a worker runs, on one lane."""

    def __init__(self, store: Store, day: DayDataset):
        self.store, self.episodes = store, episodes_of(store, day)
        self.extractor = find_extractor(POLICY)
        first = self._read([Part(episode=self.episodes[0], start=0, stop=1)])
        self.shapes = {name: values.shape[1:] for name, values in first.seen.items()}
        lengths = [episode.length for episode in self.episodes]
        self.plan = make_plan(lengths, [1.0] * len(lengths), 1, 0, moment_bytes(self.shapes))
        began = time.process_time()
        self.shards = [self._read([Part(episode=self.episodes[p.episode], start=p.start, stop=p.stop) for p in shard]) for shard in self.plan.shards]
        self.decode_rate = sum(lengths) / (time.process_time() - began)  # frames of a CPU second, of this process
        self.statistics = statistics(self.shards)
        self.reader = Reader(store.config, self.episodes, self.plan, POLICY, ("front",))

    def _read(self, parts: list[Part]) -> Moments:
        return read_parts(self.store, parts, self.extractor, ("front",))

    def rate(self, batch: int, steps: int, fetch: Fetch) -> dict[str, float]:
        """Seconds to the first batch, and samples/s from step WARM on."""
        config = PolicyConfig(policy=POLICY, state_width=5, action_width=4, cameras=("front",), shapes=self.shapes)
        policy, ends = build_policy(config, self.statistics), []
        began = time.monotonic()
        lane = batches(self.plan, 0, batch, 0, fetch, self.extractor)
        first = next(lane)
        waited = time.monotonic() - began
        settings = TrainSettings(policy=POLICY, steps=steps, batch=batch, workers=1)
        train(policy, {0: _again(first, lane)}, settings, fresh(policy), after=lambda state: ends.append(time.monotonic()))
        return {"first_batch_s": waited, "samples_per_s": batch * (steps - WARM) / (ends[-1] - ends[WARM - 1])}


def _again(first: Batch, rest: Iterator[Batch]) -> Iterator[Batch]:
    yield first
    yield from rest


def fed(store: Store, day: DayDataset, sizes: list[int], steps: int) -> dict[str, Any]:
    loop, swept = Fed(store, day), []
    for batch in sizes:
        memory = loop.rate(batch, steps, resident(loop.shards))
        streamed = loop.rate(batch, steps, loop.reader.streamed(CPUS))
        beside = lerobot(store, loop.episodes, batch, max(10, steps // 10))
        swept.append({"batch": batch, "memory": memory, "streamed": streamed, "lerobot": beside})
        print(json.dumps(swept[-1]), flush=True)
    return {"decode_frames_per_cpu_s": loop.decode_rate, "episodes": len(loop.episodes), "frames": sum(e.length for e in loop.episodes), "swept": swept}


def lerobot(store: Store, episodes: list[PackedEpisode], batch: int, count: int) -> dict[str, float]:
    python = environment("oracle", ROOT / "tests" / "oracle" / "requirements.lock")
    with store.local_copy(f"{episodes[0].dataset}/meta/info.json") as info:
        arguments = [str(info.parents[1]), str(batch), str(count), str(CPUS), str(Timed.chunk), str(SERVICE_S)]
        quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
        command = [str(python), "-P", str(ROOT / "benchmarks" / "training_lerobot.py"), *arguments]  # -P: copy.py beside it is not Python's own
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"LeRobot's loader failed: {done.stderr.strip().splitlines()[-1]}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return {**said, "samples_per_s": batch * said["batches"] / said["seconds"]}


def checkpoints(store: Store) -> dict[str, Any]:
    """What the training thread waits for: a checkpoint written in it, and one offered to the writer's thread."""
    state = State(0, *(torch.randn(WEIGHTS) for _ in range(3)))
    writer = checkpoint.Writer(store, "attempts/bench/a1/x", "subject")
    sync, offered, written = [], [], []
    for number in range(6):
        state.step = 2 * number
        began = time.monotonic()
        checkpoint.save(store, "attempts/bench/a1/y", state, "subject")
        sync.append(time.monotonic() - began)
        state.step += 1
        began = time.monotonic()
        if not writer.offer(state):
            raise SystemExit("the writer was still at work")
        offered.append(time.monotonic() - began)
        writer.finish(state)
        written.append(time.monotonic() - began)
    return {"weights": WEIGHTS, "sync_s": sync[1:], "offered_s": offered[1:], "written_s": written[1:]}


def killed(store: Store, day: DayDataset, times: int = 3) -> dict[str, Any]:
    """SIGKILL of one of two workers, between two checkpoints: until the next step is done, and how many are done again."""
    settings = TrainSettings(policy="tests.training.faulty:Faulty", steps=60, batch=32, workers=2, checkpoint_every=20, holdout=4)
    happen, seen = faults(), []
    for number in range(times):
        at = 30
        ray.get(happen.plan.remote(("kill", number % 2, at)))
        prefix = f"attempts/kill{number}/a1/first"
        config = TrainConfig(store=store.config, days=(DAY,), data=store.config, view=(day,), settings=settings)
        run(config, Execution(store, prefix, report=lambda message: None))
        ((_, moment),) = ray.get(happen.told.remote())
        notes = [json.loads(store.get(entry.key)) for entry in store.list(f"{prefix}/workers/")]
        after = max((note for note in notes if note["rank"] == 0), key=lambda note: note["began"])
        seen.append({"seconds": after["first_step_at"] - moment, "lost": at - after["first_step"]})
        print(json.dumps(seen[-1]), flush=True)
    ray.kill(happen)
    return {"killed_at_step": 30, "checkpoint_every": settings.checkpoint_every, "seen": seen}


def fed_figures(found: dict[str, Any]) -> list[dict[str, Any]]:
    made = []
    for each in found["swept"]:
        ours, memory, theirs = (each[kind]["samples_per_s"] for kind in ("streamed", "memory", "lerobot"))
        name, ratio = f"fed.batch_{each['batch']}", ours / memory
        fits = memory < found["decode_frames_per_cpu_s"] * (CPUS - 0.5)  # what is left beside the loop
        goal = f">= {GOAL} of it while decoding fits the cores" if fits else "reported: decoding does not fit the cores"
        made.append(figure(name, ours, "samples/s", ("the same loop, decoded in memory", memory), ratio, goal, ratio >= GOAL or not fits))
        made.append(figure(f"{name}.lerobot", ours, "samples/s", (f"LeRobot's loader, {CPUS} workers", theirs), ours / theirs, "reported", True))
    made.append(figure("decode", found["decode_frames_per_cpu_s"], "frames of 96 px of a CPU second", None, None, "reported", True))
    first = found["swept"][0]
    ours, theirs = first["streamed"]["first_batch_s"], first["lerobot"]["first_batch_s"]
    made.append(figure("first_batch", ours, "s", ("LeRobot's loader", theirs), ours / theirs, "reported", True))
    return made


def checkpoint_figures(found: dict[str, Any]) -> list[dict[str, Any]]:
    ours, sync = 1000 * median(found["offered_s"]), 1000 * median(found["sync_s"])
    return [figure("checkpoint.blocks", ours, f"ms, {found['weights']} weights", ("written in the training thread", sync), ours / sync, "reported", True)]


def killed_figures(found: dict[str, Any]) -> list[dict[str, Any]]:
    lost, seconds = max(each["lost"] for each in found["seen"]), median(each["seconds"] for each in found["seen"])
    interval = found["checkpoint_every"]
    return [
        figure("killed.steps_lost", lost, "steps", None, None, f"<= {interval}, one checkpoint interval", lost <= interval),
        figure("killed.next_step", seconds, "s", None, None, "reported", True),
    ]


FIGURES = {"fed": fed_figures, "checkpoint": checkpoint_figures, "killed": killed_figures}

if __name__ == "__main__":
    main()
