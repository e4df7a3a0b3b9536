"""A policy in closed loop: what the evaluation measures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fleet.arm import HORIZON, Arm

# (frame uint8 [96, 96, 3] RGB, state f32 [5]) -> action [4]; one call per control step, a fresh policy per episode where it keeps memory.
Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rollout:
    """How one episode went. frames: uint8 [steps, 96, 96, 3], or None where they were not asked for."""

    seed: int
    success: bool
    steps: int
    final_distance_m: float
    frames: np.ndarray | None = None


def rollout(policy: Policy, seed: int, record_frames: bool = False, arm: Arm | None = None) -> Rollout:
    """Let `policy` act until the block rests on the target or the horizon is reached. The seed alone decides the scene.

    Recorded demonstrations draw their seeds from 2**32 upwards (fleet.record), so that any smaller seed is a scene no robot has recorded.
    A policy that answers with anything but four finite numbers has failed; it does not raise. Pass `arm` to reuse one over many rollouts.
    """
    arm = arm or Arm()
    observation = arm.reset(seed)
    frames = []
    steps = 0
    while steps < HORIZON and not arm.success:
        if record_frames:
            frames.append(observation.frame)
        action = np.asarray(policy(observation.frame, observation.state), float)
        if action.shape != (4,) or not np.all(np.isfinite(action)):
            break
        observation = arm.step(action)
        steps += 1
    return Rollout(seed, arm.success, steps, arm.distance, np.stack(frames) if frames else None)
