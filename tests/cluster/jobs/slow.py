"""The keypoint policy with a step of a fifth of a second, so that there is something to lose."""

import time

import torch

from ray_jobs.training.policies.keypoints import Keypoints


class Slow(Keypoints):
    def loss(self, seen: dict[str, torch.Tensor], actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        time.sleep(0.2)
        return super().loss(seen, actions, valid)
