"""A launcher's bench: one store, one target, the tiny job, and a run that can be asked again, interrupted and cancelled."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestration.launching.protocol import run_step
from orchestration.launching.reconcile import reconcile
from orchestration.launching.shell import Ports, perform
from orchestration.launching.target import Target
from orchestration.launching.work import Outcome, RunInfo, Work
from ray_jobs.seam.store import Store

DAY = "2026-01-05"
BUDGET_S = 60.0


@dataclass
class Bench:
    """`marks` is the folder in which each start of a driver leaves a mark."""

    store: Store
    target: Target
    marks: Path
    status: str = "STARTED"
    messages: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def work(self, mode: str = "ok", waits: bool = False, days: tuple[str, ...] = (DAY,), **more: Any) -> Work:
        fixed = {"store": self.store.config.model_dump(), "marks": str(self.marks), "mode": mode, "waits": waits, **more}
        return Work("episodes", days, "tests.launching.jobs.tiny", lambda chosen: {**fixed, "days": list(chosen)}, code=mode)

    def run(self, number: int = 1, root: int = 1, retry: bool = False) -> RunInfo:
        return RunInfo(f"run-{number:04d}", f"run-{root:04d}", datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=number), retry)

    def perform(self, work: Work, run: RunInfo | None = None, until: Callable[[], bool] | None = None) -> Outcome:
        """`until`: abandon the step, as a killed worker does, as soon as this is true."""

        def log(line: str) -> None:
            self.lines.append(line)

        program = run_step(work, run or self.run())
        if until is not None:
            return perform(_abandoned(program, until), Ports(self.store, self.target, lambda: self.status, log, self.messages.append))
        return perform(program, Ports(self.store, self.target, lambda: self.status, log, self.messages.append))

    def starts(self) -> list[Path]:
        return sorted(self.marks.glob("20*"))

    def pid(self) -> int:
        return int(self.starts()[-1].read_text())

    def go(self) -> None:
        (self.marks / "go").touch()

    def pointers(self) -> list[str]:
        return [entry.key for entry in self.store.list("partitions/")]

    def await_start(self, count: int = 1) -> None:
        until(lambda: len(self.starts()) >= count and all(path.read_text() for path in self.starts()))


class Abandoned(RuntimeError):
    pass


def _abandoned(program: Any, until: Callable[[], bool]) -> Any:
    effect = next(program)
    while not until():
        effect = program.send((yield effect))
    program.close()
    raise Abandoned


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BUDGET_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within its budget"
        time.sleep(0.05)


def forgotten(bench: Bench, is_run_alive: Callable[[str], bool]) -> bool:
    """One round of the reconciler; whether no job is left. One that was over a moment ago is, for the next round."""
    reconcile(bench.store, bench.target, "local", is_run_alive)
    return not bench.target.jobs("local")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
