"""Ray Tune carries the trials out and ASHA stops them (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning")."""

import logging
import os
import tempfile
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from ray_jobs.training.cluster import ENVIRONMENT, told
from ray_jobs.tuning.search import rungs
from ray_jobs.tuning.trial import Study, run_trial

QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}


class Progress(tune.Callback):
    """Says how many trials are over. Ray Tune pickles it with the rest of the search, and what it speaks through need not survive that."""

    def __init__(self, say: Callable[[int], None]):
        self.say, self.done = say, 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.done += 1
        self.say(self.done)

    def __getstate__(self) -> dict[str, Any]:
        return {"say": print, "done": self.done}


def search(study: Study, say: Callable[[int], None]) -> None:
    """Returns when every trial is trained to the end, was stopped, or has failed. Raises what a worker raised, StoreError where Ray gave up on one."""
    for name, value in {**ENVIRONMENT, **QUIET}.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses the files of the loggers that are off
    settings, numbers = study.settings, list(range(len(study.candidates)))
    with tempfile.TemporaryDirectory(prefix="fw-tune-") as folder:  # Ray Tune's own notes; ours go through the store
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, study=study), {"cpu": 1}),
            param_space={"number": tune.grid_search(numbers)},
            tune_config=tune.TuneConfig(
                metric="error",
                mode="min",
                scheduler=ASHAScheduler(time_attr="step", max_t=settings.steps, grace_period=rungs(settings)[0], reduction_factor=settings.reduction),
                max_concurrent_trials=settings.workers,
                reuse_actors=True,  # a start costs more than a trial
            ),
            run_config=tune.RunConfig(name="run", storage_path=folder, verbose=0, callbacks=[Progress(say)], failure_config=tune.FailureConfig(max_failures=2)),
        )
        errors = told(tuner.fit).errors
        if errors:
            told(lambda: _raise(errors[0]))


def _raise(error: Exception) -> None:
    raise RuntimeError("a trial could not be carried out") from error
