"""The embedded target: jobs on the project's own Ray head."""

import sys
from pathlib import Path

from orchestration.launching.effects import Job
from orchestration.launching.head import Head, HeadState
from orchestration.launching.ray_api import RayApi, spec_of
from orchestration.launching.target import Target
from orchestration.launching.work import Attempt
from ray_jobs.seam.store import StoreConfig

REPOSITORY = Path(__file__).resolve().parents[2]


class EmbeddedTarget(Target):
    """Jobs of one head. A dead head has no jobs: what it left at work is ended before that is said.

    The driver's memory is not asked for: Ray only keeps account of it, and a job that asks for more than the head has stays pending
    for 15 minutes, during which nothing stops it. On one machine a retry has what the machine has.
    """

    def __init__(self, head: Head, store: StoreConfig):
        self.head = head
        self.store = store

    def ensure(self, attempt: Attempt) -> str:
        state = self.head.ensure()
        spec = spec_of(attempt, self.store, sys.executable, {"env_vars": {"PYTHONPATH": str(REPOSITORY)}})
        return self._api(state).ensure(attempt, spec, state.head_id)

    def find(self, name: str) -> Job | None:
        state = self._living()
        return None if state is None else self._api(state).find(name, state.head_id)

    def jobs(self, deployment: str) -> list[Job]:
        state = self._living()
        return [] if state is None else self._api(state).jobs(deployment, state.head_id)

    def stop(self, name: str, uid: str) -> None:
        state, job = self._living(), self.find(name)
        if state is not None and job is not None and job.uid == uid and job.alive:
            self._api(state).stop(name)

    def delete(self, name: str, uid: str) -> None:
        state = self._living()
        if state is not None:
            self._api(state).delete(name, uid, state.head_id)

    def logs(self, name: str, offset: int = 0) -> str:
        state = self._living()
        return "" if state is None else self._api(state).logs(name)[offset:]

    def _living(self) -> HeadState | None:
        """The head, or None: it is not ready yet, or nothing of a dead one is at work any more."""
        state = self.head.alive()
        if state is None:
            self.head.bury()
        return state if state is not None and self.head.ready(state) else None

    def _api(self, state: HeadState) -> RayApi:
        url = f"http://127.0.0.1:{state.port}"
        return RayApi(url, lambda: self.head.headers(state), "the embedded Ray head", "something else listens at its port; end that, then re-execute")
