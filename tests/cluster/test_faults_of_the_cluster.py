"""The cluster itself dies under a job: API server, operator. The numbers are those of docs/launching.md. What answers badly: test_faults_on_the_way."""

import time

import pytest

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
