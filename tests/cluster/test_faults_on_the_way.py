"""What lies between the launcher, a job and what they ask: an API server and a store that answer badly. The numbers are those of docs/launching.md."""

import pytest

import testbed
from orchestration.launching.kuberay.api import Kubernetes
from testbed import proxy
from testbed.proxy import Fault
from testbed.service_accounts import service_account_kubeconfig
from tests.cluster.bench import Bench
from tests.cluster.cluster import until


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
