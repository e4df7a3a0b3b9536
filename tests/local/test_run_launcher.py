"""A local run whose worker is gone: noticed by pid and start time. That Dagster then fails and retries it: tests/loop/test_days.py."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus

from orchestration.local import run_launcher
from orchestration.local.run_launcher import LocalRunLauncher, lives
from tests.loop.deployment import until


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
