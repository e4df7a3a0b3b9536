"""A policy in closed loop: what the evaluation measures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fleet.arm import HORIZON, Arm, Observation

# (frame uint8 [96, 96, 3] RGB, state f32 [5]) -> action [4]; one call per control step, a fresh policy per episode where it keeps memory.
Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rollout:
    """How one episode went. frames: uint8 [steps, 96, 96, 3], states: f32 [steps, 5], actions: f32 [steps, 4]: row i of all three is one
    moment; or None where they were not asked for, or no action was carried out.
    """

    seed: int
    success: bool
    steps: int
    final_distance_m: float
    frames: np.ndarray | None = None
    states: np.ndarray | None = None
    actions: np.ndarray | None = None


def rollout(policy: Policy, seed: int, record_frames: bool = False, arm: Arm | None = None, level: str = "none") -> Rollout:
    """Let `policy` act until the block rests on the target or the horizon is reached. Seed and level (fleet.levels) alone decide the scene.

    Recorded demonstrations draw their seeds from 2**32 upwards (fleet.record), so that any smaller seed is a scene no robot has recorded.
    A policy that answers with anything but four finite numbers has failed; it does not raise. Pass `arm` to reuse one over many rollouts.
    """
    arm = arm or Arm()
    observation = arm.reset(seed, level=level)
    seen: list[Observation] = []
    done: list[np.ndarray] = []
    steps = 0
    while steps < HORIZON and not arm.success:
        action = np.asarray(policy(observation.frame, observation.state), float)
        if action.shape != (4,) or not np.all(np.isfinite(action)):
            break
        if record_frames:
            seen.append(observation)
            done.append(action)
        observation = arm.step(action)
        steps += 1
    if not seen:
        return Rollout(seed, arm.success, steps, arm.distance)
    frames, states = np.stack([one.frame for one in seen]), np.stack([one.state for one in seen])
    return Rollout(seed, arm.success, steps, arm.distance, frames, states, np.stack(done).astype(np.float32))
