"""What launching adds on KubeRay, less `kubectl apply` of the same RayJob and a watch of its status.

Ours, dagster-ray and kubectl in turns, each RayJob with a cluster of its own, from the same manifest (deploy/rayjobs/small.yaml).
"""

import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peer
from benchmarks.cluster import NAMESPACE, Cluster, collector, find
from benchmarks.overhead_ray import KINDS, Turn, compared, process

TURNS = 5
JOB = f"python {Path(peer.__file__).with_name('job.py')}"


def run(turns: int = TURNS) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    with tempfile.TemporaryDirectory(prefix="fw-bench-") as folder:
        cluster = find(Path(folder))
        if cluster is None:
            return None
        cluster.clear()
        seen: dict[str, list[Turn]] = {kind: [] for kind in KINDS}
        for number in range(turns):
            for kind in (*KINDS[number % 3 :], *KINDS[: number % 3]):
                seen[kind].append(turn(kind, cluster))
                print(f"kuberay {kind}: {json.dumps(seen[kind][-1])}", flush=True)
                cluster.clear()
        figures, told = compared("kuberay", seen, "kubectl apply and a watch")
        return figures, {"turns": turns, **told, "metadata_arrived": {kind: sum(turn["metadata"] for turn in seen[kind]) for kind in ("ours", "theirs")}}


def turn(kind: str, cluster: Cluster, seconds: float = 0.0) -> Turn:
    """One RayJob from nothing to its materialization. `seconds`: of work, which dagster-ray's and kubectl's alone can do."""
    name = f"{kind}-{secrets.token_hex(3)}"
    if kind == "ours":
        return process([sys.executable, "-m", "benchmarks.overhead_asset", "turns", name, "1"], cluster.settings())[0]
    with collector(cluster.bridge) as (url, told):
        where = f"{url}/{name}"
        if kind == "theirs":
            order = {"kind": "kuberay", "job": JOB, "seconds": seconds, "marks": [where], "kubeconfig": str(cluster.admin), "manifest": cluster.plain()}
            document = cluster.folder / "order.json"
            document.write_text(json.dumps(order))
            (made,) = process([str(peer.interpreter()), str(Path(peer.__file__).with_name("asset.py")), str(document)])
        else:
            made = _bare(cluster, name, f"{JOB} {where} {seconds}")
        return {**made, **told[name]}


def _bare(cluster: Cluster, name: str, entrypoint: str) -> Turn:
    manifest = cluster.plain()
    manifest["metadata"]["name"], manifest["spec"]["entrypoint"] = name, entrypoint
    start = time.time()
    cluster.apply(manifest)
    command = [
        str(cluster.kubectl),
        "--kubeconfig",
        str(cluster.admin),
        "-n",
        NAMESPACE,
        "get",
        "rayjob",
        name,
        "--watch",
        "-o",
        r'jsonpath={.status.jobStatus}{"\n"}',
    ]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert watch.stdout is not None
    for line in watch.stdout:
        if line.strip() in ("SUCCEEDED", "FAILED", "STOPPED"):
            break
    known = time.time()
    watch.kill()
    watch.wait()
    return {"start": start, "materialized": known}
