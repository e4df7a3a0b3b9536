"""What a job stands on goes away: its worker, its node (its head: test_training; its place in the queue: test_faults_of_queues).

The numbers are those of docs/launching.md.
"""

import json
import time
from pathlib import Path

import pytest
import yaml

from testbed import faults
from tests.cluster.bench import Bench
from tests.cluster.cluster import until
from tests.cluster.curating import Curating


def test_6_a_worker_pod_is_deleted_mid_curation_and_the_job_goes_on(bench: Bench, manifests: dict[str, Path], tmp_path: Path) -> None:
    day = Curating.recorded(bench, tmp_path, episodes_per_robot=50)
    going = bench.begin(day.work(), target=bench.target(manifests["worker"]))
    until(day.measured, "the first episodes in the ledger")
    bench.cluster("delete", "pod", bench.cluster.pod(bench.prefix, "worker"), "--wait=false")
    before = len(day.measured())
    assert before < 3 * len(day.episodes), "there is work left to be disturbed"
    day.assert_as_if_nothing_had_happened(going.end())
    assert len(bench.executions()) == 1, "the driver never noticed"
    bench.assert_once()


@pytest.mark.testbed
def test_20_a_node_is_lost_found_and_replaced(bench: Bench, manifests: dict[str, Path], tmp_path: Path) -> None:
    faults.add_node()
    document = yaml.safe_load(manifests["worker"].read_text())
    document["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "node-1"}
    prefer = {"weight": 100, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-2"]}]}}
    worker = document["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    worker["tolerations"] = [{"key": faults.SECOND, "operator": "Exists", "effect": "NoSchedule"}]
    worker["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [prefer]}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document))
    going = bench.begin(bench.work(tasks=40, task_s=0.5), target=bench.target(tmp_path / "job.yaml"))
    until(lambda: len(bench.tasks()) >= 3, "three tasks")
    placed = json.loads(bench.cluster("get", "pod", bench.cluster.pod(bench.prefix, "worker"), "-o", "json"))["spec"]["nodeName"]
    assert placed == "node-2"
    faults.lose_node()
    lost, before = time.monotonic(), len(bench.tasks())
    try:
        until(lambda: any("lost" in line for line in bench.lines), "a launcher that says so", 60)
        print(f"told after {time.monotonic() - lost:.0f} s")
        until(lambda: len(bench.tasks()) > before + 1, "a task after the loss", 90 - (time.monotonic() - lost))
        print(f"going on after {time.monotonic() - lost:.0f} s")
        assert going.end().error is None
        assert len(bench.starts()) == 1, "the driver never died"
        bench.assert_once()
    finally:
        faults.add_node()
