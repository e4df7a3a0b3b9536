"""Step "effect": at equal steps, what does a policy learn from everything uploaded, and from a random drop of the kept set's size?"""

import io
import random
import time
from collections import Counter
from typing import Any

from ray_jobs.driver import Execution, connect
from ray_jobs.effect.arms import Read, Shape, extract, run_arm
from ray_jobs.seam.configs import EffectConfig
from ray_jobs.seam.errors import DataError, FlywheelError
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes
from ray_jobs.training.ingest import is_held_out
from ray_jobs.training.present import markdown_picture
from ray_jobs.training.samples import Samples

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
    everything = sorted(usable)
    size = min(len(everything), len(kept & usable.keys()))
    chosen = {"all": everything}
    if size:
        chosen["random_drop"] = random_drop(everything, size, config.training.seed)
    arms, failed = _arms(config, execution, shape, {arm: [usable[episode] for episode in ids] for arm, ids in chosen.items()})
    counts = {
        "episodes": len(uploaded),
        "kept": len(kept),
        "unreadable": len(uploaded) - len(usable),
        **{f"arm_{arm}": len(ids) for arm, ids in chosen.items()},
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


def random_drop(episodes: list[str], size: int, seed: int) -> list[str]:
    """As many episodes as curation kept, drawn without looking at them."""
    return sorted(random.Random(seed).sample(episodes, size))


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


def _usable(read: dict[str, Read]) -> tuple[Shape, dict[str, Samples]]:
    """The commonest shape, and the samples of the episodes that have it."""
    told = {episode: found for episode, found in read.items() if not isinstance(found, str) and len(found[1])}
    shapes = Counter((shape, samples.features.shape[1]) for shape, samples in told.values())
    if not shapes:
        return ((), (), None), {}
    common = min(shapes, key=lambda shape: (-shapes[shape], repr(shape)))
    return common[0], {episode: samples for episode, (shape, samples) in told.items() if (shape, samples.features.shape[1]) == common}


def _arms(config: EffectConfig, execution: Execution, shape: Shape, samples: dict[str, list[Samples]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Each arm in a task of its own. The second: arms that could not be trained, and why."""
    import ray

    task = ray.remote(num_cpus=1)(run_arm)
    running = {arm: task.remote(parts, shape, config.training, config.evaluation) for arm, parts in samples.items()}
    arms: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for done, (arm, reference) in enumerate(running.items(), 1):
        found = _get(reference)
        if isinstance(found, str):
            failed[arm] = found
        else:
            arms[arm] = found
        execution.progress(config.days[-1], "arms", done, len(running), "arms")
    return arms, failed


def _get(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FlywheelError):
            raise type(error.cause)(str(error.cause)) from error
        raise DataError(f"a task of the study failed: {str(error.cause).splitlines()[0][:200]}") from error


def table(arms: dict[str, Any], failed: dict[str, str]) -> str:
    lines = ["| trained on | episodes | rows | success | 95 % interval |", "|---|---|---|---|---|"]
    for arm, told in arms.items():
        interval = f"{told['low']:.0%} to {told['high']:.0%}"
        lines.append(f"| {_name(arm)} | {told['episodes']} | {told['frames']} | {told['successes']} of {told['rollouts']} | {interval} |")
    lines += [f"| {_name(arm)} | | | could not be trained: {reason} | |" for arm, reason in failed.items()]
    return "\n".join(lines)


def bars(arms: dict[str, Any]) -> str:
    """Markdown with a small PNG: success and its interval, per arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 2.4), dpi=90, layout="constrained")
    axes = figure.subplots()
    rates = [told["rate"] for told in arms.values()]
    errors = [[told["rate"] - told["low"] for told in arms.values()], [told["high"] - told["rate"] for told in arms.values()]]
    axes.bar([_name(arm) for arm in arms], rates, yerr=errors, capsize=4, width=0.5)
    axes.set(ylim=(0, 1), ylabel="success")
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return markdown_picture(sink.getvalue(), "png", "success of the arms")


def _name(arm: str) -> str:
    return {"all": "everything uploaded", "random_drop": "a random drop"}.get(arm, arm)
