"""Why a job failed, from what is known of it; what to do about it; and how often that may be tried."""

import re

from pydantic import ValidationError

from orchestration.launching.effects import Job
from ray_jobs.seam.errors import FailureClass
from ray_jobs.seam.results import REPORT_MARK, JobError

# How many attempts that failed so are followed by another one, within what one person started.
RETRIES: dict[FailureClass, int] = {
    "user": 0,
    "data": 0,
    "invalid_spec": 0,
    "out_of_memory": 1,
    "preempted": 5,
    "infrastructure": 3,
    "capacity": 2,
    "cancelled": 3,  # by somebody else, while our own run goes on
}
RETRIES_PLACED: dict[FailureClass, int] = {**RETRIES, "capacity": 0}  # the next offer is tried instead

FROM_OUTSIDE: frozenset[FailureClass] = frozenset({"infrastructure", "preempted"})  # what a driver that was ended cannot tell apart

ADVICE: dict[FailureClass, str] = {
    "user": "fix the code or its settings, then re-execute",
    "data": "look at the named input, then re-execute",
    "invalid_spec": "the cluster refuses this job as written; correct the launch settings",
    "out_of_memory": "give the step more memory, or smaller segments",
    "preempted": "re-execute when the nodes are back; finished work is kept",
    "infrastructure": "look at the cluster and the store, then re-execute; finished work is kept",
    "capacity": "free the queue or raise its budget, then re-execute",
    "cancelled": "re-execute when it is wanted again",
}

_MEMORY = re.compile(r"out of memory|oom-?kill|low on memory|OutOfMemoryError|MemoryError|cannot allocate memory", re.IGNORECASE)
_NETWORK = re.compile(r"\b50[0-9]\b|SlowDown|time[d -]*out|connection|could not connect|max retries", re.IGNORECASE)
# Only a pod's eviction is one: Ray evicts objects and worker processes all day, and prints how many with other ends.
_PREEMPTED = re.compile(r"preempt|\bpods?\b.*evict|evict.*\bpods?\b|spot.*(reclaim|interrupt)|node.*(drain|terminat)", re.IGNORECASE)

_RAYS_ADVICE = "how to address the out of memory issue"  # stands below what it killed and why, which is cut off where the message is long


def classify(job: Job | None, report: JobError | None, tail: str = "") -> tuple[FailureClass, str]:
    """(class, evidence) of a job that is over without a closed result; `job` None: the cluster has none of that name.

    The driver's own report outranks what the platform guesses; only why it was ended from outside does the platform know better.
    Success without closed.json is infrastructure: the driver exits 0 only after it has written that object, so what is missing was
    lost outside the driver.
    """
    if report is not None and not (report.failure_class in FROM_OUTSIDE and job is not None and job.failure):
        return report.failure_class, report.message
    if job is None:
        return "infrastructure", "the job vanished from the cluster"
    said = f"{job.message}\n{tail}"
    code = "" if job.exit_code is None else f"exit code {job.exit_code}"
    last = _telling_line(said) or _last_line(tail) or _last_line(job.message)
    evidence = ", ".join(part for part in (code, job.error_type, last) if part) or job.phase
    if job.failure is not None:
        return job.failure, ", ".join(part for part in (job.note, evidence) if part)
    if job.phase == "succeeded":
        return "infrastructure", f"it ended well but left no closed.json ({evidence})"
    if job.phase == "stopped":
        return "cancelled", f"somebody stopped it ({evidence})"
    if job.error_type == "RUNTIME_ENV_SETUP_FAILURE":
        return ("infrastructure" if _NETWORK.search(said) else "invalid_spec"), evidence
    if _MEMORY.search(said):
        return "out_of_memory", evidence
    if _PREEMPTED.search(job.message):
        return "preempted", evidence
    if job.exit_code in (137, 143, -9, -15) or job.exit_code is None or job.error_type.startswith("JOB_SUPERVISOR"):
        return "infrastructure", evidence
    return "user", evidence


def report_in(tail: str) -> JobError | None:
    """The report of a driver that could print but not write its error.json."""
    for line in reversed(tail.splitlines()):
        if line.startswith(REPORT_MARK):
            try:
                return JobError.model_validate_json(line.removeprefix(REPORT_MARK))
            except ValidationError:
                return None
    return None


def one_line(failure_class: FailureClass, evidence: str, attempt: str | None = None) -> str:
    """What a person reads: class, evidence, advice, in one line."""
    where = f" in {attempt}" if attempt else ""
    return f"{failure_class}{where}: {' '.join(evidence.split())[:600]}; {ADVICE[failure_class]}"


def _telling_line(text: str) -> str:
    """The last line that names memory or a preemption, from there on: platforms bury it in the middle of a long message."""
    lines = text.splitlines()
    for line in reversed(lines):
        if _RAYS_ADVICE not in line and (found := _MEMORY.search(line) or _PREEMPTED.search(line)):
            return line[max(0, found.start() - 150) : found.end() + 150].strip()
    return "Ray's memory monitor killed it: its node was running low on memory" if any(_RAYS_ADVICE in line for line in lines) else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
