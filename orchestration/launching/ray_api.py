"""The Jobs REST API of one Ray cluster: the few calls that the launcher needs, and every failure as one of its own errors."""

import json
import shlex
import time
from collections.abc import Callable
from typing import Any

import requests

from orchestration.launching.effects import Denied, InvalidSpec, Job, Phase, Unreachable
from orchestration.launching.target import labels_of
from orchestration.launching.work import Attempt
from ray_jobs.seam.errors import FailureClass
from ray_jobs.seam.store import StoreConfig

SUBMIT_BUDGET_S = 60.0  # HTTP answers some seconds before the first submission is accepted
CALL_TIMEOUT_S = 15.0
WATCHED_S = 5.0  # Ray looks after a job each second, and sees a while after its end that it is over
WAITING_S = 10.0  # a job that is pending for longer than this says what it waits for

_PHASES: dict[str, Phase] = {"PENDING": "queued", "RUNNING": "running", "SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}
_FAILURES: dict[str, FailureClass] = {"JOB_SUPERVISOR_ACTOR_START_TIMEOUT": "capacity"}  # Ray gives up what is pending for 15 minutes
_OURS = frozenset({"deployment", "base", "number", "root_run", "spec"})


class RayApi:
    """`who` names the cluster, and `credential` what a person renews when it refuses us. `headers` is asked at each call: tokens change.

    The `incarnation` of a cluster is part of the uid of its jobs: a cluster that was started again knows nothing of those before.
    """

    def __init__(self, url: str, headers: Callable[[], dict[str, str]], who: str, credential: str):
        self.url, self.headers, self.who, self.credential = url.rstrip("/"), headers, who, credential

    def session(self) -> str:
        """The name of this start of the cluster; a head that was restarted with its memory (GCS fault tolerance) keeps it."""
        name = self._document(self._call("GET", "/api/version")).get("session_name")
        if not name:
            raise Unreachable(f"{self.who} is no Ray dashboard: it names no session")
        return str(name)

    def ensure(self, attempt: Attempt, spec: dict[str, Any], incarnation: str) -> str:
        """Submit the attempt's job, or find it under its name; -> uid."""
        body = {"submission_id": attempt.name, "metadata": labels_of(attempt), **spec}
        deadline = time.monotonic() + SUBMIT_BUDGET_S
        while True:
            answer = self._call("POST", "/api/jobs/", body)
            if answer.ok or "already exists" in answer.text:
                break
            if answer.status_code == 400 or "status code 400" in answer.text:  # by the head, or by the agent behind it
                raise InvalidSpec(f"Ray refuses {attempt.name}: {_last_line(answer.text)}")
            if "No available agent" not in answer.text or time.monotonic() > deadline:
                raise Unreachable(f"{self.who} did not take {attempt.name}: {_last_line(answer.text)}")
            time.sleep(0.2)
        job = self.find(attempt.name, incarnation)
        if job is None:
            raise Unreachable(f"{self.who} took {attempt.name} and does not show it")
        if job.labels.get("spec") != attempt.spec_hash or job.labels.get("deployment") != attempt.deployment:
            raise InvalidSpec(f"a job named {attempt.name} exists that is not ours")
        return job.uid

    def find(self, name: str, incarnation: str) -> Job | None:
        answer = self._call("GET", f"/api/jobs/{name}")
        return None if _absent(answer) else job_of(self._document(answer), incarnation, time.time())

    def jobs(self, deployment: str, incarnation: str) -> list[Job]:
        """The deployment's jobs; whatever else runs on the cluster is not seen."""
        listed = self._document(self._call("GET", "/api/jobs/"))
        jobs = [job_of(document, incarnation, time.time()) for document in listed if document.get("submission_id")]
        return [job for job in jobs if job.labels.keys() >= _OURS and job.labels["deployment"] == deployment]

    def stop(self, name: str) -> None:
        answer = self._call("POST", f"/api/jobs/{name}/stop")
        if not _absent(answer):
            self._document(answer)

    def delete(self, name: str, uid: str, incarnation: str) -> None:
        """Ray forgets the job, if it is this one and has been over for a while; whatever is left, whoever lists the jobs next finds.

        Of a job that is forgotten while Ray still watches over it, Ray writes a new record: that it failed, and nothing of whose it was.
        """
        answer = self._call("GET", f"/api/jobs/{name}")
        if _absent(answer):
            return
        document, now = self._document(answer), time.time()
        job = job_of(document, incarnation, now)
        if job.uid == uid and not job.alive and now - (document.get("end_time") or 0) / 1000 > WATCHED_S:
            answer = self._call("DELETE", f"/api/jobs/{name}")
            if not _absent(answer):
                self._document(answer)

    def logs(self, name: str) -> str:
        answer = self._call("GET", f"/api/jobs/{name}/logs")
        return "" if _absent(answer) else str(self._document(answer).get("logs") or "")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        try:
            answer = requests.request(method, self.url + path, json=body, headers=self.headers(), timeout=CALL_TIMEOUT_S)
        except (requests.RequestException, OSError) as error:
            raise Unreachable(f"{self.who} does not answer: {type(error).__name__}") from error
        if answer.status_code in (401, 403):
            raise Denied(f"{self.who} refuses us ({answer.status_code}, {_last_line(answer.text)}): {self.credential}")
        return answer

    def _document(self, answer: requests.Response) -> Any:
        if not answer.ok:
            raise Unreachable(f"{self.who} answers {answer.status_code}: {_last_line(answer.text)}")
        try:
            return answer.json()
        except ValueError as error:
            raise Unreachable(f"{self.who} is no Ray dashboard: it answers {_last_line(answer.text)}") from error


def spec_of(attempt: Attempt, store: StoreConfig, python: str, runtime_env: dict[str, Any]) -> dict[str, Any]:
    """What a job runs. Secrets are no part of it: a store's credentials are names of variables, looked up where the driver runs."""
    command = [python, "-m", "ray_jobs.guard", attempt.module, "--attempt", attempt.key, "--store", store.model_dump_json()]
    spec: dict[str, Any] = {"entrypoint": shlex.join(command), "runtime_env": runtime_env}
    if attempt.resources.num_cpus:
        spec["entrypoint_num_cpus"] = attempt.resources.num_cpus
    return spec


def phase_of(status: str) -> Phase:
    """Ray's job status as a phase. An unknown status is not a failure: it queues, within its budget."""
    return _PHASES.get(status, "queued")


def job_of(document: dict[str, Any], incarnation: str, now: float) -> Job:
    phase, message = phase_of(document["status"]), document.get("message") or ""
    waits = phase == "queued" and now - (document.get("start_time") or 0) / 1000 > WAITING_S
    return Job(
        name=document["submission_id"],
        uid=f"{incarnation}-{document.get('start_time')}",
        phase=phase,
        labels={key: str(value) for key, value in (document.get("metadata") or {}).items()},
        message=message,
        error_type=document.get("error_type") or "",
        exit_code=document.get("driver_exit_code"),
        note=" ".join(message.split())[:300] if waits else "",
        failure=_FAILURES.get(document.get("error_type") or ""),
    )


def _absent(answer: requests.Response) -> bool:
    """Ray itself says that it has no such job; whatever else answers 404 at this address knows nothing of jobs."""
    return answer.status_code == 404 and "does not exist" in answer.text


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 1]
    return json.dumps(lines[-1][:300]) if lines else "no reason given"
