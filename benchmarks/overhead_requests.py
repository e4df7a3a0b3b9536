"""What one running job costs the API server in requests, from its audit log: ours, and dagster-ray's."""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks import peer
from benchmarks.cluster import Cluster, find
from benchmarks.overhead_kuberay import turn
from benchmarks.overhead_ray import ROOT
from benchmarks.results import figure

WATCHED_S = 180.0
AGENTS = {"ours": "robot-flywheel", "theirs": "OpenAPI-Generator"}  # the Kubernetes client's own, which dagster-ray leaves as it is


def run() -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    with tempfile.TemporaryDirectory(prefix="fw-bench-") as folder:
        cluster = find(Path(folder))
        if cluster is None:
            return None
        cluster.clear()
        counts = {"ours": ours(cluster), "theirs": theirs(cluster)}
        cluster.clear()
    hourly = {kind: sum(each.values()) * 3600 / WATCHED_S for kind, each in counts.items()}
    unit = f"requests to the API server for each hour of a running job, scaled from {WATCHED_S:.0f} s; those of its start and end are left out"
    ratio = hourly["ours"] / hourly["theirs"]
    return [figure("requests.job_hour", hourly["ours"], unit, (peer.NAME, hourly["theirs"]), ratio, "reported", True)], {"counted": counts}


def ours(cluster: Cluster) -> dict[str, int]:
    name = f"asked-{secrets.token_hex(3)}"
    (cluster.folder / name).mkdir()
    command = [sys.executable, "-m", "benchmarks.overhead_asset", "step", str(cluster.folder / name), name, f"go/{name}"]
    worker = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **cluster.settings()}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    counted = _counted(cluster, "ours")
    cluster.store.put(f"go/{name}", b"go")
    worker.wait(120)
    cluster.clear()
    return counted


def theirs(cluster: Cluster) -> dict[str, int]:
    job = Thread(target=turn, args=("theirs", cluster, WATCHED_S + 60))
    job.start()
    counted = _counted(cluster, "theirs")
    job.join(300)
    return counted


def _counted(cluster: Cluster, kind: str) -> dict[str, int]:
    deadline = time.monotonic() + 240
    while not running(cluster) and time.monotonic() < deadline:
        time.sleep(1)
    time.sleep(10)
    since = datetime.now(UTC)
    time.sleep(WATCHED_S + 2)  # the log is a little behind
    return cluster.requests(AGENTS[kind], since, WATCHED_S)


def running(cluster: Cluster) -> int:
    """RayJobs whose drivers are at work."""
    return cluster("get", "rayjobs", "-o", r'jsonpath={range .items[*]}{.status.jobStatus}{"\n"}{end}').split().count("RUNNING")
