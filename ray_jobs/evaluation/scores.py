"""What was measured of one model, as it is kept and compared; and the manifest of the scenes, by which results can be paired."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ray_jobs.evaluation.evaluator import Evaluator, Scene
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.model import Strict, canonical, digest
from ray_jobs.seam.proportions import wilson
from ray_jobs.seam.store import Store

HASH_LENGTH = 32


class TrialScore(Strict):
    success: bool
    seconds: float


class Manifest(Strict):
    """Which scenes every policy faces, and by whom they are drawn: evaluations/manifests/<hash>.json, immutable."""

    evaluator: str  # name@version
    content: str  # digest of what else the results depend on
    scenes: tuple[Scene, ...]

    @classmethod
    def of(cls, evaluator: Evaluator, name: str) -> "Manifest":
        """`name`: as the settings say it, so that two evaluators of the user's own cannot be taken for one another. Raises UserError."""
        scenes = evaluator.scenes()
        if twice := [scene for scene, count in Counter(scene.id for scene in scenes).items() if count > 1]:
            raise UserError(f"the evaluator {name!r} names the scene {twice[0]!r} twice: trials are paired by it, so each needs an id of its own")
        return cls(evaluator=f"{name}@{evaluator.version}", content=evaluator.content, scenes=scenes)

    @property
    def key(self) -> str:
        return f"evaluations/manifests/{self.hash}.json"

    @property
    def hash(self) -> str:
        return digest(self)[:HASH_LENGTH]

    def groups(self) -> dict[str, dict[str, list[str]]]:
        """ "task" and "condition" -> name -> ids of its scenes, where the scenes differ in it."""
        found: dict[str, dict[str, list[str]]] = {}
        for kind in ("task", "condition"):
            names: dict[str, list[str]] = {}
            for scene in self.scenes:
                names.setdefault(getattr(scene, kind), []).append(scene.id)
            if len(names) > 1:
                found[kind] = names
        return found


class Rollouts(Strict):
    """Closed-loop results of one model on one manifest: scene -> how it went. failures: some of them as a LeRobot dataset in the store."""

    model: str
    manifest: str
    trials: dict[str, TrialScore]
    failures: DayDataset | None = None


def summary(model: str, trials: Mapping[str, TrialScore]) -> dict[str, Any]:
    """What evaluation's scores say of a model; low and high are the Wilson 95 % interval; by_scene in the trials' order."""
    count, won = len(trials), sum(trial.success for trial in trials.values())
    low, high = wilson(won, count) if count else (None, None)
    return {
        "model": model,
        "rollouts": count,
        "successes": won,
        "rate": won / count if count else None,
        "low": low,
        "high": high,
        "seconds_to_success": round(sum(trial.seconds for trial in trials.values() if trial.success) / won, 3) if won else None,
        "by_scene": {scene: trial.success for scene, trial in trials.items()},
    }


def key(model: str, manifest: Manifest) -> str:
    """evaluations/<model hash>/<manifest hash>.json: models and manifests are immutable, so the result stays true."""
    return f"evaluations/{model.rsplit('/', 1)[-1]}/{manifest.hash}.json"


def kept(store: Store, model: str, manifest: Manifest) -> Rollouts | None:
    """An earlier result of exactly this, or None; one that cannot be read counts as none."""
    data = store.find(key(model, manifest))
    if data is None:
        return None
    try:
        return Rollouts.model_validate_json(data)
    except ValidationError:
        return None


def keep(store: Store, rollouts: Rollouts, manifest: Manifest) -> None:
    store.put(key(rollouts.model, manifest), rollouts.model_dump_json().encode())


def publish(store: Store, manifest: Manifest) -> None:
    if not store.exists(manifest.key):
        store.put(manifest.key, canonical(manifest).encode())
