"""Rollouts as Ray actors: each asks for the next scene when it is done with one, and one that dies is replaced."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray

from ray_jobs.evaluation.evaluator import Scene, Trial, build_evaluator, film
from ray_jobs.evaluation.offline import Errors, errors_of
from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.configs import EvaluateSettings
from ray_jobs.seam.errors import FlywheelError, StoreError
from ray_jobs.seam.store import Store, StoreConfig

MAX_DEATHS = 8  # of actors, in all: more is no accident


class Worker:
    """One rollout process: it holds the evaluator, and the models that it has been asked about."""

    def __init__(self, models: StoreConfig, data: StoreConfig, settings: EvaluateSettings):
        import torch

        torch.set_num_threads(1)
        self._models, self._data = Store(models), Store(data)
        self._evaluator = build_evaluator(settings)
        self._policies: dict[str, Any] = {}

    def trial(self, model: str, scene: Scene, record: bool) -> Trial | None:
        """A failure comes with all that was recorded of it, a success with a few frames."""
        assert self._evaluator is not None
        policy = self._policy(model)
        policy.reset()
        result = self._evaluator.trial(policy, scene, record)
        if result is None or result.recording is None or not result.success:
            return result
        return replace(result, recording=film(result.recording))

    def errors(self, models: list[str], episode: PackedEpisode) -> list[Errors | None]:
        return errors_of(self._data, [self._policy(model) for model in models], episode)

    def _policy(self, model: str) -> Any:
        if model not in self._policies:
            from ray_jobs.training.model import read_model

            self._policies[model] = read_model(self._models, model)
        return self._policies[model]


Task = tuple[str, tuple[Any, ...]]  # method of Worker, arguments


class Pool:
    """A few workers that share tasks. `run` gives the results in the tasks' order, whoever did them."""

    def __init__(self, size: int, models: StoreConfig, data: StoreConfig, settings: EvaluateSettings):
        kind = ray.remote(num_cpus=1, max_restarts=0)(Worker)
        self._start = lambda: kind.remote(models, data, settings)
        self.workers: list[Any] = [self._start() for _ in range(size)]
        self.deaths = 0

    def run(
        self, tasks: list[Task], done: Callable[[int], None] = lambda count: None, take: Callable[[int, Any], Any] = lambda number, result: result
    ) -> list[Any]:
        """`take` may make a result smaller as it comes in. Raises the FlywheelError of a task, and StoreError where workers keep dying."""
        results: dict[int, Any] = {}
        waiting = list(range(len(tasks)))[::-1]
        running: dict[Any, tuple[int, int]] = {}  # reference -> (task, worker)

        def give(worker: int) -> None:
            if waiting:
                number = waiting.pop()
                method, arguments = tasks[number]
                running[getattr(self.workers[worker], method).remote(*arguments)] = (number, worker)

        for worker in range(len(self.workers)):
            give(worker)
        while running:
            (reference,), _ = ray.wait(list(running), num_returns=1)
            number, worker = running.pop(reference)
            try:
                results[number] = take(number, ray.get(reference))
                done(len(results))
            except ray.exceptions.RayActorError as error:
                self._replace(worker, error)
                waiting.append(number)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, FlywheelError):
                    raise type(error.cause)(str(error.cause)) from error
                raise
            give(worker)
        return [results[number] for number in range(len(tasks))]

    def _replace(self, worker: int, error: Exception) -> None:
        self.deaths += 1
        if self.deaths > MAX_DEATHS:
            raise StoreError(f"evaluation workers died {self.deaths} times, the last one so: {str(error).strip().splitlines()[0][:200]}") from error
        self.workers[worker] = self._start()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            ray.kill(worker)
