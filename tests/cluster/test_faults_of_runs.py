"""Runs that are cancelled, doubled or gone: on the real cluster, by the protocol alone (killed and evicted: test_dagster). Numbers: docs/launching.md."""

import time
from pathlib import Path

import pytest
from dagster import DagsterExecutionInterruptedError

from orchestration.launching.publishing import NotOurs
from orchestration.launching.reconcile import reconcile
from tests.cluster.bench import Bench
from tests.cluster.cluster import until

JOBS = Path(__file__).parent / "jobs"


def test_13_cancelled_before_the_create_nothing_was_ever_made(bench: Bench) -> None:
    run = bench.run()
    bench.status[run.run_id] = "CANCELING"
    with pytest.raises(NotOurs):
        bench.perform(bench.work(), run)
    assert bench.created() == [] and not bench.pointers()


@pytest.mark.exclusive  # ten seconds are those of a machine that does nothing else
@pytest.mark.parametrize("moment", ["starting", "running"])
def test_13_cancelled_it_is_gone_in_ten_seconds(bench: Bench, moment: str) -> None:
    run = bench.run()
    going = bench.begin(bench.work(waits=True), run, interrupted_if=lambda: bench.status[run.run_id] == "CANCELING")
    if moment == "running":
        bench.await_start()
    else:
        until(lambda: bench.cluster.pods(bench.prefix), "a pod")
    bench.status[run.run_id] = "CANCELING"
    asked = time.monotonic()
    with pytest.raises((DagsterExecutionInterruptedError, NotOurs)):
        going.end()
    bench.assert_nothing_left(budget_s=10.0 - (time.monotonic() - asked))
    assert len(bench.created()) == 1 and not bench.pointers()


def test_15_two_steps_of_one_root_run_make_one_job(bench: Bench) -> None:
    first = bench.begin(bench.work(waits=True), bench.run())
    until(lambda: bench.cluster.rayjobs(bench.prefix), "the RayJob")
    second = bench.begin(bench.work(waits=True), bench.run(2, retry=True))
    until(lambda: any("adopted" in line for line in bench.lines), "the adoption")
    bench.go()
    assert first.end().error is None and second.end().error is None
    assert len(bench.starts()) == 1
    bench.assert_once()


def test_15_and_16_an_older_run_that_ends_after_a_newer_one_of_edited_code_hides_nothing(bench: Bench) -> None:
    older = bench.begin(bench.work(waits=True), bench.run(1, root=1))
    bench.await_start()
    source = (JOBS / "probe.py").read_text()
    bench.extra_code["tests/cluster/jobs/probe.py"] = source.replace('f"probe {name} starts"', 'f"edited probe {name} starts"').encode()
    newer = bench.perform(bench.work(version="2"), bench.run(2, root=2))
    assert newer.error is None
    (published,) = bench.pointers()
    bench.go()
    outcome = older.end()
    assert {day.state for day in outcome.days.values()} == {"superseded"}
    assert bench.pointers() == [published]
    assert "".join(bench.printed).count("edited probe") == 1, "edited code runs in the next RayJob, and no image was built"
    bench.assert_once(created=2)


def test_17_a_rayjob_without_a_run_is_removed(bench: Bench) -> None:
    run = bench.run()
    going = bench.begin(bench.work(waits=True), run, interrupted_if=lambda: bool(bench.cluster.pods(bench.prefix)))
    with pytest.raises(DagsterExecutionInterruptedError):
        going.end()
    mine = {run.root_run_id}
    assert reconcile(bench.store, bench.target(), bench.deployment, lambda root: True) == [], "its run may come back"
    said = reconcile(bench.store, bench.target(), bench.deployment, lambda root: root not in mine)
    assert len(said) == 1 and "its run is over" in said[0]
    bench.assert_nothing_left()
