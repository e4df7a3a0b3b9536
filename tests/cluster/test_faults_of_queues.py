"""A job waits in Kueue's queue for long, is admitted, preempted, and admitted again. The numbers are those of docs/launching.md."""

import time
from pathlib import Path

import pytest

from tests.cluster.bench import BUDGETS, Bench
from tests.cluster.cluster import Cluster, until
from tests.cluster.curating import Curating
from tests.cluster.queueing import WORKLOADS, admitted, take

QUEUE, LOW, HIGH = "tests", "tests-low", "tests-high"
ROOM = "3500Mi"


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
