"""One trial: a short training in this process, whose error on held-out episodes Ray Tune is told at some steps."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
import torch
from pydantic import ValidationError
from ray import tune

from ray_jobs.evaluation.offline import errors_in, summary
from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.configs import TrainSettings, TuningSettings
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.loop import State, learn
from ray_jobs.training.policy import Policy
from ray_jobs.training.samples import Moments
from ray_jobs.tuning.search import Candidate, Trial, key, measured_at


@dataclass(frozen=True)
class Sample:
    """Decoded for one policy: an item per episode. weights: of `train`."""

    cameras: tuple[str, ...]
    train: list[Moments]
    weights: list[float]
    held_out: list[Moments]


@dataclass(frozen=True)
class Study:
    """What all trials share. executions: where notes may lie, the first is where they are written; samples: policy -> a reference to its Sample."""

    store: StoreConfig
    executions: tuple[str, ...]
    subject: str
    candidates: list[Candidate]
    training: TrainSettings
    settings: TuningSettings
    held_out: tuple[PackedEpisode, ...]
    state_width: int
    samples: dict[str, Any]


def noted(store: Store, executions: Iterable[str], candidate: Candidate, subject: str) -> Trial:
    """How far a trial has come in any of these executions; one without points where it has not begun."""
    found = [Trial(candidate=candidate)]
    for execution in executions:
        data = store.find(key(execution, candidate, subject))
        try:
            found += [Trial.model_validate_json(data)] if data else []
        except ValidationError:
            continue  # cut short as it was written
    return max(found, key=lambda trial: (trial.failed is not None, trial.step))


def run_trial(told: dict[str, Any], study: Study) -> None:
    """Entry point of a worker of Ray Tune. What an earlier execution noted is told again, and not done again.

    A stopped trial ends within tune.report: each note is written before.
    """
    torch.set_num_threads(1)
    store, candidate = Store(study.store), study.candidates[told["number"]]
    trial = noted(store, study.executions, candidate, study.subject)
    for step, error in trial.points:
        tune.report({"step": step, "error": error})
    if trial.failed or trial.step == study.settings.steps:
        return
    sample: Sample = ray.get(study.samples[candidate.policy])
    names = study.held_out[0].action_names
    wanted = set(measured_at(study.settings))

    def note(now: Trial) -> None:
        nonlocal trial
        trial = now
        store.put(key(study.executions[0], candidate, study.subject), trial.model_dump_json().encode())

    def after(policy: Policy, state: State) -> None:
        if state.step not in wanted or state.step <= trial.step:
            return
        policy.network.eval()
        errors = [errors_in(policy, moments, episode) for moments, episode in zip(sample.held_out, study.held_out, strict=True)]
        policy.network.train()
        found = summary("", names, [each for each in errors if each is not None])
        if found is None or not math.isfinite(found["error"]):
            raise DataError(f"the action error is no number at step {state.step}")
        note(trial.model_copy(update={"points": (*trial.points, (state.step, found["error"]))}))
        tune.report({"step": state.step, "error": found["error"]})

    try:
        learn(candidate.policy, sample.train, candidate.apply(study.training, study.settings.steps), study.state_width, sample.cameras, sample.weights, after)
    except (DataError, ValueError) as error:
        note(trial.model_copy(update={"failed": str(error).splitlines()[0]}))
