"""Bring your own evaluator: subclass `Evaluator`, and name it in the settings as "package.module:Class".

An evaluator puts a policy in closed loop, one scene at a time: a simulator, a queue of trials on a real robot, or a log of such trials.
"""

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ray_jobs.seam.configs import EvaluateSettings
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.model import Strict

if TYPE_CHECKING:
    from ray_jobs.training.policy import Policy

FILM_FRAMES = 8
AS_RECORDED = "none"  # the level that changes nothing


class Scene(Strict):
    """One situation that every policy faces. `id` pairs the trials of two policies; `seed` draws the scene, and is None where the world did.

    task and condition say in which groups a policy must not have become worse ("" for no group).
    """

    id: str
    seed: int | None = None
    task: str = ""
    condition: str = ""


@dataclass(frozen=True)
class Recording:
    """What one trial looked like. frames: uint8 [n, h, w, 3] RGB; states: f32 [n, d] and actions: f32 [n, a] of the same moments, or None.

    A failure that has states and actions is kept as an episode.
    """

    frames: np.ndarray
    states: np.ndarray | None = None
    actions: np.ndarray | None = None
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    camera: str = "front"
    fps: float = 0.0


@dataclass(frozen=True)
class Trial:
    """How one scene went. seconds: of the robot's own time, until success or the end. recording: None where none was asked for."""

    scene: str
    success: bool
    seconds: float
    recording: Recording | None = None


def film(recording: Recording) -> Recording:
    """A few frames, evenly spaced, of a recording."""
    chosen = np.linspace(0, len(recording.frames) - 1, FILM_FRAMES).round().astype(int)
    return Recording(recording.frames[chosen])


class Evaluator(ABC):
    """One instance lives in the driver, which asks for the scenes, and one in each rollout actor, which carries them out.

    `name`, `version` and `content` say when an earlier result may be used again.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    content: str = ""  # digest of whatever else the results depend on: logs that grow

    def __init__(self, settings: EvaluateSettings):
        self.settings = settings

    def scenes(self) -> tuple[Scene, ...]:
        """Which scenes every policy faces: by default the same seeds on each of settings.levels. Raises UserError."""
        first, count = self.settings.first_seed, self.settings.rollouts
        return tuple(scene_of(seed, level) for level in dict.fromkeys(self.settings.levels) for seed in range(first, first + count))

    @abstractmethod
    def trial(self, policy: "Policy", scene: Scene, record: bool) -> Trial | None:
        """Let the policy act in the scene: the same seed and condition, the same scene, in every process.

        The policy has been reset. None where it has not faced the scene (a log without that trial).
        Raises UserError where this evaluator cannot drive the policy (another state or action).
        """


def scene_of(seed: int, level: str = AS_RECORDED) -> Scene:
    """A simulator's scene; the level is its condition."""
    return Scene(id=str(seed) if level == AS_RECORDED else f"{level}/{seed}", seed=seed, condition=level)


EVALUATORS = {"simulated_arm": "ray_jobs.evaluation.simulated:SimulatedArm", "logged_trials": "ray_jobs.evaluation.logged:LoggedTrials"}


def build_evaluator(settings: EvaluateSettings) -> Evaluator | None:
    """The one that the settings name, or None where they name none. Raises UserError."""
    return find_evaluator(settings.evaluator)(settings) if settings.evaluator else None


def find_evaluator(name: str) -> type[Evaluator]:
    """The class of a name in the settings: a built-in one, or "package.module:Class". Raises UserError."""
    module, _, attribute = EVALUATORS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute) if attribute else None
    except (ImportError, AttributeError) as error:
        raise UserError(f"the evaluator {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Evaluator)):
        raise UserError(f"the evaluator {name!r} is unknown: use one of {sorted(EVALUATORS)}, or package.module:Class of an Evaluator")
    return found
