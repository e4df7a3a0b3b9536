"""Step "evaluation": candidate and champion on the same seeds, and their action error on held-out episodes."""

import time
from typing import Any

import numpy as np
from pydantic import ValidationError

from ray_jobs.contact_sheet import contact_sheet
from ray_jobs.driver import Execution, connect
from ray_jobs.evaluation import scores
from ray_jobs.evaluation.evaluator import Trial, find_evaluator
from ray_jobs.evaluation.offline import fits, summary
from ray_jobs.seam.configs import EvaluateConfig, EvaluateSettings
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Store
from ray_jobs.training.ingest import select
from ray_jobs.training.spec import PolicyConfig

FILM_ROWS = 6
TASKS_PER_ACTOR = 8  # an actor takes longer to start than to do so many


def run(config: EvaluateConfig, execution: Execution) -> dict[str, DayResult]:
    """One result, for the last of the days. Raises NotFound or DataError for a model or dataset that is not whole."""
    started = time.monotonic()
    day, settings, store = config.days[-1], config.settings, Store(config.store)
    models = [config.candidate, *([config.champion] if config.champion else [])]
    shapes = {model: _shape(store, model) for model in models}
    evaluator = f"{settings.evaluator}@{find_evaluator(settings.evaluator).version}" if settings.evaluator else None
    seeds = rollout_seeds(settings) if evaluator else []
    known = {model: earlier for model in models if evaluator and (earlier := scores.kept(store, model, evaluator, seeds))}
    held_out = select(Store(config.data), config.view, config.holdout).held_out
    trials = [(model, seed) for model in models if model not in known for seed in seeds]
    asked = [(model, episode) for model in models for episode in held_out if fits(shapes[model], episode)]
    connect()
    from ray_jobs.evaluation.actors import Pool

    film: list[Trial] = []
    size = min(settings.actors, -(-(len(trials) + len(asked)) // TASKS_PER_ACTOR))
    with Pool(size, config.store, config.data, settings.evaluator) as pool:
        tasks = [("trial", (model, seed, model == config.candidate)) for model, seed in trials]
        total = len(tasks)
        done = pool.run(tasks, lambda count: execution.progress(day, "rollouts", count, total, "rollouts") if count % 10 == 0 else None)
        errors = pool.run([("errors", pair) for pair in asked])
    for model in {model for model, _ in trials}:
        mine = [trial for (owner, _), trial in zip(trials, done, strict=True) if owner == model]
        made = {str(trial.seed): scores.TrialScore(success=trial.success, steps=trial.steps) for trial in mine}
        known[model] = scores.Rollouts(model=model, evaluator=evaluator or "", trials=made)
        scores.keep(store, known[model], seeds)
        film += [trial for trial in mine if trial.frames is not None]
    names = held_out[0].action_names if held_out else ()
    offline = {model: summary(model, names, [error for (owner, _), error in zip(asked, errors, strict=True) if owner == model]) for model in models}
    found: dict[str, Any] = {
        "candidate": _of(config.candidate, known),
        "champion": _of(config.champion, known) if config.champion else None,
        "offline": {"candidate": offline[config.candidate], "champion": offline.get(config.champion or "")} if offline[config.candidate] else None,
    }
    counts = {"rollouts": len(trials), "reused": len(seeds) * len(models) - len(trials), "replaced_actors": pool.deaths, "held_out": len(held_out)}
    shown = {"scores": Shown(type="md", value=table(found)), **pictures(film)}
    shown["seconds"] = Shown(type="float", value=round(time.monotonic() - started, 2))
    return {day: DayResult(counts=counts, output={"scores": found}, output_digest=digest(found), shown=shown)}


def rollout_seeds(settings: EvaluateSettings) -> list[int]:
    return list(range(settings.first_seed, settings.first_seed + settings.rollouts))


def _shape(store: Store, model: str) -> tuple[int, int, str | None]:
    try:
        config = PolicyConfig.model_validate_json(store.get(f"{model}/config.json"))
    except ValidationError as error:
        raise DataError(f"{model} is not a model of this version ({error.error_count()} wrong fields): train again") from error
    return config.state_width, config.action_width, config.camera


def _of(model: str, known: dict[str, scores.Rollouts]) -> dict[str, Any]:
    return known[model].summary() if model in known else scores.nothing_rolled_out(model)


def table(found: dict[str, Any]) -> str:
    """Markdown: success with its interval, and offline error, of candidate and champion."""
    lines = ["| | model | success | 95 % interval | offline error |", "|---|---|---|---|---|"]
    for who in ("candidate", "champion"):
        told = found[who]
        if told is None:
            lines.append(f"| {who} | none yet | | | |")
            continue
        rate = f"{told['successes']} of {told['rollouts']}" if told["rollouts"] else "not rolled out"
        interval = f"{told['low']:.0%} to {told['high']:.0%}" if told["rollouts"] else ""
        offline = (found["offline"] or {}).get(who)
        error = f"{offline['error']:.3f} ({offline['frames']} moments)" if offline else ""
        lines.append(f"| {who} | {told['model'].rsplit('/', 1)[-1][:12]} | {rate} | {interval} | {error} |")
    return "\n".join(lines)


def pictures(trials: list[Trial]) -> dict[str, Shown]:
    """A film strip: failures first, up to half of it, then successes."""
    lost = [trial for trial in trials if not trial.success][: FILM_ROWS // 2]
    chosen = lost + [trial for trial in trials if trial.success][: FILM_ROWS - len(lost)]
    clips = [(f"seed {trial.seed}: {'success' if trial.success else 'failure'}", np.asarray(trial.frames)) for trial in chosen]
    return {"rollouts": Shown(type="md", value=contact_sheet(clips, 1))} if clips else {}
