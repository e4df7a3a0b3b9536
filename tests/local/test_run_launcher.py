"""A local run whose worker is gone: noticed by pid and start time, and then failed and retried by Dagster itself."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus

from orchestration.launching.head import Head
from orchestration.local import dagster_dev, run_launcher
from orchestration.local.graphql import GraphQL
from orchestration.local.run_launcher import LocalRunLauncher, lives
from tests.loop.deployment import DEMO, Deployment, kill, until

DAY = "2026-01-05"


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_a_process_is_the_one_that_had_the_pid_then() -> None:
    process = sleeper()
    try:
        assert lives(process.pid, time.time())
        assert not lives(process.pid, time.time() - 60), "a process that was started later has the same pid"
        process.kill()
        until(lambda: not lives(process.pid, time.time()), 10, "seeing the zombie")
    finally:
        process.kill()
        process.wait()
    assert not lives(process.pid, time.time())


@pytest.mark.parametrize(("elapsed", "seconds"), [("00:07", 7), ("02:03", 123), ("01:00:00", 3600), ("2-01:00:01", 176401)])
def test_what_ps_calls_elapsed(elapsed: str, seconds: int) -> None:
    assert run_launcher._seconds(elapsed) == seconds


def test_a_run_is_failed_only_when_its_worker_is_missed_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = {"run_launcher": {"module": LocalRunLauncher.__module__, "class": "LocalRunLauncher"}}
    with dg.instance_for_test(overrides=launcher) as instance:
        assert isinstance(instance.run_launcher, LocalRunLauncher) and instance.run_launcher.supports_check_run_worker_health

        @dg.job
        def nothing() -> None:
            return

        run = instance.create_run_for_job(nothing)
        health: Callable[[], Any] = lambda: instance.run_launcher.check_run_worker_health(run).status  # noqa: E731
        assert health() == WorkerStatus.RUNNING, "nothing is known of its worker"
        process = sleeper()
        for said in ("Started process for run", "Process for run exited"):  # as dagster._grpc.impl says it, and what is no start
            instance.report_engine_event(f"{said} (pid: {process.pid}).", run, EngineEventData.in_process(process.pid))
        assert health() == WorkerStatus.RUNNING
        process.kill()
        process.wait()
        assert health() == WorkerStatus.RUNNING, "its code server may be about to say so"
        monkeypatch.setattr(run_launcher, "GRACE_S", 0.0)
        assert health() == WorkerStatus.FAILED


def session(leader: int) -> list[int]:
    """Every process of the session that this process leads: webserver, daemon, code server, run workers; not Ray, which has its own."""
    found = []
    for pid in subprocess.run(["ps", "-eo", "pid="], capture_output=True, text=True, check=True).stdout.split():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(int(pid)) == leader:
                found.append(int(pid))
    return found


@contextmanager
def dagster(deployment: Deployment) -> Iterator[int]:
    """The orchestrator, and no end of Ray with it; yields the leader of its session."""
    with dagster_dev.dagster_dev(deployment.settings, deployment.document, root=deployment.root) as running:
        deployment.graphql = GraphQL(running.url)
        yield running.pid


@pytest.mark.timeout(400)
def test_after_a_killed_orchestrator_the_run_fails_by_itself_and_its_retry_adopts_the_job(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, DEMO)
    deployment.fleet("record", "--days", DAY, "--episodes", "3", "--robots", "arm-1")
    try:
        with dagster(deployment) as leader:
            deployment.run("index_uploads")
            run_id = deployment.graphql.launch("curate", DAY, assets=["episodes"])
            until(lambda: any(key.endswith("/submitted.json") for key in deployment.keys("attempts/")), 120, "the job")
            worker, killed = deployment.worker_pid(run_id), session(leader)
            assert worker in killed
            kill(killed)
        with dagster(deployment):
            assert deployment.graphql.await_run(run_id, 60) == "FAILURE", deployment.why(run_id)
            assert f"the run's process {worker} is gone" in deployment.why(run_id)
            group = {"tags": [{"key": "dagster/root_run_id", "value": run_id}]}
            (retry,) = until(lambda: [run for run in deployment.graphql.runs(group) if run["runId"] != run_id], 60, "the retry")
            assert deployment.graphql.await_run(retry["runId"], 120) == "SUCCESS", deployment.why(retry["runId"])
    finally:
        Head(deployment.home).stop()
    assert len(deployment.attempts("episodes")) == 1, "one job"
    assert len(deployment.executions("episodes")) == 1, "one execution"
    assert len(deployment.keys(f"partitions/episodes/{DAY}/")) == 1, "one materialization"
