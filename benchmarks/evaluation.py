"""Rollouts per core-second through Ray's actors against the bare simulator; what the levels do; whether offline error foretells success.

`python -m benchmarks.evaluation [--models N] [--scenes N]`. One policy, the same scenes, in turns in one run. Core-seconds are CPU time of the processes
that roll out, the driver's among ours, so that another load on the machine does not count; wall time stands beside it.
The calibration trains models for more and more steps on more and more episodes, and compares their offline error with their success.
"""

import argparse
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch

from benchmarks.results import figure, write
from fleet.arm import Arm
from fleet.expert import demonstrate
from fleet.levels import LEVELS
from fleet.rollout import rollout
from orchestration.evaluation.record import Point, calibration
from ray_jobs.evaluation.actors import Pool
from ray_jobs.evaluation.evaluator import Scene, scene_of
from ray_jobs.evaluation.offline import summary
from ray_jobs.evaluation.simulated import acting
from ray_jobs.packing.view import episodes_of
from ray_jobs.seam.configs import EvaluateSettings, TrainSettings
from ray_jobs.seam.proportions import wilson
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.features import KEYPOINTS
from ray_jobs.training.loop import learn
from ray_jobs.training.model import Lineage, read_model, write_model
from ray_jobs.training.samples import Moments, moments
from tests.training.recorded import demo_day

FIRST = 1_000_000
WORKERS = 2
GOAL = 0.9
HELD_OUT = 10  # demonstrations
RUNGS = ((6, 60), (10, 120), (20, 150), (30, 300), (45, 600), (60, 1200))  # (demonstrations, steps) of the calibration's models


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--scenes", type=int, default=100)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--models", type=int, default=len(RUNGS))
    chosen = asked.parse_args([] if __name__ != "__main__" else None)
    folder = Path(tempfile.mkdtemp(prefix="fw-", dir="/tmp"))  # Ray's socket paths must stay short
    try:
        ray.init(address="local", num_cpus=4, include_dashboard=False, _temp_dir=str(folder / "ray"), log_to_driver=False, object_store_memory=300_000_000)
        figures, more = run(folder, chosen.scenes, chosen.rounds, RUNGS[-chosen.models :])
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    write("evaluation", figures, **more)


def run(folder: Path, scenes: int, rounds: int, rungs: tuple[tuple[int, int], ...]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    store = Store(StoreConfig.local(folder / "store"))
    torch.set_num_threads(1)
    samples = demonstrations(max(count for count, _ in rungs))
    models = [trained(store, samples[:count], steps) for count, steps in rungs]
    found = speed(store, models[-1], [scene_of(FIRST + number) for number in range(scenes)], rounds)
    calibrated, points = calibrate(store, folder, models, scenes)
    return [*found, *levels(store, models[-1], scenes), calibrated], {"calibration": points, "scenes": scenes, "rounds": rounds}


def demonstrations(count: int) -> list[Moments]:
    arm = Arm()
    demos = (demonstrate(arm, 2**33 + number) for number in range(count))
    return [moments(KEYPOINTS.observe(demo.states, {"front": demo.frames}), demo.actions) for demo in demos]


def trained(store: Store, parts: list[Moments], steps: int) -> str:
    policy, _ = learn("keypoints", parts, TrainSettings(steps=steps), 5, ("front",))
    nothing = Lineage(model="", datasets=(), settings={}, code=None, versions={}, metrics={}, steps=steps, resumed_from_step=0, seconds=0.0)
    return write_model(store, policy, nothing)


def bare(order: tuple[StoreConfig, str, list[int]]) -> tuple[float, list[bool]]:
    """CPU seconds of this process for the rollouts alone, after everything is loaded."""
    config, model, seeds = order
    torch.set_num_threads(1)
    policy, arm = read_model(Store(config), model), Arm()
    rollout(acting(policy), FIRST - 1, arm=arm)
    started, won = time.process_time(), []
    for seed in seeds:
        policy.reset()
        won.append(rollout(acting(policy), seed, arm=arm).success)
    return time.process_time() - started, won


def speed(store: Store, model: str, scenes: list[Scene], rounds: int) -> list[dict[str, Any]]:
    """In turns: the pool of actors, warm, and as many bare processes."""
    seeds = [int(scene.id) for scene in scenes]
    orders = [(store.config, model, seeds[place::WORKERS]) for place in range(WORKERS)]
    settings = EvaluateSettings(actors=WORKERS)
    ours, theirs, wall, bare_wall = 0.0, 0.0, 0.0, 0.0
    started = time.monotonic()
    with Pool(WORKERS, store.config, store.config, settings) as pool, multiprocessing.get_context("spawn").Pool(WORKERS) as processes:
        pool.run([("trial", (model, scene_of(FIRST - 1 - number), False)) for number in range(WORKERS)])
        loading = time.monotonic() - started
        for _ in range(rounds):
            before, driver, began = _cpu(pool), time.process_time(), time.monotonic()
            trials = pool.run([("trial", (model, scene, False)) for scene in scenes])
            wall += time.monotonic() - began
            ours += _cpu(pool) - before + time.process_time() - driver
            began = time.monotonic()
            alone = processes.map(bare, orders, chunksize=1)
            bare_wall += time.monotonic() - began
            theirs += sum(seconds for seconds, _ in alone)
            same = {seed: flag for (_, _, mine), (_, flags) in zip(orders, alone, strict=True) for seed, flag in zip(mine, flags, strict=True)}
            if [trial.success for trial in trials] != [same[seed] for seed in seeds]:
                raise SystemExit("actors and the bare simulator disagree: no figure of these means anything")
    count = rounds * len(scenes)
    rate, other = count / ours, count / theirs
    name = "the bare simulator with the same policy"
    return [
        figure("rollouts_per_core_second", rate, "1/s of CPU time", (name, other), rate / other, f">= {GOAL} of it", rate / other >= GOAL),
        figure(
            "rollouts_per_second",
            count / wall,
            f"1/s, {WORKERS} actors, warm",
            (f"{WORKERS} bare processes, loading among it", count / bare_wall),
            None,
            "reported",
            True,
        ),
        figure("actors_start", loading, f"s until {WORKERS} actors have done one each", None, None, "reported", True),
    ]


def _cpu(pool: Pool) -> float:
    return sum(ray.get([worker.__ray_call__.remote(lambda _: time.process_time()) for worker in pool.workers]))


def levels(store: Store, model: str, scenes: int) -> list[dict[str, Any]]:
    """Success on each level, and what its scenes cost in CPU time beside level none's."""
    torch.set_num_threads(1)
    policy, arm = read_model(store, model), Arm()
    spent, steps, won = dict.fromkeys(LEVELS, 0.0), dict.fromkeys(LEVELS, 0), dict.fromkeys(LEVELS, 0)
    for seed in range(FIRST, FIRST + scenes):
        for level in LEVELS:
            policy.reset()
            began = time.process_time()
            done = rollout(acting(policy), seed, arm=arm, level=level)
            spent[level] += time.process_time() - began
            steps[level] += done.steps
            won[level] += done.success
    each = {level: 1000 * spent[level] / steps[level] for level in LEVELS}
    found = []
    for level in LEVELS:
        low, high = wilson(won[level], scenes)
        text = f"share of {scenes} scenes, 95 % interval {low:.0%} to {high:.0%}"
        found.append(figure(f"success.level_{level}", won[level] / scenes, text, None, None, "reported", True))
        ratio = each[level] / each["none"]
        found.append(figure(f"step.level_{level}", each[level], "ms of CPU time a step", ("level none", each["none"]), ratio, "reported", True))
    return found


def calibrate(store: Store, folder: Path, models: list[str], scenes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    held_out = episodes_of(store, demo_day(store, folder, HELD_OUT))
    points, told = [], []
    with Pool(WORKERS, store.config, store.config, EvaluateSettings(actors=WORKERS)) as pool:
        errors = pool.run([("errors", (models, episode)) for episode in held_out])
        trials = pool.run([("trial", (model, scene_of(FIRST + number), False)) for model in models for number in range(scenes)])
    for place, model in enumerate(models):
        offline = summary(model, held_out[0].action_names, [each[place] for each in errors])
        assert offline is not None
        won = sum(trial.success for trial in trials[place * scenes : (place + 1) * scenes])
        low, high = wilson(won, scenes)
        points.append(Point(str(place), model, False, scenes, won / scenes, low, high, offline["error"]))
        told.append({"error": offline["error"], "by_horizon": offline["by_horizon"], "success": won / scenes, "low": round(low, 4), "high": round(high, 4)})
    found = calibration(points)
    rank = 0.0 if found.rank is None else found.rank
    chance = "too few models" if found.chance is None else f"p = {found.chance:.3f}"
    return figure(
        "offline_calibration", rank, f"rank correlation of offline error and success over {found.models} models, {chance}", None, None, "reported", True
    ), told


if __name__ == "__main__":
    main()
