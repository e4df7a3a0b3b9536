"""The launcher against a real Ray head and real jobs: what goes well, what fails, what is killed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.launching.embedded import EmbeddedTarget
from orchestration.launching.head import Head
from orchestration.launching.protocol import run_step
from orchestration.launching.reconcile import reconcile
from orchestration.launching.shell import Ports, perform
from orchestration.launching.work import Outcome, RunInfo, Work
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store, StoreConfig

DAY = "2026-01-05"
BUDGET_S = 60.0


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    head = Head(tmp_path_factory.mktemp("home"))
    yield head
    head.stop()


@dataclass
class Bench:
    """One test's store, target and marks; a run that can be asked again, interrupted and cancelled."""

    store: Store
    target: EmbeddedTarget
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
        _await(lambda: len(self.starts()) >= count and all(path.read_text() for path in self.starts()))


class _Abandoned(RuntimeError):
    pass


def _abandoned(program: Any, until: Callable[[], bool]) -> Any:
    effect = next(program)
    while not until():
        effect = program.send((yield effect))
    program.close()
    raise _Abandoned


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BUDGET_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within its budget"
        time.sleep(0.05)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def bench(head: Head, tmp_path: Path) -> Bench:
    config = StoreConfig.local(tmp_path / "store")
    (tmp_path / "marks").mkdir()
    return Bench(Store(config), EmbeddedTarget(head, config), tmp_path / "marks")


def test_success_is_published_with_its_messages_and_not_done_twice(bench: Bench) -> None:
    outcome = bench.perform(bench.work())
    pointer = read_pointer(bench.store, "episodes", DAY)
    assert pointer is not None and outcome.days[DAY].pointer == pointer and pointer.counts == {"episodes": 1}
    assert outcome.launched and outcome.error is None and outcome.execution == bench.starts()[0].name
    assert [message["method"] for message in bench.messages] == ["opened", "report_custom_message", "report_custom_message", "closed"]
    assert list(outcome.timings) and outcome.timings["asked"] <= outcome.timings["submitted"] <= outcome.timings["first_line"] <= outcome.timings["ended"]
    again = bench.perform(bench.work(), bench.run(2, root=2))
    assert again.days[DAY].state == "unchanged" and again.reused and len(bench.starts()) == 1


def test_user_error_is_one_line_and_not_retried(bench: Bench) -> None:
    outcome = bench.perform(bench.work("user"))
    assert outcome.failure_class == "user" and len(bench.starts()) == 1 and not bench.pointers()
    assert outcome.error is not None and "the tiny job was told to fail" in outcome.error and "\n" not in outcome.error


def test_good_days_of_a_range_are_published_and_the_bad_one_is_named(bench: Bench) -> None:
    outcome = bench.perform(bench.work("second day fails", days=(DAY, "2026-01-06")))
    assert [outcome.days[day].state for day in (DAY, "2026-01-06")] == ["published", "failed"]
    assert outcome.days["2026-01-06"].reason == "told to" and outcome.failure_class == "data" and len(bench.pointers()) == 1


def test_killed_driver_is_infrastructure_and_retried(bench: Bench) -> None:
    outcome = bench.perform(bench.work("killed once"))
    assert outcome.days[DAY].state == "published" and str(outcome.attempt).endswith("-a2")
    assert len(bench.starts()) == 2 and len(bench.pointers()) == 1
    assert any("infrastructure" in line and "137" in line for line in bench.lines)


def test_abandoned_step_is_adopted_by_its_retry(bench: Bench) -> None:
    with pytest.raises(_Abandoned):
        bench.perform(bench.work(waits=True), until=lambda: bool(bench.starts()))
    bench.go()
    outcome = bench.perform(bench.work(waits=True), bench.run(2, root=1, retry=True))
    assert outcome.days[DAY].state == "published" and not outcome.launched
    assert len(bench.starts()) == 1 and len(bench.pointers()) == 1
    assert outcome.days[DAY].pointer is not None and outcome.days[DAY].pointer.generation == bench.run(1).generation


def test_two_steps_at_once_make_one_execution_and_one_pointer(bench: Bench) -> None:
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(bench.perform(bench.work()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BUDGET_S)
    assert [outcome.days[DAY].state for outcome in outcomes] == ["published", "published"]
    assert len(bench.starts()) == 1 and len(bench.pointers()) == 1


@pytest.mark.parametrize(("status", "stops"), [("CANCELING", True), ("STARTED", False)])
def test_cancel_stops_the_job_and_an_eviction_leaves_it(bench: Bench, status: str, stops: bool) -> None:
    def interrupt(message: dict[str, Any]) -> None:
        if message["method"] == "report_custom_message":
            bench.status = status
            raise KeyboardInterrupt

    program = run_step(bench.work(waits=True), bench.run())
    with pytest.raises(KeyboardInterrupt):
        perform(program, Ports(bench.store, bench.target, lambda: bench.status, bench.lines.append, interrupt))
    assert _gone(bench.pid()) == stops and not bench.pointers()
    if not stops:
        assert reconcile(bench.store, bench.target, "local", lambda root: root != "run-0001")
        _await(lambda: _gone(bench.pid()))
        assert not bench.target.jobs("local")


def test_killed_head_is_infrastructure_and_nothing_is_published_twice(bench: Bench, head: Head) -> None:
    def kill() -> None:
        bench.await_start()
        state = head.alive()
        assert state is not None
        first = bench.pid()
        os.kill(state.pid, signal.SIGKILL)
        _await(lambda: _gone(first))
        bench.go()

    before = head.ensure()
    killer = threading.Thread(target=kill)
    killer.start()
    outcome = bench.perform(bench.work(waits=True))
    killer.join(BUDGET_S)
    after = head.alive()
    assert after is not None and after.pid != before.pid
    assert outcome.days[DAY].state == "published" and len(bench.pointers()) == 1
    assert len(bench.starts()) == 2 and str(outcome.attempt).endswith("-a2")
