"""Following one attempt: create its job or adopt it, watch it within its budgets, and record how it ended."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestration.launching.effects import (
    Await,
    Denied,
    Ensure,
    InvalidSpec,
    Job,
    LogTail,
    Now,
    Observe,
    Program,
    Read,
    Replace,
    Tell,
    Unreachable,
    Wait,
    Write,
)
from orchestration.launching.ending import end_attempt, stop_job
from orchestration.launching.failures import classify, report_in
from orchestration.launching.patience import patiently
from orchestration.launching.publishing import still_ours
from orchestration.launching.survey import AttemptSeen, Seen
from orchestration.launching.work import Attempt, Budgets, Ended, Submitted
from ray_jobs.seam import layout
from ray_jobs.seam.errors import FailureClass

if TYPE_CHECKING:
    from orchestration.launching.protocol import _Step

RUN_CHECK_S = 5.0  # how often a step that only watches looks whether its run still wants it
GRACE_S = 60.0  # the job enforces its own deadline first
TAIL_OBJECTS = 3  # of the log, which tell how a driver ended


@dataclass
class _Watch:
    """What this step saw of the job, and how long the job has spent in each phase since."""

    spent: dict[str, float] = field(default_factory=dict)
    phase: str | None = None
    at: float = 0.0
    since: float = 0.0  # when that phase was first seen
    executions: frozenset[str] = frozenset()
    execution_spent: float = 0.0  # running, since the newest driver showed itself
    checked: float = 0.0
    silent_since: float | None = None
    note: str = ""

    def charge(self, phase: str, executions: frozenset[str], now: float) -> None:
        """Add the time since the last look to the phase that was seen then. Getting through starting, or being queued again, begins it anew."""
        passed = now - self.at if self.phase == phase else 0.0
        self.spent[phase] = self.spent.get(phase, 0.0) + passed
        self.execution_spent = self.execution_spent + passed if phase == "running" and executions == self.executions else 0.0
        if phase != "starting":
            self.spent["starting"] = 0.0
        self.since = self.since if self.phase == phase else now
        self.phase, self.at, self.executions = phase, now, executions

    def pause(self, poll: float, now: float) -> float:
        """Until the next look: seldom at what has long been as it is, often at what has just come out of a queue and may end soon."""
        return min(poll * (1 + (now - self.since) / 30), 5.0)


def follow(step: "_Step", attempt: Attempt) -> Program[None]:
    """Until the attempt is over: closed (by any attempt of this base), or ended with its reason in the store."""
    budgets = step.work.budgets
    began: float = yield Now()
    watch = _Watch(checked=began)
    while True:
        seen = yield from step.survey_again()
        at = seen.attempts.get(attempt.number, AttemptSeen(attempt.number))
        if at.over or set(attempt.days) <= set(seen.made()):
            return
        now: float = yield Now()
        try:
            job: Job | None = yield Observe(attempt.name)
            if job is None and at.submitted is None:
                yield from _create(step, attempt)
                continue
            watch.silent_since = None
        except Unreachable as error:
            if isinstance(error, Denied) and at.submitted is None:
                yield from _end(step, attempt, "invalid_spec", str(error))
                return
            watch.silent_since = now if watch.silent_since is None else watch.silent_since
            if now - watch.silent_since >= budgets.unreachable:
                yield from _end(step, attempt, "infrastructure", f"the cluster was silent for {budgets.unreachable:.0f} s: {error}")
                return
            yield Wait(min(1.0, budgets.poll * 4))
            continue
        except InvalidSpec as error:
            yield from _end(step, attempt, "invalid_spec", str(error))
            return
        if job is None or not job.alive:
            if (yield from _look_once_more(step, attempt)):
                return
            failure, evidence = yield from _why(step, attempt, job)
            yield from _end(step, attempt, failure, evidence)
            return
        if job.labels.get("spec") != attempt.spec_hash or job.labels.get("deployment") != attempt.deployment:
            yield from _end(step, attempt, "invalid_spec", f"a job named {attempt.name} exists that is not ours")
            return
        if at.submitted is None or (at.submitted.uid, at.submitted.run_id) != (job.uid, step.run.run_id):
            yield from _take_on(step, attempt, job.uid, adopted=True)
        if job.note != watch.note:
            watch.note = job.note
            yield Tell(f"{attempt.name}: {job.note or 'goes on'}")
        if job.lost:
            yield from _replace(step, attempt, job)
        if (late := _overdue(watch, job, at, attempt, budgets, now)) is not None:
            yield from still_ours(budgets.unreachable)
            yield from stop_job(attempt.name, budgets.stopping)
            if not (yield from _look_once_more(step, attempt)):
                yield from _end(step, attempt, *late)
            return
        if now - watch.checked >= RUN_CHECK_S:
            yield from still_ours(budgets.unreachable)
            watch.checked = now
        yield Await(attempt.name, watch.pause(budgets.poll, now))


def _replace(step: "_Step", attempt: Attempt, job: Job) -> Program[None]:
    yield from still_ours(step.work.budgets.unreachable)
    yield Tell(f"{attempt.name}: giving up {', '.join(job.lost)}, whose node is lost")
    try:
        yield Replace(attempt.name, job.lost)
    except Unreachable as error:
        yield Tell(f"{attempt.name}: they could not be given up now: {error}")


def _create(step: "_Step", attempt: Attempt) -> Program[None]:
    yield from still_ours(step.work.budgets.unreachable)
    uid: str = yield Ensure(attempt)
    step.launched = True
    yield from _take_on(step, attempt, uid, adopted=False)
    yield Tell(f"launched {attempt.name}: {attempt.asset} of {', '.join(attempt.days)}")


def _take_on(step: "_Step", attempt: Attempt, uid: str, adopted: bool) -> Program[None]:
    """Record the uid, and that this run is now the one that looks after the job."""
    now: float = yield Now()
    step.timings.setdefault("submitted", now)
    document = Submitted(uid=uid, run_id=step.run.run_id, at=now)
    yield from patiently(Write(layout.submitted(attempt.base, attempt.number), document.model_dump_json().encode()), step.work.budgets.unreachable)
    if adopted:
        yield Tell(f"adopted {attempt.name}, which was already there")


def _look_once_more(step: "_Step", attempt: Attempt) -> Program[bool]:
    """A job may have closed after we last read the store and before we saw it end."""
    seen: Seen = yield from step.survey_again()
    at = seen.attempts.get(attempt.number)
    return at is not None and at.over


def _why(step: "_Step", attempt: Attempt, job: Job | None) -> Program[tuple[FailureClass, str]]:
    seen: Seen = yield from step.survey_again()
    at = seen.attempts.get(attempt.number, AttemptSeen(attempt.number))
    tail = ""
    for key in at.logs[-TAIL_OBJECTS:]:
        data: bytes | None = yield from patiently(Read(key), step.work.budgets.unreachable)
        tail += (data or b"").decode(errors="replace")
    if not tail and job is not None:
        try:
            tail = yield LogTail(attempt.name)
        except Unreachable as error:
            tail = f"its log could not be read: {error}"
    report = at.errors[max(at.errors)] if at.errors else report_in(tail)
    if report is not None:
        step.peak_memory = max(step.peak_memory, report.peak_memory_bytes)
    failure, evidence = classify(job, report, tail)
    if failure == "out_of_memory" and job is not None:
        step.peak_memory = max(step.peak_memory, job.memory)  # who ran out of it had used all of it
    return failure, evidence


def _end(step: "_Step", attempt: Attempt, failure: FailureClass, evidence: str) -> Program[None]:
    now: float = yield Now()
    step.timings["ended"] = now
    yield Tell(f"{attempt.name} ended: {failure}: {evidence}")
    ended = Ended(failure_class=failure, evidence=evidence, peak_memory_bytes=step.peak_memory, at=now)
    yield from end_attempt(attempt.base, attempt.number, ended, step.work.budgets.unreachable)


def _overdue(watch: _Watch, job: Job, at: AttemptSeen, attempt: Attempt, budgets: Budgets, now: float) -> tuple[FailureClass, str] | None:
    """(class, evidence) where the job has been in its phase for longer than its budget."""
    phase = "starting" if job.phase == "running" and not at.started else job.phase
    watch.charge(phase, frozenset(at.executions), now)
    spent = watch.spent[phase]
    deadline = float(attempt.config.get("deadline_s", budgets.running)) + GRACE_S
    why = f": {job.note}" if job.note else ""
    if phase == "queued" and spent >= budgets.queued:
        return "capacity", f"it waited {spent:.0f} s in the queue{why}"
    if phase == "starting" and spent >= budgets.starting:
        return job.failure or "infrastructure", f"its driver said nothing for {spent:.0f} s{why}"
    if phase == "running" and (spent >= budgets.running or watch.execution_spent >= deadline):
        return "user", f"it ran for {max(spent, watch.execution_spent):.0f} s, which is all it was given"
    return None
