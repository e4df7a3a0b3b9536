"""The cluster itself dies under a job: API server, operator, node. The numbers are those of docs/launching.md."""

import json
import time
from pathlib import Path

import pytest
import yaml

from orchestration.launching.kuberay.api import Kubernetes
from testbed import faults, proxy
from testbed.proxy import Fault
from testbed.service_accounts import service_account_kubeconfig
from tests.cluster.bench import Bench
from tests.cluster.cluster import until


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
