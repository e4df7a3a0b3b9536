"""Bring your own evaluator: subclass `Evaluator`, and name it in the settings as "package.module:Class".

An evaluator puts a policy in closed loop, one seed at a time: a simulator, or a queue of trials on a real robot.
"""

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ray_jobs.seam.errors import UserError

if TYPE_CHECKING:
    from ray_jobs.training.policy import Policy


@dataclass(frozen=True)
class Trial:
    """How one seed went. frames: uint8 [n, h, w, 3] RGB, or None where they were not asked for."""

    seed: int
    success: bool
    steps: int
    frames: np.ndarray | None = None


class Evaluator(ABC):
    """One instance lives in each rollout actor. `name` and `version` say when an earlier result may be used again."""

    name: ClassVar[str]
    version: ClassVar[str]

    @abstractmethod
    def trial(self, policy: "Policy", seed: int, record: bool) -> Trial:
        """Let the policy act on the scene that the seed draws: the same seed, the same scene, in every process.

        The policy has been reset. Raises UserError where this evaluator cannot drive the policy (another state or action).
        """


class SimulatedArm(Evaluator):
    """The fleet's own arm: a red block, a green target, at most six simulated seconds."""

    name = "simulated_arm"
    version = "1"

    def __init__(self) -> None:
        from fleet.arm import Arm

        self._arm = Arm()

    def trial(self, policy: "Policy", seed: int, record: bool) -> Trial:
        from fleet.arm import ACTION_NAMES, STATE_NAMES
        from fleet.rollout import rollout

        if (policy.config.state_width, policy.config.action_width) != (len(STATE_NAMES), len(ACTION_NAMES)):
            widths = f"{policy.config.state_width} states and {policy.config.action_width} actions"
            raise UserError(f"the simulated arm cannot run a policy of {widths}: set evaluation.evaluator to your own, or to null for offline error only")
        result = rollout(policy.act, seed, record, self._arm)
        return Trial(seed, result.success, result.steps, result.frames)


EVALUATORS: dict[str, type[Evaluator]] = {SimulatedArm.name: SimulatedArm}


def find_evaluator(name: str) -> type[Evaluator]:
    """The class of a name in the settings: a built-in one, or "package.module:Class". Raises UserError."""
    if name in EVALUATORS:
        return EVALUATORS[name]
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute) if attribute else None
    except (ImportError, AttributeError) as error:
        raise UserError(f"the evaluator {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Evaluator)):
        raise UserError(f"the evaluator {name!r} is unknown: use one of {sorted(EVALUATORS)}, or package.module:Class of an Evaluator")
    return found
