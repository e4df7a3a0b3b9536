"""How long it takes to adopt the job of a killed run worker, and to cancel: real processes, real signals, Dagster's own instance."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import dagster as dg
from dagster import DagsterInstance

from benchmarks.cluster import find
from benchmarks.results import figure
from ray_jobs.seam.store import Store

ROOT = Path(__file__).parents[1]
BUDGET_S = 240.0
TURNS = 5  # on KubeRay
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where the tiny job runs: the store, the settings of the step's process, and a look at what is left of a job by its name."""

    store: Store
    left: Callable[[str], int]
    environment: dict[str, str] = field(default_factory=dict)


def run() -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """On KubeRay; `overhead_ray` does the same on its head."""
    with tempfile.TemporaryDirectory(prefix="fw-bench-") as folder:
        cluster = find(Path(folder))
        if cluster is None:
            return None
        cluster.clear()
        return lifecycle("lifecycle", Place(cluster.store, cluster.left, cluster.settings()), TURNS)


def lifecycle(part: str, place: Place, turns: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Figures of both, medians, and what they are medians of."""
    adopted = [adopt(place, f"adopt-{secrets.token_hex(3)}") for _ in range(turns)]
    cancelled = [cancel(place, f"cancel-{secrets.token_hex(3)}") for _ in range(turns)]
    figures = [
        figure(f"{part}.adopt", median(adopted), "s from the retry's step start to the adopted job", None, None, "reported", True),
        figure(f"{part}.cancel", median(cancelled), "s from the interruption until nothing is left of the job", None, None, "<= 10 s", median(cancelled) <= 10),
    ]
    return figures, {"adopt_s": [round(each, 3) for each in adopted], "cancel_s": [round(each, 3) for each in cancelled]}


def adopt(place: Place, name: str) -> float:
    """Seconds from the start of the retry's step to the job that the killed worker had launched."""
    with _instance() as (instance, folder):
        with _worker(place, folder, name) as first:
            _running(place, name)
            first.kill()
            first.wait()
        (killed,) = instance.get_runs()
        with _worker(place, folder, name, killed.run_id) as second:
            adopted = _await(lambda: _moment(instance, killed.run_id, "adopted "), "the job was adopted")
            place.store.put(_until(name), b"go")
            second.wait(BUDGET_S)
        (retry,) = [run for run in instance.get_runs() if run.run_id != killed.run_id]
        assert retry.status is dg.DagsterRunStatus.SUCCESS, f"the retry is {retry.status}"
        assert len(_executions(place, name)) == 1, "the job was started twice"
        return adopted - _step_start(instance, retry.run_id)


def cancel(place: Place, name: str) -> float:
    """Seconds from the interruption of the worker, as a person's termination of the run sends it, until nothing is left of the job."""
    with _instance() as (instance, folder), _worker(place, folder, name) as worker:
        job = _running(place, name)
        assert place.left(job)
        (run,) = instance.get_runs()
        instance.report_run_canceling(run)
        asked = time.time()
        worker.send_signal(signal.SIGTERM)
        _await(lambda: place.left(job) == 0, "the job was gone", pause=0.05)
        gone = time.time()
        worker.wait(BUDGET_S)
        return gone - asked


@contextmanager
def _instance() -> Iterator[tuple[DagsterInstance, str]]:
    with tempfile.TemporaryDirectory() as folder, DagsterInstance.local_temp(folder) as instance:
        yield instance, folder


@contextmanager
def _worker(place: Place, folder: str, name: str, root: str = "") -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.overhead_asset", "step", folder, name, _until(name), *([root] if root else [])]
    log = Path(folder) / "worker.log"
    with log.open("ab") as output:
        worker = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **place.environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def _until(name: str) -> str:
    return f"go/{name}"


def _executions(place: Place, name: str) -> list[str]:
    """Prefixes of the executions whose attempt waits for this object."""
    found = {entry.key.rsplit("/messages/", 1)[0] for entry in place.store.list("attempts/") if "/messages/" in entry.key}
    wanted = f'"{_until(name)}"'.encode()
    return sorted(prefix for prefix in found if wanted in place.store.get(prefix.rsplit("/", 1)[0] + "/attempt.json"))


def _running(place: Place, name: str) -> str:
    """The job's name, once its driver speaks."""
    prefix = _await(lambda: _executions(place, name), "the driver spoke")[0]
    base, number = prefix.split("/")[1:3]
    return f"{base}-{number}"


def _step_start(instance: DagsterInstance, run_id: str) -> float:
    return next(entry.timestamp for entry in instance.all_logs(run_id) if entry.dagster_event and entry.dagster_event.event_type_value == "STEP_START")


def _moment(instance: DagsterInstance, root: str, said: str) -> float:
    """When the retry of that run logged a line that begins so; 0.0 before."""
    for run in instance.get_runs():
        if run.root_run_id == root:
            for entry in instance.all_logs(run.run_id):
                if entry.user_message.startswith(said):
                    return entry.timestamp
    return 0.0


def _await(look: Callable[[], T], what: str, pause: float = 0.2) -> T:
    deadline = time.monotonic() + BUDGET_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {BUDGET_S:.0f} s")
        time.sleep(pause)
    return found
