"""The policy of docs/training.md, as a user would bring it: written to a file, named in a config, and trained by hand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.packing.view import episodes_of, read_episode_arrays
from ray_jobs.seam.configs import TrainConfig, TrainSettings
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.model import read_model
from tests.training.recorded import DAY, demo_day

ROOT = Path(__file__).parents[2]


def test_the_policy_of_the_documentation_trains_and_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    (tmp_path / "my_policy.py").write_text(code)
    store = Store(StoreConfig.local(tmp_path / "store"))
    day = demo_day(store, tmp_path, 10)
    settings = TrainSettings(policy="my_policy:TwoMoments", steps=300, batch=64, workers=0, holdout=0)
    config = TrainConfig(store=store.config, days=(DAY,), data=store.config, view=(day,), settings=settings)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "ray_jobs.training", "--config", str(tmp_path / "config.json")]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    (closed,) = [entry.key for entry in store.list("attempts/") if entry.key.endswith("/closed.json")]
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.set_num_threads(1)
    policy = read_model(store, json.loads(store.get(closed))["days"][DAY]["output"]["model"])
    assert (policy.config.policy, policy.window, policy.config.cameras) == ("my_policy:TwoMoments", 2, ("front",))
    arrays = read_episode_arrays(store, day, episodes_of(store, day)[0])
    acted = np.array([policy.act({"front": frame}, state) for frame, state in zip(arrays.frames["front"], arrays.state, strict=True)])
    spread = arrays.action - arrays.action.mean(axis=0)
    assert ((acted - arrays.action) ** 2).mean(axis=0)[:3].sum() < 0.5 * (spread**2).mean(axis=0)[:3].sum()  # far better than the mean action
    assert ((acted[:, 3] > 0.5) == (arrays.action[:, 3] > 0.5)).mean() > 0.9
