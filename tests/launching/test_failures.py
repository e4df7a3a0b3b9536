"""Tables: what a job's end means, and what follows from what the store knows."""

from typing import Any

import pytest

from orchestration.launching.effects import Job
from orchestration.launching.failures import RETRIES_PLACED, classify, one_line, report_in
from orchestration.launching.ray_api import phase_of
from orchestration.launching.survey import AttemptSeen, Fail, Finish, Follow, Mint, Seen, decide
from orchestration.launching.work import Attempt, Ended, Resources, RunInfo, Work, base_of
from ray_jobs.seam.results import REPORT_MARK, Closed, DayResult, JobError
from tests.launching.model import DAYS, START

BUG = JobError(failure_class="user", message="a bug")


def job(phase: Any = "failed", exit_code: int | None = 1, error_type: str = "JOB_ENTRYPOINT_COMMAND_ERROR", message: str = "") -> Job:
    return Job("x-a1", "uid", phase, {}, message, error_type, exit_code)


@pytest.mark.parametrize(
    ("seen", "report", "tail", "failure_class"),
    [
        (job(), None, "Traceback\nImportError: no module", "user"),
        (job(exit_code=137), BUG, "", "user"),  # the driver's own word outranks the platform's guess
        (job(exit_code=137), None, "", "infrastructure"),
        (job(exit_code=137), None, "worker was killed: node running low on memory", "out_of_memory"),
        (job(exit_code=1), None, "torch.cuda.OutOfMemoryError: CUDA out of memory", "out_of_memory"),
        (job(exit_code=143), None, "", "infrastructure"),
        (job(exit_code=None, error_type="JOB_SUPERVISOR_ACTOR_DIED", message="the node died"), None, "", "infrastructure"),
        (
            job(exit_code=None, error_type="JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", message="Task was killed due to the node running low on memory"),
            None,
            "",
            "out_of_memory",
        ),
        (job(exit_code=None, error_type="JOB_SUPERVISOR_ACTOR_DIED", message="the spot node was reclaimed, preempted"), None, "", "preempted"),
        (job(exit_code=None, error_type="RUNTIME_ENV_SETUP_FAILURE"), None, "", "invalid_spec"),
        (job(exit_code=1, message="the pod x-head was evicted: the node was low on disk"), None, "", "preempted"),
        (job(exit_code=1, message="ObjectLostError: it may have been evicted"), None, "", "user"),
        (job("stopped", None, ""), None, "", "cancelled"),
        (job("succeeded", 0, ""), None, "", "infrastructure"),
        (None, None, "", "infrastructure"),
    ],
)
def test_class_of_a_failure(seen: Job | None, report: JobError | None, tail: str, failure_class: str) -> None:
    found, evidence = classify(seen, report, tail)
    assert found == failure_class and evidence
    assert "\n" not in one_line(found, evidence, "x-a1")


def test_what_happened_is_told_and_not_what_ray_advises() -> None:
    message = "Task was killed due to the node running low on memory. Memory on the node was 1.24GB / 1.27GB (0.97).\nRefer to the documentation on how to "
    found, evidence = classify(job(message=message + "address the out of memory issue: https://docs.ray.io/"), None)
    assert found == "out_of_memory" and "Task was killed due to the node running low on memory" in evidence and "documentation" not in evidence
    state = "\nObjectStore eviction stats:\n(global lru) num evictions: 0\n(global lru) bytes evicted: 0]"  # which Ray prints below
    found, evidence = classify(job(message=message.splitlines()[1] + "address the out of memory issue: https://docs.ray.io/" + state), None)
    assert found == "out_of_memory" and "Ray's memory monitor killed it: its node was running low on memory" in evidence
    found, evidence = classify(job(message="ValueError: no such joint" + state), None)
    assert found == "user", evidence


@pytest.mark.parametrize(
    ("status", "phase"),
    [("PENDING", "queued"), ("RUNNING", "running"), ("SUCCEEDED", "succeeded"), ("FAILED", "failed"), ("STOPPED", "stopped"), ("SUSPENDING", "queued")],
)
def test_phase_of_a_status(status: str, phase: str) -> None:
    assert phase_of(status) == phase


def test_report_is_found_in_the_log() -> None:
    assert report_in(f"noise\n{REPORT_MARK}{BUG.model_dump_json()}\na bug") == BUG
    assert report_in(f"{REPORT_MARK}{{half") is None and report_in("nothing") is None


RUN = RunInfo("run-1", "run-1", START)


def seen(*ends: str | None, series: str = "run-1", closed: dict[str, DayResult] | None = None, peak: int = 0, memory: int | None = None) -> Seen:
    """Attempts 1, 2, … that ended with these classes (None: not over); the last one may have closed."""
    found = Seen()
    for number, end in enumerate(ends, 1):
        attempt = Attempt(
            base="b",
            number=number,
            deployment="local",
            asset="episodes",
            days=DAYS,
            module="m",
            config={},
            code="",
            generation="g",
            root_run="run-1",
            run_id="run-1",
            series=series,
            resources=Resources(memory=memory),
        )
        ended = None if end is None else Ended.model_validate({"failure_class": end, "evidence": "why", "peak_memory_bytes": peak})
        found.attempts[number] = AttemptSeen(number, attempt, None, ended)
    if closed is not None:
        found.attempts[len(ends)].closed["e"] = Closed(step="s", execution="e", days=closed, seconds=1, peak_memory_bytes=1)
    return found


OK, BAD = DayResult(), DayResult(status="failed", reason="bad content")
RETRY, PERSON = RunInfo("run-2", "run-1", START, retry=True), RunInfo("run-2", "run-1", START)


@pytest.mark.parametrize(
    ("store", "run", "kind"),
    [
        (seen(), RUN, Mint),
        (seen(None), RUN, Follow),
        (seen(None, closed=dict.fromkeys(DAYS, OK)), RUN, Finish),
        (seen(None, closed={DAYS[0]: OK, DAYS[1]: BAD}), RUN, Fail),
        (seen(None, closed={DAYS[0]: OK, DAYS[1]: BAD}), PERSON, Mint),
        (seen(None, closed={DAYS[0]: OK}), RUN, Fail),
        (seen("user"), RUN, Fail),
        (seen("user"), RETRY, Fail),
        (seen("user"), PERSON, Mint),
        (seen("data"), RUN, Fail),
        (seen("invalid_spec"), RUN, Fail),
        (seen("infrastructure"), RUN, Mint),
        (seen(*["infrastructure"] * 3), RUN, Mint),
        (seen(*["infrastructure"] * 4), RUN, Fail),
        (seen(*["infrastructure"] * 4), RETRY, Fail),
        (seen(*["preempted"] * 5), RUN, Mint),
        (seen(*["preempted"] * 6), RUN, Fail),
        (seen("out_of_memory"), RUN, Mint),
        (seen("out_of_memory", "out_of_memory"), RUN, Fail),
        (seen("out_of_memory", memory=64 * 2**30), RUN, Fail),
    ],
)
def test_what_follows(store: Seen, run: RunInfo, kind: type) -> None:
    assert isinstance(decide(store, DAYS, run, Resources()), kind)


def test_a_place_that_was_chosen_is_not_waited_for_again() -> None:
    assert isinstance(decide(seen("capacity"), DAYS, RUN, Resources()), Mint)
    assert isinstance(decide(seen("capacity"), DAYS, RUN, Resources(), RETRIES_PLACED), Fail)
    assert isinstance(decide(seen("preempted"), DAYS, RUN, Resources(), RETRIES_PLACED), Mint), "its nodes may be back at once, and its checkpoint is here"


def test_a_new_attempt_owes_only_what_is_not_made() -> None:
    due = decide(seen(None, closed={DAYS[0]: OK, DAYS[1]: BAD}), DAYS, PERSON, Resources())
    assert isinstance(due, Mint) and due.number == 2 and due.days == DAYS[1:]


def test_memory_is_raised_from_the_peak_and_capped() -> None:
    due = decide(seen("out_of_memory", memory=2**30, peak=3 * 2**30), DAYS, RUN, Resources())
    assert isinstance(due, Mint) and due.resources.memory == int(4.5 * 2**30)
    due = decide(seen("out_of_memory", memory=40 * 2**30), DAYS, RUN, Resources())
    assert isinstance(due, Mint) and due.resources.memory == 64 * 2**30


def test_bases_are_short_labels_and_an_input_digest_knows_no_range() -> None:
    def work(days: tuple[str, ...], **more: Any) -> Work:
        return Work("dataset_at_compute", days, "m", lambda chosen: {"days": list(chosen)}, day_inputs={day: {"upload": day} for day in days}, **more)

    base = base_of(work(DAYS), RUN)
    assert len(base) <= 43 and base[0].isalpha() and base.replace("-", "").isalnum() and base == base.lower()
    assert base == base_of(work(DAYS), PERSON) != base_of(work(DAYS, code="2"), RUN)
    assert base != base_of(work(DAYS, placed="there"), RUN) and work(DAYS).input_digest(DAYS[0]) == work(DAYS, placed="there").input_digest(DAYS[0])
    assert work(DAYS).input_digest(DAYS[0]) == work(DAYS[:1]).input_digest(DAYS[0]) != work(DAYS).input_digest(DAYS[1])
    assert RUN.generation < RunInfo("a", "a", START.replace(microsecond=1)).generation
