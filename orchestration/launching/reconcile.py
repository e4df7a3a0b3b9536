"""The reconciler: jobs that nobody waits for are stopped and removed. A sensor calls it; it keeps no memory."""

from collections.abc import Callable

from orchestration.launching.effects import Job, ListJobs, ListKeys, Now, Program, Unreachable
from orchestration.launching.ending import end_attempt, stop_job
from orchestration.launching.shell import Ports, perform
from orchestration.launching.target import Target
from orchestration.launching.work import Ended
from ray_jobs.seam import layout
from ray_jobs.seam.store import Store

STOP_BUDGET_S = 10.0


def unwanted(job: Job, root_is_alive: bool, ended: bool) -> str | None:
    """Why this job has no business here, or None. `ended`: the store says that its attempt is over."""
    if not root_is_alive:
        return "its run is over"
    if ended and job.alive:
        return "its attempt has ended"
    return None


def reconciling(deployment: str, is_run_alive: Callable[[str], bool]) -> Program[list[str]]:
    """Stop and delete what is unwanted. `is_run_alive(root run)`: it runs, is queued, or waits to be retried."""
    done: list[str] = []
    jobs: list[Job] = yield ListJobs(deployment)
    for job in jobs:
        base, number = job.labels["base"], int(job.labels["number"])
        keys: list[str] = yield ListKeys(layout.attempt_prefix(base, number))
        reason = unwanted(job, is_run_alive(job.labels["root_run"]), layout.ended(base, number) in keys)
        if reason is None:
            continue
        try:
            if job.alive:
                yield from stop_job(job.name, STOP_BUDGET_S)
            now: float = yield Now()
            closed = any(key.endswith("/closed.json") for key in keys)
            yield from end_attempt(base, number, Ended(failure_class=None if closed else "cancelled", evidence=reason, at=now), STOP_BUDGET_S)
            done.append(f"removed {job.name}: {reason}")
        except Unreachable as error:
            done.append(f"could not remove {job.name} ({reason}): {error}")
    return done


def reconcile(store: Store, target: Target, deployment: str, is_run_alive: Callable[[str], bool]) -> list[str]:
    """One round; a line for each job that was removed. Raises StoreError, Unreachable."""
    return perform(reconciling(deployment, is_run_alive), Ports(store, target, run_status=lambda: "STARTED"))
