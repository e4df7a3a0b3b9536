"""One process that follows 1 and then 50 RayJobs at once, most of them suspended in a Kueue queue: its memory, and what it asks for.

`python -m benchmarks.overhead_crowd COUNT` is that process: one thread a step, each with a target of its own as every step has, and no Dagster.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cluster import NAMESPACE, Cluster, find
from benchmarks.overhead_requests import AGENTS, running
from benchmarks.results import figure
from benchmarks.tiny_job import TinyConfig
from orchestration.launching.places import build
from orchestration.launching.protocol import run_step
from orchestration.launching.shell import Ports, perform
from orchestration.launching.work import RunInfo, Work
from orchestration.settings import current
from ray_jobs.seam.store import Entry, Store

COUNTS = (1, 50)
AT_ONCE = 4
QUEUE = "bench"
WATCHED_S = 100.0
ROOT = Path(__file__).parents[1]


def run() -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    with tempfile.TemporaryDirectory(prefix="fw-bench-") as folder:
        cluster = find(Path(folder))
        if cluster is None:
            return None
        cluster.clear()
        _make_queue(cluster)
        figures, told = [], {}
        for count in COUNTS:
            seen = told[str(count)] = crowd(cluster, count)
            where = f"{count} RayJobs, {seen['running']} running"
            figures.append(figure(f"crowd.memory.{count}", seen["rss_mb"], f"MB resident, the launcher of {where}", None, None, "reported", True))
            requests = sum(seen["requests"].values()) * 60 / WATCHED_S
            figures.append(figure(f"crowd.requests.{count}", requests, f"requests a minute to the API server, {where}", None, None, "reported", True))
            calls = sum(seen["store_calls"].values()) * 60 / WATCHED_S
            figures.append(figure(f"crowd.store_calls.{count}", calls, f"calls a minute to the store, {where}", None, None, "reported", True))
            figures.append(figure(f"crowd.cpu.{count}", seen["cpu_s"] / WATCHED_S, f"cores, the launcher of {where}", None, None, "reported", True))
            cluster.clear()
        return figures, told


def crowd(cluster: Cluster, count: int) -> dict[str, Any]:
    """What the process was like while its jobs were alive and nothing changed."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.overhead_crowd", str(count)],
        cwd=ROOT, env={**os.environ, **cluster.settings(queue=QUEUE)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wanted, deadline = min(count, AT_ONCE), time.monotonic() + 300
        while (running(cluster) < wanted or _alive(cluster) < count) and time.monotonic() < deadline:
            time.sleep(2)
        time.sleep(10)
        since, before, calls = datetime.now(UTC), _cpu_s(worker.pid), _store_calls(worker)
        time.sleep(WATCHED_S)
        now = {"running": running(cluster), "alive": _alive(cluster), "cpu_s": round(_cpu_s(worker.pid) - before, 2), **_memory(worker.pid)}
        store = {kind: times - calls.get(kind, 0) for kind, times in _store_calls(worker).items()}
        time.sleep(2)  # the log is a little behind
        return {**now, "window_s": WATCHED_S, "requests": cluster.requests(AGENTS["ours"], since, WATCHED_S), "store_calls": store}
    finally:
        worker.kill()
        worker.wait()


def _store_calls(worker: "subprocess.Popen[str]") -> dict[str, int]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    calls: dict[str, int] = json.loads(worker.stdout.readline())
    return calls


def _alive(cluster: Cluster) -> int:
    return len(cluster("get", "rayjobs", "-o", "name").split())


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> dict[str, float]:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"rss_mb": round(int(fields["VmRSS"].split()[0]) / 1024, 1), "threads": int(fields["Threads"])}


def _make_queue(cluster: Cluster) -> None:
    """A LocalQueue whose quota holds AT_ONCE of the jobs."""
    (container,) = cluster.plain()["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    asked = container["resources"]["requests"]
    quota = [{"name": "cpu", "nominalQuota": "1000"}, {"name": "memory", "nominalQuota": f"{_mebibytes(str(asked['memory'])) * AT_ONCE}Mi"}]
    kueue = "kueue.x-k8s.io/v1beta1"
    groups = [{"coveredResources": ["cpu", "memory"], "flavors": [{"name": QUEUE, "resources": quota}]}]
    cluster.apply(
        {"apiVersion": kueue, "kind": "ResourceFlavor", "metadata": {"name": QUEUE}},
        {"apiVersion": kueue, "kind": "ClusterQueue", "metadata": {"name": QUEUE}, "spec": {"namespaceSelector": {}, "resourceGroups": groups}},
        {"apiVersion": kueue, "kind": "LocalQueue", "metadata": {"name": QUEUE, "namespace": NAMESPACE}, "spec": {"clusterQueue": QUEUE}},
    )


def _mebibytes(quantity: str) -> int:
    return int(float(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]])


class _Counting(Store):
    """Counts what is asked of the store."""

    calls: Counter[str] = Counter()

    def get(self, key: str) -> bytes:
        self.calls["get"] += 1
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self.calls["put"] += 1
        super().put(key, data)

    def list(self, prefix: str = "") -> Any:
        self.calls["list"] += 1
        found: list[Entry] = [*super().list(prefix)]
        return iter(found)


def _follow(count: int) -> None:
    settings = current()
    place, name = settings.place("cluster"), settings.deployment

    def one(number: int) -> None:
        work = Work(
            asset=f"crowd-{number}", days=("2026-01-05",), module="benchmarks.tiny_job", budgets=place.budgets, deployment=name,
            config_for=lambda days: TinyConfig(store=settings.store_config(), days=days, until=f"go/{name}").model_dump(mode="json"),
            code=code().sha256,
        )  # fmt: skip
        target = build("cluster", place, settings.home_path, settings.store_config())
        ports = Ports(_Counting(settings.store_config()), target, lambda: "STARTED", log=lambda line: None)
        perform(run_step(work, RunInfo(f"{name}-{number}", f"{name}-{number}", datetime.now(UTC))), ports)

    from orchestration.launching.code import code

    for number in range(count):
        threading.Thread(target=one, args=(number,), daemon=True).start()
    for _ in sys.stdin:
        print(json.dumps(_Counting.calls), flush=True)


if __name__ == "__main__":
    _follow(int(sys.argv[1]))
