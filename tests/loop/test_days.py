"""A deployment's days, through the UI's own GraphQL: backfills, reprocessing, late uploads, and processes that die.

One deployment, tests in order: each starts from what the one before left, as the days of a real deployment do.
"""

import shutil

import pytest
import yaml

from orchestration.launching.head import Head
from ray_jobs.seam.layout import generations
from ray_jobs.seam.tables import from_bytes
from tests.loop.deployment import DEMO, Deployment, kill, until

pytestmark = pytest.mark.timeout(900)

DAYS = ["2026-01-05", "2026-01-06", "2026-01-07"]
AFTER = ["2026-01-08"]  # whose training window of two days reaches back to DAYS
JUDGED = ["episodes", "measurements", "verdicts"]
REST = ["curated_dataset", "dataset_at_compute", "policy", "evaluation", "champion"]


def test_three_days_by_one_range_run_and_then_to_the_champion(deployment: Deployment) -> None:
    deployment.fleet("record", "--days", *DAYS, "--episodes", "4", "--robots", "arm-1", "arm-2")
    deployment.run("index_uploads")
    deployment.run("curate", DAYS[0], DAYS[-1])
    assert len(deployment.attempts("episodes")) == 1, "a range is one Ray job"
    for day in DAYS:
        counts = deployment.pointer("verdicts", day).counts
        assert counts["uploaded"] >= 8
        assert counts["uploaded"] == counts["kept"] + counts["rejected"] + counts["quarantined"] + counts["superseded"]
    deployment.run("learn", DAYS[-1])
    assert deployment.pointer("champion", DAYS[-1]).output["reasons"]
    assert deployment.pointer("evaluation", DAYS[-1]).output["scores"]["candidate"]["rollouts"] == 4


def test_a_backfill_of_three_days_reads_no_upload_again(deployment: Deployment) -> None:
    shutil.move(deployment.raw, deployment.home / "cold")
    ledger = deployment.keys("ledger/")
    before = {asset: deployment.attempts(asset) for asset in JUDGED + REST}
    decided = {day: generations(deployment.store, "champion", day) for day in DAYS}
    # in the driver: the test before this one had a group of workers, whose processes are nothing that a backfill is about
    deployment.change({"training": {**DEMO["training"], "workers": 0}})
    # an edit of the code makes every job run again: what must not be repeated is kept by the ledgers, not by skipping the job
    source = deployment.root / "ray_jobs" / "__init__.py"
    source.write_text(source.read_text() + "\n# edited\n")
    backfill = deployment.graphql.backfill(JUDGED + REST, DAYS)
    status, runs = deployment.graphql.await_backfill(backfill, 500)
    assert status == "COMPLETED_SUCCESS", [deployment.why(run["runId"]) for run in runs]
    assert deployment.keys("ledger/") == ledger, "nothing was measured or extracted again"
    assert len(deployment.attempts("measurements")) == len(before["measurements"]) + 1, "the job ran, and found nothing to do"
    for day in DAYS:
        champion = deployment.pointer("champion", day)
        assert champion.generation not in decided[day], f"{day} has no new decision about the champion"
        assert champion.output["reasons"]
        assert deployment.pointer("policy", day).output["model"]
    for day in AFTER:  # asked for by Dagster, because their windows hold the days of the backfill
        assert "no data" in deployment.pointer("policy", day).shown["reason"].value
        assert not deployment.pointer("champion", day).output["promoted"]
    # and once more with nothing edited: not even a job
    jobs = deployment.attempts("episodes") | deployment.attempts("measurements")
    deployment.run("curate", DAYS[0], DAYS[-1])
    assert deployment.attempts("episodes") | deployment.attempts("measurements") == jobs


def test_a_changed_threshold_judges_again_without_measuring(deployment: Deployment) -> None:
    before = {day: deployment.pointer("verdicts", day) for day in DAYS}
    ledger, jobs = deployment.keys("ledger/"), deployment.attempts("measurements")
    thresholds = deployment.settings.thresholds.model_dump(mode="json") | {"min_duration_s": 1e6, "max_duration_s": 1e7}
    deployment.change({"thresholds": thresholds})
    deployment.run("curate", DAYS[0], DAYS[-1])
    for day in DAYS:
        after = deployment.pointer("verdicts", day)
        assert after.generation > before[day].generation
        assert after.counts["kept"] == 0 < before[day].counts["kept"], "no episode lasts a million seconds"
    assert deployment.keys("ledger/") == ledger
    assert deployment.attempts("measurements") == jobs
    document = yaml.safe_load(deployment.document.read_text())
    document.pop("thresholds")
    deployment.document.write_text(yaml.safe_dump(document))
    deployment.run("curate", DAYS[0], DAYS[-1])
    assert deployment.pointer("verdicts", DAYS[0]).counts == before[DAYS[0]].counts


def test_a_bumped_stage_version_recomputes_that_stage_alone(deployment: Deployment) -> None:
    stages = deployment.pointer("measurements", DAYS[0]).output["stages"]
    before = deployment.keys("ledger/")
    source = deployment.root / "ray_jobs" / "curation" / "signals.py"
    text = source.read_text()
    assert text.count('version = "') == 1
    source.write_text(text.replace('version = "', 'version = "bumped-'))
    deployment.run("curate", DAYS[0], DAYS[-1])
    after = deployment.pointer("measurements", DAYS[0]).output["stages"]
    assert {name for name in stages if after[name] != stages[name]} == {"signal"}
    assert {key.split("/")[1].split("@")[0] for key in deployment.keys("ledger/") - before} == {"signal"}


def test_a_late_upload_measures_only_the_new_episodes(deployment: Deployment) -> None:
    shutil.move(deployment.home / "cold", deployment.raw)
    measured = deployment.pointer("measurements", DAYS[0]).counts["episodes"]
    deployment.fleet("late", "--day", DAYS[0], "--robot", "arm-1", "--episodes", "2")
    deployment.run("index_uploads")
    deployment.run("curate", DAYS[0])
    counts = deployment.pointer("measurements", DAYS[0]).counts
    assert counts["episodes"] == measured + 2
    assert (counts["measured"], counts["reused"]) == (2, measured)


def test_a_killed_run_worker_is_retried_and_adopts_the_running_job(deployment: Deployment) -> None:
    day = "2026-01-08"
    deployment.fleet("record", "--days", day, "--episodes", "3", "--robots", "arm-1", "arm-2")
    deployment.run("index_uploads")
    jobs, closed = deployment.attempts("measurements"), deployment.executions("measurements")
    run_id = deployment.graphql.launch("curate", day)
    until(lambda: deployment.submitted("measurements") - jobs, 120, "the curation job")
    kill([deployment.worker_pid(run_id)])
    retry = deployment.retry_of(run_id)
    assert deployment.graphql.await_run(retry, 200) == "SUCCESS", deployment.why(retry)
    assert len(deployment.attempts("measurements") - jobs) == 1, "one job"
    assert len(deployment.executions("measurements") - closed) == 1, "one execution"
    assert len(deployment.keys(f"partitions/measurements/{day}/")) == 1, "one materialization"


def test_a_killed_ray_head_is_infrastructure_and_retried_with_nothing_twice(deployment: Deployment) -> None:
    day = "2026-01-09"
    deployment.fleet("record", "--days", day, "--episodes", "3", "--robots", "arm-1", "arm-2")
    deployment.run("index_uploads")
    jobs = deployment.attempts("measurements")
    run_id = deployment.graphql.launch("curate", day)
    until(lambda: deployment.submitted("measurements") - jobs, 120, "the curation job")
    kill([Head(deployment.home).alive().pid])  # the session's leader, and with it Ray's own processes
    assert deployment.graphql.await_run(run_id, 240) == "SUCCESS", deployment.why(run_id)
    assert len(deployment.attempts("measurements") - jobs) == 2, "a second attempt under the same base"
    assert len(deployment.keys(f"partitions/measurements/{day}/")) == 1
    for stage, version in deployment.pointer("measurements", day).output["stages"].items():
        rows = [row["episode_id"] for key in deployment.keys(f"ledger/{stage}@{version}/{day}/") for row in from_bytes(deployment.store.get(key))]
        assert len(rows) == len(set(rows)), f"{stage} measured an episode twice"


def test_two_runs_of_one_partition_at_once_end_with_one_truth(deployment: Deployment) -> None:
    source = deployment.root / "ray_jobs" / "__init__.py"
    source.write_text(source.read_text() + "\n# edited again\n")
    first, second = deployment.graphql.launch("curate", DAYS[1]), deployment.graphql.launch("curate", DAYS[1])
    ends = [deployment.graphql.await_run(first, 200), deployment.graphql.await_run(second, 200)]
    assert ends[1] == "SUCCESS", deployment.why(second)
    assert ends[0] in {"SUCCESS", "FAILURE"}
    counts = deployment.pointer("verdicts", DAYS[1]).counts
    assert counts["uploaded"] == counts["kept"] + counts["rejected"] + counts["quarantined"] + counts["superseded"]
    assert not deployment.graphql.runs({"statuses": ["STARTED", "QUEUED", "STARTING"]})


def test_a_day_without_data_is_a_success_that_says_so(deployment: Deployment) -> None:
    deployment.run("curate", "2026-01-20")
    assert deployment.pointer("verdicts", "2026-01-20").counts["uploaded"] == 0
    deployment.run("learn", "2026-01-20")
    assert deployment.pointer("curated_dataset", "2026-01-20").output["dataset"] is None


def test_after_a_killed_orchestrator_the_run_fails_by_itself_and_its_retry_adopts_the_job(deployment: Deployment) -> None:
    """The last one that asks Dagster: it is another afterwards, over the same home."""
    day, source = DAYS[2], deployment.root / "ray_jobs" / "__init__.py"
    source.write_text(source.read_text() + "\n# edited once more\n")
    attempts, executions = deployment.attempts("episodes"), deployment.executions("episodes")
    published = deployment.keys(f"partitions/episodes/{day}/")
    run_id = deployment.graphql.launch("curate", day, assets=["episodes"])
    until(lambda: deployment.submitted("episodes") - attempts, 120, "the job")
    worker, killed = deployment.worker_pid(run_id), deployment.session()
    assert worker in killed
    kill(killed)
    with deployment.running():
        assert deployment.graphql.await_run(run_id, 60) == "FAILURE", deployment.why(run_id)
        assert f"the run's process {worker} is gone" in deployment.why(run_id)
        retry = deployment.retry_of(run_id)
        assert deployment.graphql.await_run(retry, 120) == "SUCCESS", deployment.why(retry)
    assert len(deployment.attempts("episodes") - attempts) == 1, "one job"
    assert len(deployment.executions("episodes") - executions) == 1, "one execution"
    assert len(deployment.keys(f"partitions/episodes/{day}/") - published) == 1, "one materialization"


def test_nobody_opened_the_truth_about_the_planted_defects(deployment: Deployment) -> None:
    """Last: every asset and job has run by now, and none has read what was planted (access times of the truth's files)."""
    files = deployment.truth_files()
    assert files
    assert [path.name for path in files if path.stat().st_atime_ns != 0] == []
    files[0].read_bytes()
    if files[0].stat().st_atime_ns == 0:
        pytest.skip("this file system keeps no access times, so the test could not fail")
