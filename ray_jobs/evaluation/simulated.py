"""The fleet's own arm as an evaluator."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ray_jobs.evaluation.evaluator import AS_RECORDED, Evaluator, Recording, Scene, Trial
from ray_jobs.seam.errors import UserError

if TYPE_CHECKING:
    from fleet.arm import Arm
    from ray_jobs.training.policy import Policy


def acting(policy: "Policy") -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The arm has one camera: whatever the policy calls the ones it knows, it sees that."""
    return lambda frame, state: policy.act(dict.fromkeys(policy.config.cameras, frame), state)


class SimulatedArm(Evaluator):
    """A red block, a green target, at most six simulated seconds. Conditions are fleet.levels.LEVELS: light, colours, camera, sizes."""

    name = "simulated_arm"
    version = "1"
    _arm: "Arm | None" = None

    def scenes(self) -> tuple[Scene, ...]:
        if set(self.settings.levels) != {AS_RECORDED}:  # the driver needs no physics only to look
            from fleet.levels import LEVELS

            if unknown := sorted(set(self.settings.levels) - set(LEVELS)):
                raise UserError(f"evaluation.levels: the simulated arm has no level {unknown[0]!r}, there are {', '.join(LEVELS)}")
        return super().scenes()

    def trial(self, policy: "Policy", scene: Scene, record: bool) -> Trial:
        from fleet.arm import ACTION_NAMES, CONTROL_HZ, STATE_NAMES, Arm
        from fleet.rollout import rollout

        if (policy.config.state_width, policy.config.action_width) != (len(STATE_NAMES), len(ACTION_NAMES)):
            widths = f"{policy.config.state_width} states and {policy.config.action_width} actions"
            raise UserError(f"the simulated arm cannot run a policy of {widths}: set evaluation.evaluator to your own, or to null for offline error only")
        self._arm = self._arm or Arm()
        assert scene.seed is not None
        done = rollout(acting(policy), scene.seed, record, self._arm, scene.condition)
        seen = None
        if done.frames is not None:
            seen = Recording(done.frames, done.states, done.actions, STATE_NAMES, ACTION_NAMES, "front", CONTROL_HZ)
        return Trial(scene.id, done.success, done.steps / CONTROL_HZ, seen)
