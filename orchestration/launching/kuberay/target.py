"""Jobs as RayJobs of one Kubernetes namespace."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestration.launching.effects import InvalidSpec, Job, Unreachable
from orchestration.launching.kuberay.api import Gone, Kubernetes, Object, Watched
from orchestration.launching.kuberay.manifest import DEPLOYMENT_LABEL, NAME_LABEL, rayjob, read_manifest
from orchestration.launching.kuberay.status import at_work, job_of, phase_of, unwell
from orchestration.launching.target import Target
from orchestration.launching.work import Attempt
from ray_jobs.seam.store import StoreConfig

EVENTS_FIRST_S, EVENTS_LAST_S = 5.0, 60.0  # between two questions for the events of what does not start; it doubles: a queue may take a day
SETTLE_S = 0.1  # changes come in flurries


@dataclass
class _Followed:
    """What is watched of one RayJob, and what was last asked about it."""

    job: Watched
    pods: Watched
    changed: threading.Event
    events: dict[str, list[Object]] = field(default_factory=dict)
    asked: dict[str, tuple[float, float]] = field(default_factory=dict)  # name -> when its events were asked for, and the pause after that


class KubeRayTarget(Target):
    """`code_uri(sha256)` names the archive of the code in the store that `store` describes, as pods reach it."""

    def __init__(
        self,
        api: Kubernetes,
        manifest: Path,
        store: StoreConfig,
        code_uri: Callable[[str], str],
        queue: str | None = None,
        priority: str | None = None,
        secret: str | None = None,
    ):
        self.api, self.manifest, self.store, self.code_uri = api, manifest, store, code_uri
        self.queue, self.priority, self.secret = queue, priority, secret
        self._followed: dict[str, _Followed] = {}

    def ensure(self, attempt: Attempt) -> str:
        wanted = rayjob(
            read_manifest(self.manifest), attempt, self.store, self.code_uri(attempt.code), queue=self.queue, priority=self.priority, secret=self.secret
        )
        try:
            made = self.api.create(wanted)
        except Gone as error:
            raise Unreachable(f"the RayJob {attempt.name} was taken away while it was created: {error}") from error
        job = job_of(made, [], {}, time.time())
        if job.labels.get("spec") != attempt.spec_hash or job.labels.get("deployment") != attempt.deployment:
            raise InvalidSpec(f"a RayJob named {attempt.name} exists that is not ours")
        return job.uid

    def find(self, name: str) -> Job | None:
        """From the watch where it knows the job; absence is asked for, for it must be certain."""
        followed = self._follow(name)
        seen, pods = followed.job.objects(), followed.pods.objects()
        if not seen:
            try:
                seen = [self.api.get(name)]
            except Gone:
                if at_work(self.api.pods(f"{NAME_LABEL}={name}")):
                    raise Unreachable(f"the RayJob {name} was deleted, and its pods are not gone yet") from None
                self._forget(name)
                return None
        resource = seen[0]
        return job_of(resource, pods, self._events(followed, resource, pods), time.time())

    def jobs(self, deployment: str) -> list[Job]:
        return [job_of(resource, [], {}, time.time()) for resource in self.api.jobs(f"{DEPLOYMENT_LABEL}={deployment}")]

    def stop(self, name: str, uid: str) -> None:
        """A RayJob is stopped by deleting it: the operator ends the job, and the pods go before the object does."""
        self.api.delete(name, uid)

    def delete(self, name: str, uid: str) -> None:
        self.api.delete(name, uid)
        self._forget(name)

    def wait(self, name: str, seconds: float) -> None:
        followed = self._followed.get(name)
        if followed is None:
            time.sleep(seconds)
        elif followed.changed.wait(seconds):
            time.sleep(min(SETTLE_S, seconds))
            followed.changed.clear()

    def replace(self, name: str, pods: tuple[str, ...]) -> None:
        for pod in pods:
            self.api.give_up_pod(pod)

    def logs(self, name: str, offset: int = 0) -> str:
        """What drivers print is in the store (ray_jobs/guard.py); what the cluster says of the job is in its status."""
        try:
            return str((self.api.get(name).get("status") or {}).get("message") or "")[offset:]
        except Gone:
            return ""

    def _follow(self, name: str) -> _Followed:
        if name not in self._followed:
            changed = threading.Event()
            self._followed[name] = _Followed(self.api.watched_job(name, changed), self.api.watched_pods(f"{NAME_LABEL}={name}", changed), changed)
        return self._followed[name]

    def _forget(self, name: str) -> None:
        followed = self._followed.pop(name, None)
        if followed is not None:
            followed.job.stop()
            followed.pods.stop()

    def _events(self, followed: _Followed, resource: Object, pods: list[Object]) -> dict[str, list[Object]]:
        """Events of what does not start, asked for now and then."""
        names = [pod["metadata"]["name"] for pod in pods if unwell(pod)]
        if phase_of(resource) == "queued":
            names.append(resource["metadata"]["name"])
        for name in names:
            at, pause = followed.asked.get(name, (float("-inf"), EVENTS_FIRST_S / 2))
            if time.monotonic() - at >= pause:
                followed.asked[name] = (time.monotonic(), min(2 * pause, EVENTS_LAST_S))
                followed.events[name] = self.api.events(name)
        return followed.events
