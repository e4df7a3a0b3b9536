"""The cluster itself dies under a job: API server, operator. The numbers are those of docs/launching.md. What answers badly: test_faults_on_the_way."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestration.launching.effects import Denied, Unreachable
from orchestration.launching.kuberay.api import Kubernetes
from testbed import faults
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
@pytest.mark.exclusive
def test_3_what_an_api_server_refuses_while_it_starts_is_silence(bench: Bench) -> None:
    """For a tenth of a second to half a one, in two starts of three, it has not read yet who may do what, and says 403 to everybody."""
    api = Kubernetes(bench.cluster.namespace, bench.cluster.launcher)
    with ThreadPoolExecutor(1) as aside:
        for _ in range(3):
            starting = aside.submit(faults.restart, "kube-apiserver")
            while not starting.done():  # it has a budget, and each 403 is seen: a question takes some milliseconds
                answers(api)
            starting.result()
            assert answers(api)
    faults.restart("kuberay-operator")  # as above


def answers(api: Kubernetes) -> bool:
    try:
        api.jobs("robot-flywheel/name=nobody")
    except Unreachable as error:
        assert not isinstance(error, Denied), error
        return False
    return True


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
