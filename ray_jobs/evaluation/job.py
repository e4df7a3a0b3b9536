"""Step "evaluation": candidate and champion on the same scenes, and their action error on held-out episodes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import ValidationError

from ray_jobs.driver import Execution, connect
from ray_jobs.evaluation import present, scores
from ray_jobs.evaluation.evaluator import Scene, Trial, build_evaluator
from ray_jobs.evaluation.failures import Keeper, write_failures
from ray_jobs.evaluation.offline import Errors, fits, summary
from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.configs import EvaluateConfig
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.model import canonical, digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Store
from ray_jobs.training.selection import select
from ray_jobs.training.spec import PolicyConfig

TASKS_PER_ACTOR = 8  # an actor takes longer to start than to do so many


@dataclass
class Asked:
    """What has to be done: rollouts as (model, scene), and for each held-out episode the models that can be asked about it."""

    models: list[str]
    scenes: Sequence[Scene]
    rollouts: list[tuple[str, Scene]]
    episodes: list[tuple[list[str], PackedEpisode]]


@dataclass
class Done:
    """What came of it. trials: of the candidate, with what was recorded."""

    known: dict[str, scores.Rollouts]
    errors: dict[str, list[Errors]]
    trials: list[Trial] = field(default_factory=list)
    deaths: int = 0


def run(config: EvaluateConfig, execution: Execution) -> dict[str, DayResult]:
    """One result, for the last of the days. Raises NotFound or DataError for a model or dataset that is not whole, UserError for the evaluator's."""
    started = time.monotonic()
    day, settings, store = config.days[-1], config.settings, Store(config.store)
    shapes, unreadable = {config.candidate: _shape(store, config.candidate)}, None
    if config.champion:
        try:
            shapes[config.champion] = _shape(store, config.champion)
        except DataError as error:
            unreadable = str(error)
    models = list(shapes)
    evaluator = build_evaluator(settings)
    manifest = scores.Manifest.of(evaluator, str(settings.evaluator)) if evaluator else None
    both = [config.candidate, *([config.champion] if config.champion else [])]
    known = {model: earlier for model in both if manifest and (earlier := scores.kept(store, model, manifest))}
    held_out = select(Store(config.data), config.view, config.selection).held_out
    scenes = manifest.scenes if manifest else ()
    asked = Asked(
        models,
        scenes,
        [(model, scene) for model in models if model not in known for scene in scenes],
        [(able, episode) for episode in held_out if (able := [model for model in models if fits(shapes[model], episode)])],
    )
    connect()
    done = _carry_out(config, execution, asked, known, manifest)
    names = held_out[0].action_names if held_out else ()
    offline = {model: summary(model, names, done.errors[model]) for model in models}
    champion = {**_told(config.champion, known), "unreadable": unreadable} if config.champion else None
    found: dict[str, Any] = {
        "candidate": _told(config.candidate, known),
        "champion": champion,
        "manifest": manifest.key if manifest else None,
        "groups": manifest.groups() if manifest else {},
        "failures": failures.model_dump() if (failures := known[config.candidate].failures if config.candidate in known else None) else None,
        "offline": _published(store, [config.candidate, config.champion], offline),
    }
    counts = {"rollouts": len(asked.rollouts), "reused": len(scenes) * len(known) - len(asked.rollouts), "replaced_actors": done.deaths}
    counts["held_out"] = len(held_out)
    shown = {**present.shown(found), **present.pictures(done.trials), "seconds": Shown(type="float", value=round(time.monotonic() - started, 2))}
    return {day: DayResult(counts=counts, output={"scores": found}, output_digest=digest(found), shown=shown)}


def _carry_out(config: EvaluateConfig, execution: Execution, asked: Asked, known: dict[str, scores.Rollouts], manifest: scores.Manifest | None) -> Done:
    """Roll out and ask; `known` gets what was rolled out, and the store keeps it."""
    from ray_jobs.evaluation.actors import Pool

    store, done, keeper = Store(config.store), Done(known, {model: [] for model in asked.models}), Keeper(config.settings.failures)
    total = len(asked.rollouts)
    size = min(config.settings.actors, -(-(total + len(asked.episodes)) // TASKS_PER_ACTOR))
    with Pool(size, config.store, config.data, config.settings) as pool:
        tasks = [("trial", (model, scene, model == config.candidate)) for model, scene in asked.rollouts]
        trials = pool.run(tasks, partial(_say, execution, config.days[-1], total), keeper.take)
        for (able, _), told in zip(asked.episodes, pool.run([("errors", pair) for pair in asked.episodes]), strict=True):
            for model, errors in zip(able, told, strict=True):
                done.errors[model] += [errors] if errors is not None else []
        done.deaths = pool.deaths
    for model in dict.fromkeys(model for model, _ in asked.rollouts):
        assert manifest is not None
        mine = [(scene, trial) for (owner, scene), trial in zip(asked.rollouts, trials, strict=True) if owner == model and trial is not None]
        failures = None
        if model == config.candidate:
            done.trials = [trial for _, trial in mine]
            failures = write_failures(store, model, manifest.hash, [(asked.rollouts[number][1], trial) for number, trial in sorted(keeper.kept.items())])
        made = {scene.id: scores.TrialScore(success=trial.success, seconds=trial.seconds) for scene, trial in mine}
        known[model] = scores.Rollouts(model=model, manifest=manifest.key, trials=made, failures=failures)
        scores.publish(store, manifest)
        scores.keep(store, known[model], manifest)
    return done


def _say(execution: Execution, day: str, total: int, count: int) -> None:
    if count % 10 == 0:
        execution.progress(day, "rollouts", count, total, "rollouts")


def _shape(store: Store, model: str) -> tuple[int, int, tuple[str, ...]]:
    try:
        config = PolicyConfig.model_validate_json(store.get(f"{model}/config.json"))
    except ValidationError as error:
        raise DataError(f"{model} was made by another version of this code ({error.error_count()} fields differ): train a new one") from error
    return config.state_width, config.action_width, config.cameras


def _told(model: str, known: dict[str, scores.Rollouts]) -> dict[str, Any]:
    return scores.summary(model, known[model].trials if model in known else {})


def _published(store: Store, models: list[str | None], offline: dict[str, dict[str, Any] | None]) -> dict[str, Any] | None:
    """What the scores say of the offline error; episode by episode it stands in a document of its own, which a pointer would be too small for."""
    told = [offline.get(model or "") for model in models]
    if told[0] is None:
        return None
    data = canonical(told).encode()
    key = f"evaluations/{str(models[0]).rsplit('/', 1)[-1]}/offline-{digest(told)[:16]}.json"
    store.put(key, data)
    short = [each and {name: value for name, value in each.items() if name != "by_episode"} for each in told]
    return {"candidate": short[0], "champion": short[1], "episodes": key}
