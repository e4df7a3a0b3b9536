"""A training step of fixed service time, standing for a GPU: whoever measures how well it is fed names `benchmarks.training_step:Timed`."""

import time

import torch
from torch import nn

from ray_jobs.training.features import CNN_SEES, Observation
from ray_jobs.training.policy import Policy

SERVICE_S = 0.020


class Timed(Policy):
    """Sees what "cnn" sees, learns next to nothing from it, and takes as long whatever the batch."""

    name = "timed"
    chunk = CNN_SEES.chunk
    cameras = CNN_SEES.cameras

    @staticmethod
    def observe(states, frames) -> Observation:  # type: ignore[no-untyped-def]
        return CNN_SEES.observe(states, frames)

    def build(self) -> nn.Module:
        return nn.Linear(self.config.state_width, self.chunk * self.config.action_width)

    def outputs(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        flat: torch.Tensor = self.network(seen["state"][:, 0])
        return flat.unflatten(1, (self.chunk, -1))

    def loss(self, seen: dict[str, torch.Tensor], actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        ends = time.monotonic() + SERVICE_S
        found = super().loss(seen, actions, valid)
        time.sleep(max(0.0, ends - time.monotonic()))
        return found
