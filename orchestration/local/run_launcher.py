"""Dagster's launcher of local run workers, which also knows whether a worker lives: a run without one fails, and is retried.

Without this a run stays STARTED for ever when code server and worker were killed together: nobody is left who could say so.
"""

import os
import re
import subprocess
import time
from typing import Any

from dagster import DagsterEventType, DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

GRACE_S = 5.0  # a code server that lives says sooner, and better, how its worker ended
CLOCK_S = 5.0  # by which a process's age and the time of an event may differ

_STARTED = re.compile(r"Started process for run \(pid: (\d+)\)")


class LocalRunLauncher(DefaultRunLauncher):
    """Asked by run monitoring about each STARTED run, in one thread. In doubt a worker lives."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._missing: dict[str, float] = {}  # run -> since when its worker is missed

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        worker = self._worker(run.run_id)
        if worker is None or lives(*worker):
            self._missing.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        since = self._missing.setdefault(run.run_id, time.monotonic())
        if time.monotonic() - since < GRACE_S:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._missing[run.run_id]
        return CheckRunHealthResult(WorkerStatus.FAILED, f"the run's process {worker[0]} is gone; its retry adopts the job")

    def _worker(self, run_id: str) -> tuple[int, float] | None:
        """(pid, seconds since 1970 at which it said so) from the run's own events; the last, should it have had several."""
        for entry in reversed(self._instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT)):
            if found := _STARTED.match(entry.dagster_event.message or "" if entry.dagster_event else ""):
                return int(found.group(1)), entry.timestamp
        return None


def lives(pid: int, at: float) -> bool:
    """Is the process that had this pid at that time still there? One that is a zombie, or that was started later, is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's by now
    told = subprocess.run(["ps", "-o", "stat=,etime=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    if len(told) != 2:
        return True  # it ended this moment, or this ps says nothing
    return not told[0].startswith("Z") and time.time() - _seconds(told[1]) <= at + CLOCK_S


def _seconds(elapsed: str) -> int:
    """Of ps's [[days-]hours:]minutes:seconds."""
    days, _, clock = elapsed.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return int(days or 0) * 86400 + seconds
