"""The measuring job killed in the middle, with its Ray: the next one measures only what the ledger lacks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ray_jobs.seam.configs import MeasureConfig, MeasureSettings
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes
from tests.curation.synthetic import make, save, table

DAY = "2026-09-21"
EPISODES = 24
BUDGET_S = 240.0

JOB = """
import json, sys
from pathlib import Path
from benchmarks.served_stage import Served
from ray_jobs.curation import job
from ray_jobs.driver import Execution
from ray_jobs.seam.configs import MeasureConfig
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes
job.FLUSH_ROWS = 1
config = MeasureConfig.model_validate_json(Path(sys.argv[1]).read_text())
result = job.run(config, Execution(Store(config.store), "attempts/test/a1/x"), [Served(0.3)])
print(json.dumps({day: each.counts for day, each in result.items()}))
"""


def start(document: Path) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environ.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(document)], env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=Path(__file__).parents[2]
    )


def test_a_job_that_is_killed_is_gone_on_with(store: Store, tmp_path: Path) -> None:
    episodes = {f"{seed:032x}": make(seed % 4, count=20) for seed in range(EPISODES)}
    for name, made in episodes.items():
        save(store, made, name)
    config = MeasureConfig(store=store.config, days=(DAY,), episodes={DAY: table(store, DAY, episodes)}, settings=MeasureSettings())
    document = tmp_path / "config.json"
    document.write_text(config.model_dump_json())
    job = start(document)
    ends = time.monotonic() + BUDGET_S
    while not (held := rows(store)) and time.monotonic() < ends and job.poll() is None:
        time.sleep(0.1)
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    held = rows(store)
    assert 0 < len(held) < EPISODES, "it was to be killed in the middle"
    again = start(document)
    said, _ = again.communicate(timeout=BUDGET_S)
    counts = json.loads(said.splitlines()[-1])[DAY]
    assert counts == {"episodes": EPISODES, "measured": EPISODES - len(held), "reused": len(held), "errors": 0}
    after = rows(store)
    assert len(after) == EPISODES and {episode: after[episode] for episode in held} == held


def rows(store: Store) -> dict[str, int]:
    """Episode -> when it was measured, of every row that was ever written."""
    found: dict[str, int] = {}
    for entry in store.list("ledger"):
        for row in from_bytes(store.get(entry.key), ["episode_id", "measured_ns"]):
            assert row["episode_id"] not in found, "measured twice"
            found[row["episode_id"]] = row["measured_ns"]
    return found
