"""What is common to policies whose network looks at pictures: what it sees, and how pictures are augmented in training."""

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from ray_jobs.training.features import Observation
from ray_jobs.training.policies.pictures import PICTURE, observe_pictures
from ray_jobs.training.policy import Policy

Seen = dict[str, torch.Tensor]


class VisionPolicy(Policy):
    """Sees the state and a small picture of every camera.

    A subclass's `build` returns a network of (state f32 [n, window, d] normalised, pictures: for each camera by name f32 [n, window, 3, h, w], -1 .. 1)
    -> [n, chunk, a], as of `outputs`.
    """

    cameras: ClassVar[Literal["first", "all"]] = "all"
    shift: ClassVar[int] = 4  # pixels by which pictures are moved at most while it learns
    light: ClassVar[float] = 0.2  # share by which they are made brighter or darker at most

    @staticmethod
    def observe(states: np.ndarray, frames: dict[str, np.ndarray]) -> Observation:
        return observe_pictures(states, frames)

    @property
    def names(self) -> list[str]:
        """Of the pictures."""
        return sorted(name for name in self.config.shapes if name.startswith(PICTURE))

    def pictures(self, seen: Seen) -> list[torch.Tensor]:
        return [seen[name].movedim(-1, 2).float() * (2 / 255) - 1 for name in self.names]

    def augmented(self, seen: Seen) -> list[torch.Tensor]:
        """The pictures, each row's moved and lit a little differently, the moments of a window alike.

        Moved by padding and cutting: Kostrikov, Yarats and Fergus 2021, "Image Augmentation Is All You Need".
        """
        return [self._augmented(pictures) for pictures in self.pictures(seen)]

    def _augmented(self, pictures: torch.Tensor) -> torch.Tensor:
        count, _, _, height, width = pictures.shape
        gain = 1 + self.light * (2 * torch.rand(count, 1, 1, 1, 1) - 1)
        lit = (pictures + 1) * gain.to(pictures.device) - 1
        padded = nn.functional.pad(lit.flatten(0, 1), (self.shift,) * 4, mode="replicate").unflatten(0, lit.shape[:2])
        corners = torch.randint(0, 2 * self.shift + 1, (count, 2)).tolist()
        return torch.stack([row[..., top : top + height, left : left + width] for row, (top, left) in zip(padded, corners, strict=True)])

    def outputs(self, seen: Seen) -> torch.Tensor:
        out: torch.Tensor = self.network(seen["state"], self.pictures(seen))
        return out

    def loss(self, seen: Seen, actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.regression(self.network(seen["state"], self.augmented(seen)), actions, valid)
