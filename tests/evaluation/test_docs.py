"""The evaluator of docs/evaluation.md, as a user would bring it: written to a file, named in a config, and run by hand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from orchestration.evaluation.paired import power
from ray_jobs.seam.configs import EvaluateConfig, EvaluateSettings, TrainSettings
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.loop import learn
from ray_jobs.training.model import Lineage, write_model
from ray_jobs.training.samples import moments

ROOT = Path(__file__).parents[2]


def reaching(store: Store, steps: int) -> str:
    """A model that learned to go straight to the goal; after no steps, one that did not."""
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    states = draw.uniform(-1.2, 1.2, (4000, 4)).astype(np.float32)
    actions = np.clip(states[:, 2:] - states[:, :2], -0.1, 0.1)
    parts = [moments({"features": states[[row] * 4]}, actions[[row] * 4]) for row in range(len(states))]
    policy, _ = learn("keypoints", parts, TrainSettings(steps=steps, batch=256), 4)
    nothing = Lineage(model="", datasets=(), settings={}, code=None, versions={}, metrics={}, steps=steps, resumed_from_step=0, seconds=0.0)
    return write_model(store, policy, nothing)


def test_the_table_of_power_is_what_the_code_computes() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) % \| ([\d.]+) % \| (\d+) % \|$", (ROOT / "docs" / "evaluation.md").read_text(), re.MULTILINE)
    assert len(rows) == 12
    for pairs, discordant, level, chance in rows:
        share = int(discordant) / 100
        assert (f"{100 * power(share, int(pairs), 0.1, -0.1):.1f}", f"{100 * power(share, int(pairs), 0.1):.0f}") == (level, chance)


def test_the_evaluator_of_the_documentation_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "evaluation.md").read_text(), re.DOTALL)
    (tmp_path / "my_point.py").write_text(code)
    store = Store(StoreConfig.local(tmp_path / "store"))
    settings = EvaluateSettings(evaluator="my_point:Point", rollouts=20, actors=1)
    config = EvaluateConfig(
        store=store.config, days=("2026-01-05",), data=store.config, view=(), candidate=reaching(store, 400), champion=reaching(store, 0), settings=settings
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "ray_jobs.evaluation", "--config", str(tmp_path / "config.json")]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    (closed,) = [entry.key for entry in store.list("attempts/") if entry.key.endswith("/closed.json")]
    told = json.loads(store.get(closed))["days"]["2026-01-05"]["output"]["scores"]
    assert told["candidate"]["successes"] > 15 > told["champion"]["successes"]
    assert list(told["candidate"]["by_scene"]) == [str(1_000_000 + number) for number in range(20)]
    assert json.loads(store.get(told["manifest"]))["evaluator"] == "my_point:Point@1"
