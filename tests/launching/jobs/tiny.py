"""The smallest real job: what it does is told by its config, and every start of its driver leaves a mark."""

import os
import signal
import sys
import time
from pathlib import Path

from ray_jobs.driver import Execution, main
from ray_jobs.seam.configs import JobConfig
from ray_jobs.seam.errors import DataError, UserError
from ray_jobs.seam.results import DayResult


class TinyConfig(JobConfig):
    """`marks` is a folder: each start adds <execution>; `go` in it ends the waiting."""

    marks: str
    mode: str = "ok"
    waits: bool = False


def run(config: TinyConfig, execution: Execution) -> dict[str, DayResult]:
    marks = Path(config.marks)
    name = execution.prefix.rsplit("/", 1)[1]
    (marks / name).write_text(str(os.getpid()))
    execution.progress(config.days[0], "waiting", 0, 1)
    first = len(list(marks.glob("20*"))) == 1
    if config.mode == "user":
        raise UserError("the tiny job was told to fail; tell it otherwise")
    if config.mode == "unforeseen":
        raise ZeroDivisionError("nobody foresaw this")
    if config.mode == "killed once" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.mode == "silent":
        sys.exit(0)
    deadline = time.monotonic() + 60
    while config.waits and not (marks / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    if config.mode == "content":
        raise DataError("no row could carry this")
    execution.progress(config.days[0], "done", 1, 1)
    days = {day: DayResult(counts={"episodes": 1}, output={"by": name}, output_digest=day) for day in config.days}
    if config.mode == "large":
        days[config.days[0]] = DayResult(output={"text": "x" * 100_000})
    if config.mode == "second day fails":
        days[config.days[1]] = DayResult(status="failed", reason="told to")
    return days


if __name__ == "__main__":
    main("tiny", TinyConfig, run)
