"""A Ray cluster that somebody runs, at the address of its dashboard: jobs elsewhere, with our code sent along."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestration.launching.effects import Denied, Job
from orchestration.launching.ray_api import RayApi, spec_of
from orchestration.launching.target import Target
from orchestration.launching.work import Attempt
from ray_jobs.seam.store import StoreConfig

# What our own head has in its environment; the stores' credentials must be in that of the cluster's processes.
ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_DEDUP_LOGS": "0"}  # the default of 2 s loses reported checkpoints


class AddressTarget(Target):
    """`url`: http(s)://host:8265. `token` names where the cluster's token is: an environment variable, or with a slash a file.

    `code_uri(sha256)` names the archive of the code in a store that the cluster's nodes reach. The cluster needs Python and Ray of our
    versions, and the packages of requirements.lock; it need not see this repository.
    """

    def __init__(self, url: str, token: str | None, store: StoreConfig, code_uri: Callable[[str], str]):
        self.store, self.code_uri = store, code_uri
        renew = f"renew the token in {token}" if token else "set `token` of this target to the variable or file that holds the cluster's token"
        self.api = RayApi(url, lambda: bearer(token), f"the Ray cluster at {url}", renew)
        self._given_up: set[str] = set()

    def ensure(self, attempt: Attempt) -> str:
        session = self.api.session()
        runtime_env: dict[str, Any] = {"working_dir": self.code_uri(attempt.code), "env_vars": ENVIRONMENT}
        spec = spec_of(attempt, self.store, "python", runtime_env)
        if attempt.resources.memory:
            spec["entrypoint_memory"] = attempt.resources.memory
        return self.api.ensure(attempt, spec, session)

    def find(self, name: str) -> Job | None:
        job = self.api.find(name, self.api.session())
        return None if job is None else self._as_asked(job)

    def jobs(self, deployment: str) -> list[Job]:
        return [self._as_asked(job) for job in self.api.jobs(deployment, self.api.session())]

    def stop(self, name: str, uid: str) -> None:
        """Ray hears the request of a pending job only when it starts it, and then ends it at once: such a job is given up."""
        job = self.find(name)
        if job is not None and job.uid == uid and job.alive:
            self.api.stop(name)
            if job.phase == "queued":
                self._given_up.add(uid)

    def delete(self, name: str, uid: str) -> None:
        self.api.delete(name, uid, self.api.session())

    def logs(self, name: str, offset: int = 0) -> str:
        return self.api.logs(name)[offset:]

    def _as_asked(self, job: Job) -> Job:
        return replace(job, phase="stopped", note="") if job.uid in self._given_up and job.phase == "queued" else job


def bearer(token: str | None) -> dict[str, str]:
    """The Authorization header, read anew each time. Raises Denied where the token is not where it is said to be."""
    if token is None:
        return {}
    try:
        value = (Path(token).read_text() if "/" in token else os.environ[token]).strip()
    except (KeyError, OSError) as error:
        raise Denied(f"the Ray cluster's token is not in {token} ({type(error).__name__}): put it there, or correct `token` of the target") from error
    return {"Authorization": f"Bearer {value}"}
