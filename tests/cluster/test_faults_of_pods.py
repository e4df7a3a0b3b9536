"""What a job stands on goes away: its worker, its node, its place in the queue (its head: test_training). The numbers are those of docs/launching.md."""

import json
import time
from pathlib import Path

import pytest
import yaml

from testbed import faults
from tests.cluster.bench import BUDGETS, Bench
from tests.cluster.cluster import Cluster, until
from tests.cluster.curating import Curating
from tests.cluster.queueing import WORKLOADS, admitted, take

QUEUE, LOW, HIGH = "tests", "tests-low", "tests-high"
ROOM = "3500Mi"


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


@pytest.fixture(scope="module")
def queues(cluster: Cluster) -> None:
    """Room for one small job at a time, two priorities, and preemption."""
    cluster.apply(
        {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "tests"}},
        {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadPriorityClass", "metadata": {"name": LOW}, "value": 1},
        {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadPriorityClass", "metadata": {"name": HIGH}, "value": 1000},
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "ClusterQueue",
            "metadata": {"name": QUEUE},
            "spec": {
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [
                    {
                        "coveredResources": ["cpu", "memory"],
                        "flavors": [{"name": "tests", "resources": [{"name": "cpu", "nominalQuota": "64"}, {"name": "memory", "nominalQuota": ROOM}]}],
                    }
                ],
            },
        },
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "LocalQueue",
            "metadata": {"name": QUEUE, "namespace": cluster.namespace},
            "spec": {"clusterQueue": QUEUE},
        },
    )


def test_11_and_12_queued_for_long_admitted_preempted_resumed_and_nothing_is_measured_twice(bench: Bench, queues: None, tmp_path: Path) -> None:
    day = Curating.recorded(bench, tmp_path, episodes_per_robot=60)
    earlier, later = f"blocker-{bench.token}", f"important-{bench.token}"
    take(bench.cluster, QUEUE, earlier, {"cpu": "1", "memory": ROOM}, HIGH)
    until(lambda: admitted(bench.cluster, earlier), "the admission of the blocker", 60)
    going = bench.begin(day.work(), target=bench.target(queue=QUEUE, priority=LOW))
    until(lambda: any("waits in the queue" in line for line in bench.lines), "word of the queue", 60)
    queued = time.monotonic()
    until(lambda: time.monotonic() - queued > BUDGETS.starting + 5, "more than the starting budget", BUDGETS.starting + 20)
    assert not bench.cluster.pods(bench.prefix)
    bench.cluster("delete", WORKLOADS, earlier)
    until(day.measured, "the first episodes in the ledger")
    assert len(bench.executions()) == 1
    said = len(bench.lines)
    take(bench.cluster, QUEUE, later, {"cpu": "1", "memory": ROOM}, HIGH)
    until(lambda: any("waits in the queue" in line for line in bench.lines[said:]), "word of the preemption", 90)
    until(lambda: not bench.cluster.pods(bench.prefix), "the end of its pods", 60)
    before = day.measured()
    assert len(before) < 3 * len(day.episodes), "there is work left to be resumed"
    bench.cluster("delete", WORKLOADS, later)
    day.assert_as_if_nothing_had_happened(going.end())
    assert len(bench.executions()) == 2, "a new execution"
    assert before.items() <= day.measured().items(), "what was measured before is not measured again"
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
