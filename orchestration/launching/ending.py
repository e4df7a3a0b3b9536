"""Ending an attempt: its job stops, ended.json says why, and only then is anything deleted."""

from orchestration.launching.effects import Delete, Job, ListKeys, Now, Observe, Program, Read, RunStatus, Stop, Tell, Unreachable, Wait, Write
from orchestration.launching.patience import patiently
from orchestration.launching.publishing import STOPPED_BY_A_PERSON
from orchestration.launching.work import Ended, RunInfo, Submitted
from ray_jobs.seam import layout
from ray_jobs.seam.errors import StoreError

SETTLE_BUDGET_S = 8.0  # inside a pod's grace period
REMOVE_BUDGET_S = 10.0  # for what the reconciler would remove too, only later


def is_ours(job: Job | None, name: str) -> bool:
    """Whoever else took the name of one of our attempts keeps the job."""
    return job is not None and f"{job.labels.get('base')}-a{job.labels.get('number')}" == name


def stop_job(name: str, budget_s: float) -> Program[Job | None]:
    """Stop our job of this name and wait until it is over. -> how it ended, None where it is gone. Raises Unreachable."""
    start: float = yield Now()
    while True:
        try:
            job: Job | None = yield Observe(name)
            if job is None or not job.alive or not is_ours(job, name):
                return job if is_ours(job, name) else None
            yield Stop(name, job.uid)
        except Unreachable:
            pass
        now: float = yield Now()
        if now - start >= budget_s:
            raise Unreachable(f"the job {name} did not stop within {budget_s:.0f} s; stop it by hand, then re-execute")
        yield Wait(0.3)


def end_attempt(base: str, number: int, ended: Ended, budget_s: float) -> Program[None]:
    """Record the end, unless it is recorded; then remove the job, and what still runs of it. The first record stays."""
    key, name = layout.ended(base, number), f"{base}-a{number}"
    if (yield from patiently(Read(key), budget_s)) is None:
        yield from patiently(Write(key, ended.model_dump_json().encode()), budget_s)
    patience = min(budget_s, REMOVE_BUDGET_S)
    try:
        job: Job | None = yield from patiently(Observe(name), patience)
        if job is None or not is_ours(job, name):
            return
        if job.alive:
            yield from patiently(Stop(name, job.uid), patience)
        yield from patiently(Delete(name, job.uid), patience)
    except Unreachable:
        return  # whoever lists the jobs next finds it


def settle(base: str, run: RunInfo) -> Program[None]:
    """Interrupted: where a person ended the run, its jobs end too; otherwise they stay for the retry to adopt."""
    try:
        status: str = yield RunStatus()
        if status not in STOPPED_BY_A_PERSON:
            yield Tell(f"interrupted while the run is {status}: the job stays, and a retry adopts it")
            return
        for number in (yield from _open_attempts(base, run)):
            yield Tell(f"the run is {status}: stopping {base}-a{number}")
            yield from stop_job(f"{base}-a{number}", SETTLE_BUDGET_S)
            now: float = yield Now()
            yield from end_attempt(base, number, Ended(failure_class="cancelled", evidence=f"the run is {status}", at=now), 1.0)
    except (StoreError, Unreachable) as error:
        yield Tell(f"could not stop the job now, the reconciler will: {error}")


def _open_attempts(base: str, run: RunInfo) -> Program[list[int]]:
    """Attempts that have not ended and that no later run has taken on."""
    prefix = f"attempts/{base}/"
    keys: list[str] = yield ListKeys(prefix)
    numbers = sorted(int(key.split("/")[2][1:]) for key in keys if key.endswith("/attempt.json"))
    found = []
    for number in numbers:
        if layout.ended(base, number) in keys:
            continue
        data: bytes | None = yield Read(layout.submitted(base, number))
        if data is None or Submitted.model_validate_json(data).run_id == run.run_id:
            found.append(number)
    return found
