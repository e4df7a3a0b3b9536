"""The default policy."""

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from ray_jobs.training.features import BLOB_WIDTH, KEYPOINTS, Observation
from ray_jobs.training.policy import Policy


class Keypoints(Policy):
    """Two colour blobs, a thumbnail and proprioception into a small MLP: learns the demo's task in seconds.

    The thumbnail carries what it can of pictures without a red and a green thing; the blobs are constant there and the
    normalisation silences them.
    """

    name = "keypoints"
    hidden: ClassVar[tuple[int, ...]] = (128, 128, 128)
    chunk = KEYPOINTS.chunk

    @staticmethod
    def observe(states: np.ndarray, frames: dict[str, np.ndarray]) -> Observation:
        return KEYPOINTS.observe(states, frames)

    def build(self) -> nn.Module:
        if self.config.cameras and self.blobs_seen:
            self.used = self.config.state_width + BLOB_WIDTH
        else:
            (self.used,) = self.config.shapes["features"]
        layers: list[nn.Module] = []
        width = self.used
        for size in self.hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, self.chunk * self.config.action_width))

    @property
    def blobs_seen(self) -> bool:
        """Both colours stand in most frames: then they say it all, and the thumbnail would only be memorised."""
        first, mean = self.config.state_width, self.statistics.mean["features"]
        return mean[first + 3] > 0.5 and mean[first + 7] > 0.5

    def outputs(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        flat: torch.Tensor = self.network(seen["features"][:, 0, : self.used])
        return flat.reshape(len(flat), self.chunk, self.config.action_width)
