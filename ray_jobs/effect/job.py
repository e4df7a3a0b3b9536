"""Step "effect": at equal steps, what does a policy learn from everything uploaded, from what was kept, and from as much drawn at random?

With one training seed the arms of damaged data differ more by luck than by their data: each arm is trained with several.
"""

import random
import time
from collections import Counter
from typing import Any

from ray_jobs.driver import Execution, connect
from ray_jobs.effect.arms import Read, Shape, extract, pooled, run_arm
from ray_jobs.effect.present import bars, table
from ray_jobs.seam.configs import EffectConfig
from ray_jobs.seam.errors import DataError, FlywheelError
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes
from ray_jobs.training.samples import Moments
from ray_jobs.training.selection import is_held_out

EPISODES_PER_TASK = 32


def run(config: EffectConfig, execution: Execution) -> dict[str, DayResult]:
    """One result, for the last of the days. Episodes that are held out of training are held out of every arm."""
    started = time.monotonic()
    day, store = config.days[-1], Store(config.store)
    uploaded, kept = _episodes(store, config)
    if config.evaluation.evaluator is None:
        return {day: DayResult(reason="no evaluator: the arms are compared by rollouts alone", output={"arms": {}}, output_digest=digest({}))}
    if not uploaded:
        return {day: DayResult(reason="no data", output={"arms": {}}, output_digest=digest({}))}
    connect()
    read = _extract(config, execution, uploaded)
    shape, usable = _usable(read)
    if not usable:
        return {day: DayResult(reason="no actions to learn from", output={"arms": {}}, output_digest=digest({}))}
    chosen = drawn(config, sorted(usable), sorted(kept & usable.keys()))
    arms, failed = _arms(config, execution, shape, usable, chosen)
    counts = {
        "episodes": len(uploaded),
        "kept": len(kept),
        "unreadable": len(uploaded) - len(usable),
        **{f"arm_{arm}": len(ids[config.training.seed]) for arm, ids in chosen.items()},
    }
    shown = {"arms": Shown(type="md", value=table(arms, failed)), "success": Shown(type="md", value=bars(arms))}
    shown["seconds"] = Shown(type="float", value=round(time.monotonic() - started, 2))
    return {day: DayResult(counts=counts, output={"arms": arms, "failed": failed}, output_digest=digest(arms, failed), shown=shown)}


def _episodes(store: Store, config: EffectConfig) -> tuple[list[str], set[str]]:
    """Ids of all that can be read (status ok, whatever the verdict), and of what curation kept; without held-out ones."""
    uploaded = {row["episode_id"] for key in config.episodes.values() for row in from_bytes(store.get(key)) if row["status"] == "ok"}
    kept = {row["episode_id"] for key in config.verdicts.values() for row in from_bytes(store.get(key)) if row["verdict"] == "kept"}
    learned = {episode for episode in uploaded if not is_held_out(episode, config.training.holdout)}
    return sorted(learned), kept & learned


def drawn(config: EffectConfig, everything: list[str], kept: list[str]) -> dict[str, dict[int, list[str]]]:
    """Arm -> training seed -> its episodes. The random drop is as many as curation kept, drawn anew for each seed without looking at them."""
    seeds = range(config.training.seed, config.training.seed + config.seeds)
    arms = {"all": {seed: everything for seed in seeds}}
    if kept:
        arms["random_drop"] = {seed: sorted(random.Random(seed).sample(everything, len(kept))) for seed in seeds}
        arms["curated"] = {seed: kept for seed in seeds}
    return arms


def _extract(config: EffectConfig, execution: Execution, uploaded: list[str]) -> dict[str, Read]:
    import ray

    task = ray.remote(num_cpus=1)(extract)
    pieces = [uploaded[start : start + EPISODES_PER_TASK] for start in range(0, len(uploaded), EPISODES_PER_TASK)]
    waiting = [task.remote(config.store, piece, config.training.policy) for piece in pieces]
    read: dict[str, Read] = {}
    while waiting:
        (done,), waiting = ray.wait(waiting, num_returns=1)
        read |= _get(done)
        execution.progress(config.days[-1], "read", len(read), len(uploaded))
    return read


def _usable(read: dict[str, Read]) -> tuple[Shape, dict[str, Moments]]:
    """The commonest shape, and the samples of the episodes that have it."""
    told = {episode: found for episode, found in read.items() if not isinstance(found, str) and len(found[1])}
    shapes = Counter(_layout(*each) for each in told.values())
    if not shapes:
        return ((), (), ()), {}
    common = min(shapes, key=lambda layout: (-shapes[layout], repr(layout)))
    return common[0], {episode: found[1] for episode, found in told.items() if _layout(*found) == common}


def _layout(shape: Shape, samples: Moments) -> tuple[Shape, tuple[tuple[str, tuple[int, ...]], ...]]:
    return shape, tuple((name, values.shape[1:]) for name, values in sorted(samples.seen.items()))


def _arms(
    config: EffectConfig, execution: Execution, shape: Shape, usable: dict[str, Moments], chosen: dict[str, dict[int, list[str]]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Each training seed of each arm in a task of its own. The second: arms that could not be trained, and why."""
    import ray

    task = ray.remote(num_cpus=1)(run_arm)
    samples = ray.put(usable)
    running: dict[Any, tuple[str, int]] = {}
    for arm, seeds in chosen.items():
        for seed, ids in seeds.items():
            training = config.training.model_copy(update={"seed": seed})
            running[task.remote(samples, ids, shape, training, config.evaluation)] = arm, seed
    found: dict[str, dict[int, Any]] = {arm: dict.fromkeys(seeds) for arm, seeds in chosen.items()}
    waiting = list(running)
    while waiting:
        (done,), waiting = ray.wait(waiting, num_returns=1)
        arm, seed = running[done]
        found[arm][seed] = _get(done)
        execution.progress(config.days[-1], "arms", len(running) - len(waiting), len(running), "trainings")
    told = {arm: pooled(seeds) for arm, seeds in found.items()}
    return {arm: each for arm, each in told.items() if not isinstance(each, str)}, {arm: each for arm, each in told.items() if isinstance(each, str)}


def _get(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FlywheelError):
            raise type(error.cause)(str(error.cause)) from error
        raise DataError(f"a task of the study failed: {str(error.cause).splitlines()[0][:200]}") from error
