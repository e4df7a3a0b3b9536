"""The launcher against a real Ray head and real jobs: what goes well, what fails, what is killed."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.launching.effects import Unreachable
from orchestration.launching.embedded import EmbeddedTarget
from orchestration.launching.head import Head, HeadState
from orchestration.launching.protocol import run_step
from orchestration.launching.reconcile import reconcile
from orchestration.launching.shell import Ports, perform
from orchestration.launching.work import Outcome
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store, StoreConfig
from tests.launching.bench import BUDGET_S, DAY, Abandoned, Bench, forgotten, gone, until


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    head = Head(tmp_path_factory.mktemp("home"))
    yield head
    head.stop()


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
    with pytest.raises(Abandoned):
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
    assert gone(bench.pid()) == stops and not bench.pointers()
    if not stops:
        assert reconcile(bench.store, bench.target, "local", lambda root: root != "run-0001")
        until(lambda: gone(bench.pid()))
        until(lambda: forgotten(bench, lambda root: root != "run-0001"))


def test_killed_head_is_infrastructure_and_nothing_is_published_twice(bench: Bench, head: Head) -> None:
    def kill() -> None:
        bench.await_start()
        state = head.alive()
        assert state is not None
        first = bench.pid()
        os.kill(state.pid, signal.SIGKILL)
        until(lambda: gone(first))
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


class Stumbling(Head):
    """Its first tries end as they begin."""

    def __init__(self, home: Path, stumbles: int):
        super().__init__(home)
        self.stumbles, self.tried = stumbles, list[HeadState]()

    def _launched(self) -> HeadState:
        self.tried.append(super()._launched())
        if len(self.tried) <= self.stumbles:
            os.kill(self.tried[-1].pid, signal.SIGKILL)
        return self.tried[-1]


def test_a_head_that_ends_while_it_starts_is_started_once_more(tmp_path: Path) -> None:
    head = Stumbling(tmp_path, stumbles=1)
    try:
        state = head.ensure()
        first, second = head.tried
        assert state == second == head.alive() and first.port != second.port
        assert not Path(first.folder).exists() and head.ensure() == state
    finally:
        head.stop()


def test_a_head_that_never_starts_is_told_with_its_log(tmp_path: Path) -> None:
    head = Stumbling(tmp_path, stumbles=2)
    with pytest.raises(Unreachable, match=rf"^the embedded Ray head did not start in 2 tries of 90 s at most: .*the log is {tmp_path}/ray-head\.log$"):
        head.ensure()
    assert len(head.tried) == 2 and head.alive() is None and not Path(head.tried[1].folder).exists()
