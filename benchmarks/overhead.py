"""What the protocol adds: asset start to the job's first line, and the job's end to the materialization.

Beside it, in turns in the same run, a bare submission of the same entry point to the same Ray, polled every 0.1 s.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import dagster as dg
import requests

from benchmarks.results import figure, write
from orchestration.launching.head import Head

ROUNDS = 7
GOAL = 1.0  # seconds that we may add to each, by the median


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="fw-bench-"))
    os.environ["FLYWHEEL_HOME"] = str(home)
    head = Head(home)
    try:
        head.ensure()
        ours, bare = [], []
        for number in range(ROUNDS + 1):
            ours.append(_ours(number))
            bare.append(_bare(head, number))
        ours, bare = ours[1:], bare[1:]  # the first round warms both up
    finally:
        head.stop()
        shutil.rmtree(home, ignore_errors=True)
    figures = []
    for position, name in enumerate(("start_to_first_line", "end_to_known")):
        mine, theirs = median(each[position] for each in ours), median(each[position] for each in bare)
        against = ("bare submission, polled every 0.1 s", theirs)
        figures.append(figure(name, mine, "s", against, mine / theirs, f"at most {GOAL} s more", mine - theirs <= GOAL))
    write("overhead", figures, rounds=ROUNDS)


def _ours(number: int) -> tuple[float, float]:
    """Seconds from the step's start to the job's first line, and from the job's last line to the materialization event."""
    from orchestration.partitions import DAILY
    from orchestration.settings import current
    from orchestration.steps import Flywheel, Planned, heavy
    from ray_jobs.seam.configs import JobConfig
    from ray_jobs.seam.results import read_pointer

    @dg.asset(partitions_def=DAILY, output_required=False)
    def tiny(context: dg.AssetExecutionContext, flywheel: Flywheel):  # type: ignore[no-untyped-def]
        def config(days: tuple[str, ...]) -> JobConfig:
            return JobConfig(store=flywheel.settings.store_config(), days=days)

        days = {day: {"round": str(number)} for day in context.partition_keys}
        yield from heavy(context, flywheel, Planned(asset="tiny", module="benchmarks.tiny_job", settings=None, day_inputs=days, config_for=config))

    day = current().first_day
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([tiny], partition_key=day, resources={"flywheel": Flywheel()}, instance=instance)
        events = {entry.dagster_event.event_type_value: entry.timestamp for entry in instance.all_logs(result.run_id) if entry.dagster_event}
    pointer = read_pointer(Flywheel().store, "tiny", day)
    assert pointer
    return pointer.output["first_line"] - events["STEP_START"], events["ASSET_MATERIALIZATION"] - pointer.output["done"]


def _bare(head: Head, number: int) -> tuple[float, float]:
    from orchestration.settings import REPOSITORY, current
    from ray_jobs.seam.results import Closed
    from ray_jobs.seam.store import Store

    state = head.ensure()
    config = current().store_config()
    store = Store(config)
    key = f"attempts/bare-{number}/a1/attempt.json"
    store.put(key, b'{"asset": "tiny", "run_id": "bare", "config": {"store": %s, "days": ["2026-01-05"]}}' % config.model_dump_json().encode())
    entrypoint = f"{sys.executable} -m benchmarks.tiny_job --attempt {key} --store '{config.model_dump_json()}'"
    body = {"entrypoint": entrypoint, "runtime_env": {"env_vars": {"PYTHONPATH": str(REPOSITORY)}}}
    url, headers = f"http://127.0.0.1:{state.port}/api/jobs/", head.headers(state)
    asked = time.time()
    job = requests.post(url, json=body, headers=headers, timeout=30).json()["submission_id"]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if requests.get(url + job, headers=headers, timeout=30).json()["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
            break
        time.sleep(0.1)
    known = time.time()
    (closed,) = [entry.key for entry in store.list(f"attempts/bare-{number}/a1/") if entry.key.endswith("closed.json")]
    output = Closed.model_validate_json(store.get(closed)).days["2026-01-05"].output
    return output["first_line"] - asked, known - output["done"]
