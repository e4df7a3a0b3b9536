"""The policy "cnn": convolutions that say where things are."""

from collections.abc import Sequence

import torch
from torch import nn

from ray_jobs.training.features import CNN_SEES
from ray_jobs.training.policies.vision import VisionPolicy

POINTS = 24
HIDDEN = 128


class CNN(VisionPolicy):
    """Three convolutions for each camera into 24 places, which go into a small MLP with the state."""

    name = "cnn"
    chunk = CNN_SEES.chunk

    def build(self) -> nn.Module:
        return Network(len(self.names), self.window, self.config.state_width, self.chunk, self.config.action_width)


class Network(nn.Module):
    def __init__(self, cameras: int, window: int, states: int, chunk: int, actions: int):
        super().__init__()
        self.backbones = nn.ModuleList(_backbone() for _ in range(cameras))
        width = window * (states + 2 * POINTS * cameras)
        self.head = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, chunk * actions), nn.Unflatten(1, (chunk, actions))
        )

    def forward(self, state: torch.Tensor, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        seen = [backbone(each.flatten(0, 1)).reshape(len(state), -1) for backbone, each in zip(self.backbones, pictures, strict=True)]
        out: torch.Tensor = self.head(torch.cat([state.flatten(1), *seen], dim=1))
        return out


def _backbone() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, POINTS, 3, padding=1),
        nn.GroupNorm(POINTS, POINTS),  # without it every softmax is nearly flat at first, says "the middle", and learns slowly
        SpatialSoftmax(),
    )


class SpatialSoftmax(nn.Module):
    """[n, c, h, w] -> [n, 2 c]: where each channel is strong, the expected places across and then those down, -1 .. 1.

    Levine, Finn, Darrell and Abbeel 2016, "End-to-End Training of Deep Visuomotor Policies", section 5.1.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        share = maps.flatten(2).softmax(dim=2).unflatten(2, maps.shape[2:])
        across = share.sum(dim=2) @ torch.linspace(-1, 1, maps.shape[3], device=maps.device)
        down = share.sum(dim=3) @ torch.linspace(-1, 1, maps.shape[2], device=maps.device)
        return torch.cat([across, down], dim=1)
