"""The cluster under a job dies: API server, operator, pods, nodes, queues, the store. The numbers are those of the table in docs/launching.md."""

import json
import time
from pathlib import Path

import pytest
import yaml

import testbed
from orchestration.launching.kuberay.api import Kubernetes
from testbed import faults, proxy
from testbed.proxy import Fault
from testbed.service_accounts import service_account_kubeconfig
from tests.cluster.bench import Bench
from tests.cluster.cluster import Cluster, until

QUEUE, LOW, HIGH = "tests", "tests-low", "tests-high"


@pytest.mark.testbed
@pytest.mark.exclusive
def test_3_the_api_server_is_gone_for_a_minute(bench: Bench) -> None:
    going = bench.begin(bench.work(waits=True))
    bench.await_start()
    with faults.without("kube-apiserver"):
        gone = time.monotonic()
        until(lambda: time.monotonic() - gone > 60, "a minute", 70)
        assert going.thread is not None and going.thread.is_alive(), "silence is no failure within its budget"
    bench.go()
    assert going.end().error is None
    assert len(bench.starts()) == 1
    faults.restart("kuberay-operator")  # it comes back to its queue by itself, but a minute later (client backoff)
    bench.assert_once(budget_s=120.0)


@pytest.mark.testbed
def test_3_an_api_server_that_answers_badly(bench: Bench) -> None:
    """503 and silence, by a proxy before the API server, while a job is created and watched."""
    with proxy.before_api_server() as front:
        api = Kubernetes(bench.cluster.namespace, service_account_kubeconfig(bench.cluster.namespace, "launcher", server=front.url))
        front.set(Fault("answer", status=503, share=0.5))
        going = bench.begin(bench.work(waits=True), target=bench.target(api=api))
        bench.await_start()
        for fault in (Fault("answer", status=503), Fault("stall", seconds=5.0), Fault("reset"), Fault("cut"), Fault("lose_answer")):
            front.set(fault)
            front.drop()
            until(lambda kind=fault.kind: sum(each.outcome == kind for each in front.seen()) > 2, f"three times {fault.kind}", 90)
        front.set(None)
        bench.go()
        assert going.end().error is None
    assert len(bench.starts()) == 1
    bench.assert_once()


@pytest.mark.testbed
@pytest.mark.exclusive
def test_4_the_operator_is_killed_and_restarted(bench: Bench) -> None:
    going = bench.begin(bench.work(waits=True))
    until(lambda: bench.cluster.pods(bench.prefix), "a pod")
    faults.restart("kuberay-operator")
    bench.await_start()
    with faults.without("kuberay-operator"):
        bench.go()
        until(lambda: bench.pointers(), "the publication, whether the operator lives or not", 30)
    assert going.end().error is None
    assert len(bench.starts()) == 1
    bench.assert_once()


def test_5_the_head_pod_is_deleted(bench: Bench) -> None:
    going = bench.begin(bench.work(waits=True))
    bench.await_start()
    bench.cluster("delete", "pod", bench.cluster.pod(bench.prefix, "head"), "--wait=false")
    bench.await_start(2)
    bench.go()
    assert going.end().error is None
    assert len(bench.starts()) == 2, "a new execution of the same RayJob"
    bench.assert_once(created=len(bench.created()))
    assert len(bench.created()) <= 2


def test_6_a_worker_pod_is_deleted_and_the_job_goes_on(bench: Bench, manifests: dict[str, Path]) -> None:
    going = bench.begin(bench.work(tasks=12, task_s=0.5), target=bench.target(manifests["worker"]))
    until(lambda: len(bench.tasks()) >= 2, "two tasks")
    bench.cluster("delete", "pod", bench.cluster.pod(bench.prefix, "worker"), "--wait=false")
    assert going.end().error is None
    assert len(bench.tasks()) == 12 and len(bench.starts()) == 1, "the driver never noticed"
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
                        "flavors": [{"name": "tests", "resources": [{"name": "cpu", "nominalQuota": "64"}, {"name": "memory", "nominalQuota": "3500Mi"}]}],
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


def test_11_queued_longer_than_the_starting_budget_and_then_admitted(bench: Bench, queues: None, manifests: dict[str, Path]) -> None:
    blocker = yaml.safe_load(manifests["small"].read_text())
    name = f"blocker-{bench.token}"
    blocker["metadata"] = {"name": name, "labels": {"kueue.x-k8s.io/queue-name": QUEUE, "kueue.x-k8s.io/priority-class": HIGH}}
    blocker["spec"] |= {"entrypoint": "sleep 600", "shutdownAfterJobFinishes": True}
    bench.cluster.apply(blocker)
    until(lambda: not bench.cluster.rayjobs(name)[0]["spec"].get("suspend"), "the admission of the blocker", 60)
    budgets = bench.work().budgets.model_copy(update={"starting": 60.0})
    going = bench.begin(bench.work(budgets=budgets), target=bench.target(queue=QUEUE, priority=LOW))
    until(lambda: any("waits in the queue" in line for line in bench.lines), "word of the queue", 60)
    queued = time.monotonic()
    until(lambda: time.monotonic() - queued > 65, "more than the starting budget", 80)
    bench.cluster("delete", "rayjob", name)
    assert going.end().error is None
    assert len(bench.starts()) == 1
    bench.assert_once()


def test_12_preempted_suspended_resumed_and_nothing_is_done_twice(bench: Bench, queues: None, manifests: dict[str, Path]) -> None:
    going = bench.begin(bench.work(tasks=20, task_s=0.5, waits=True), target=bench.target(queue=QUEUE, priority=LOW))
    until(lambda: len(bench.tasks()) >= 3, "three tasks")
    done = dict(bench.tasks())
    important = yaml.safe_load(manifests["small"].read_text())
    name = f"important-{bench.token}"
    important["metadata"] = {"name": name, "labels": {"kueue.x-k8s.io/queue-name": QUEUE, "kueue.x-k8s.io/priority-class": HIGH}}
    important["spec"] |= {"entrypoint": "sleep 1", "shutdownAfterJobFinishes": True}
    bench.cluster.apply(important)
    until(lambda: any("waits in the queue" in line for line in bench.lines), "word of the preemption", 90)
    bench.cluster("delete", "rayjob", name)
    bench.go()
    assert going.end().error is None
    assert len(bench.starts()) == 2, "a new execution"
    tasks = bench.tasks()
    assert len(tasks) == 20 and {number: tasks[number] for number in done} == done, "what was done before is not done again"
    bench.assert_once()


@pytest.mark.testbed
def test_18_the_store_answers_503_and_stalls_while_the_job_writes(bench: Bench) -> None:
    """The job reaches the store through a proxy; the launcher does not."""
    with proxy.before_s3(testbed.state().s3) as front:
        bench.job_store = bench.cluster.store.model_copy(update={"endpoint": front.url})
        going = bench.begin(bench.work(tasks=6, task_s=0.2, waits=True))
        bench.await_start()
        front.set(Fault("answer", status=503, share=0.5))
        until(lambda: len(bench.tasks()) >= 3, "three tasks")
        front.set(Fault("stall", seconds=3.0, share=0.3))
        until(lambda: len(bench.tasks()) == 6, "all tasks")
        front.set(None)
        bench.go()
        assert going.end().error is None
        assert any(each.outcome == "answer" for each in front.seen())
    assert len(bench.starts()) == 1
    bench.assert_once()


@pytest.mark.testbed
@pytest.mark.exclusive
def test_20_a_node_is_lost_found_and_replaced(bench: Bench, manifests: dict[str, Path], tmp_path: Path) -> None:
    faults.add_node()
    document = yaml.safe_load(manifests["worker"].read_text())
    document["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "node-1"}
    prefer = {"weight": 100, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-2"]}]}}
    worker = document["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
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
