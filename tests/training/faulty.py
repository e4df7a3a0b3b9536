"""The keypoint policy, in workers to which things happen: what a Ray actor named `faults` says, asked before every loss."""

import os
import signal
import time
from typing import Any

import numpy as np
import ray
import torch

from ray_jobs.seam.errors import UserError
from ray_jobs.training.features import Observation
from ray_jobs.training.policies.keypoints import Keypoints
from ray_jobs.training.spec import PolicyConfig, Statistics


class Faulty(Keypoints):
    """`kind`s: kill and halt (SIGSTOP) end this very process, hang never returns, mistake is one of its author's."""

    calls = 0

    def loss(self, seen: dict[str, torch.Tensor], actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        rank = ray.train.get_context().get_world_rank()
        kind, pace_s = ray.get(ray.get_actor("faults", namespace="tests").ask.remote(rank, self.calls))
        time.sleep(pace_s)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "halt":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif kind == "hang":
            time.sleep(3600)
        elif kind == "mistake":
            seen = {"picture": seen["features"]}
        return super().loss(seen, actions, valid)


@ray.remote(num_cpus=0)
class Faults:
    """What is to happen, in this order, one in each group of workers: (kind, rank, which of its process's losses)."""

    def __init__(self) -> None:
        self.plan()

    def plan(self, *planned: tuple[str, int, int], pace_s: float = 0.0) -> None:
        """pace_s: each loss of a process after its twentieth takes so much longer, so that somebody else can do something to it."""
        self.planned, self.pace_s = list(planned), pace_s
        self.happened: list[tuple[str, float]] = []

    def ask(self, rank: int, call: int) -> tuple[str | None, float]:
        pace_s = self.pace_s if call > 20 else 0.0
        if not self.planned or self.planned[0][1:] != (rank, call):
            return None, pace_s
        kind = self.planned.pop(0)[0]
        self.happened.append((kind, time.time()))
        return kind, pace_s

    def told(self) -> list[tuple[str, float]]:
        return self.happened


def faults() -> Any:
    return Faults.options(name="faults", namespace="tests").remote()  # type: ignore[attr-defined]


class Unbuildable(Keypoints):
    def __init__(self, config: PolicyConfig, statistics: Statistics):
        raise UserError("these are not the observations that it was made for")


class Unobservant(Keypoints):
    """Its author tried it on a few moments."""

    @staticmethod
    def observe(states: np.ndarray, frames: dict[str, np.ndarray]) -> Observation:
        if len(states) > 8:
            frames["wrist"]
        return Keypoints.observe(states, frames)
