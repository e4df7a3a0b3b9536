"""A home of its own for the steps of evaluation: its store, models in it, and what was published."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestration import settings
from orchestration.steps import Flywheel
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer

LINEAGE = {"datasets": [], "settings": {}, "steps": 0, "resumed_from_step": 0, "seconds": 0.0, "versions": {}, "metrics": {}}
A, B, C = (f"models/{letter * 32}" for letter in "abc")


@contextmanager
def home(folder: Path) -> Iterator[Flywheel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYWHEEL_HOME", str(folder))
        settings.current.cache_clear()
        flywheel = Flywheel()
        for model in (A, B, C):
            flywheel.store.put(f"{model}/lineage.json", json.dumps(LINEAGE).encode())
        yield flywheel
    settings.current.cache_clear()


def publish(flywheel: Flywheel, asset: str, day: str, generation: str = "20260105T000000.000000Z-x", **more: Any) -> None:
    made = Pointer.model_validate({"asset": asset, "day": day, "generation": generation, "run_id": "r", **more})
    flywheel.store.put(pointer(asset, day, generation), made.model_dump_json().encode())


def evaluated(flywheel: Flywheel, day: str, model: str, champion: str | None, promote: bool = True, rate: float = 0.9, error: float = 0.3) -> None:
    """What `evaluation` publishes of a day, as far as the champion reads it."""
    told = {"model": model, "rollouts": 100, "successes": round(100 * rate), "rate": rate, "low": rate - 0.05, "high": min(1.0, rate + 0.05), "by_scene": {}}
    scores = {"candidate": told, "champion": None, "offline": {"candidate": {"error": error}}}
    output = {"scores": scores, "model": model, "promote": promote, "reasons": ["as told"]}
    publish(flywheel, "evaluation", day, output=output, output_digest=f"e-{model}", inputs={"champion": champion or "none"})
