"""What was measured of one model, as it is kept and compared."""

import hashlib
from typing import Any

from pydantic import ValidationError

from ray_jobs.seam.model import Strict
from ray_jobs.seam.proportions import wilson
from ray_jobs.seam.store import Store


class TrialScore(Strict):
    success: bool
    steps: int


class Rollouts(Strict):
    """Closed-loop results of one model by one evaluator: seed (as text) -> how it went."""

    model: str
    evaluator: str
    trials: dict[str, TrialScore]

    def summary(self) -> dict[str, Any]:
        """What evaluation's scores say of a model; low and high are the Wilson 95 % interval."""
        count, won = len(self.trials), sum(trial.success for trial in self.trials.values())
        low, high = wilson(won, count)
        by_seed = {seed: trial.success for seed, trial in sorted(self.trials.items(), key=lambda item: int(item[0]))}
        return {"model": self.model, "rollouts": count, "successes": won, "rate": won / count, "low": low, "high": high, "by_seed": by_seed}


def nothing_rolled_out(model: str) -> dict[str, Any]:
    return {"model": model, "rollouts": 0, "successes": 0, "rate": None, "low": None, "high": None, "by_seed": {}}


def key(model: str, evaluator: str, seeds: list[int]) -> str:
    """evaluations/<model hash>/<evaluator>-<digest of the seeds>.json: models are immutable, so the result stays true."""
    name = hashlib.sha256(evaluator.encode()).hexdigest()[:8] if ":" in evaluator else evaluator
    return f"evaluations/{model.rsplit('/', 1)[-1]}/{name}-{hashlib.sha256(repr(seeds).encode()).hexdigest()[:16]}.json"


def kept(store: Store, model: str, evaluator: str, seeds: list[int]) -> Rollouts | None:
    """An earlier result of exactly this, or None; one that cannot be read counts as none."""
    data = store.find(key(model, evaluator, seeds))
    if data is None:
        return None
    try:
        found = Rollouts.model_validate_json(data)
    except ValidationError:
        return None
    return found if sorted(map(int, found.trials)) == sorted(seeds) else None


def keep(store: Store, rollouts: Rollouts, seeds: list[int]) -> None:
    store.put(key(rollouts.model, rollouts.evaluator, seeds), rollouts.model_dump_json().encode())
