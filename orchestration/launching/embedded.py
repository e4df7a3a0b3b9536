"""The embedded target: jobs on the project's own Ray head, through its REST API alone."""

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import requests

from orchestration.launching.effects import InvalidSpec, Job, Phase, Unreachable
from orchestration.launching.head import Head, HeadState
from orchestration.launching.target import Target, labels_of
from orchestration.launching.work import Attempt
from ray_jobs.seam.store import StoreConfig

REPOSITORY = Path(__file__).resolve().parents[2]
SUBMIT_BUDGET_S = 60.0  # HTTP answers some seconds before the first submission is accepted
CALL_TIMEOUT_S = 15.0


class EmbeddedTarget(Target):
    """Jobs of one head. A dead head has no jobs: what it left at work is ended before that is said."""

    def __init__(self, head: Head, store: StoreConfig):
        self.head = head
        self.store = store

    def ensure(self, attempt: Attempt) -> str:
        state = self.head.ensure()
        body = {"submission_id": attempt.name, "metadata": labels_of(attempt), **_spec(attempt, self.store)}
        deadline = time.monotonic() + SUBMIT_BUDGET_S
        while True:
            answer = self._call(state, "POST", "", body)
            if answer.ok or "already exists" in answer.text:
                break
            if answer.status_code == 400:
                raise InvalidSpec(f"Ray refuses {attempt.name}: {_last_line(answer.text)}")
            if "No available agent" not in answer.text or time.monotonic() > deadline:
                raise Unreachable(f"Ray did not take {attempt.name}: {_last_line(answer.text)}")
            time.sleep(0.2)
        job = self.find(attempt.name)
        if job is None:
            raise Unreachable(f"Ray took {attempt.name} and does not show it")
        if job.labels.get("spec") != attempt.spec_hash or job.labels.get("deployment") != attempt.deployment:
            raise InvalidSpec(f"a job named {attempt.name} exists that is not ours")
        return job.uid

    def find(self, name: str) -> Job | None:
        if (state := self._living()) is None:
            return None
        answer = self._call(state, "GET", name)
        if answer.status_code == 404:
            return None
        return _job(state, self._document(answer))

    def jobs(self, deployment: str) -> list[Job]:
        if (state := self._living()) is None:
            return []
        listed = [_job(state, document) for document in self._document(self._call(state, "GET", "")) if document.get("submission_id")]
        return [job for job in listed if job.labels.get("deployment") == deployment]

    def stop(self, name: str, uid: str) -> None:
        self._if_same(name, uid, "POST", "/stop")

    def delete(self, name: str, uid: str) -> None:
        self._if_same(name, uid, "DELETE", "")

    def logs(self, name: str, offset: int = 0) -> str:
        if (state := self.head.alive()) is None:
            return ""
        answer = self._call(state, "GET", f"{name}/logs")
        return str(answer.json().get("logs") or "")[offset:] if answer.ok else ""

    def _living(self) -> HeadState | None:
        """The head, or None: it is not ready yet, or nothing of a dead one is at work any more."""
        state = self.head.alive()
        if state is None:
            self.head.bury()
        return state if state is not None and self.head.ready(state) else None

    def _if_same(self, name: str, uid: str, method: str, action: str) -> None:
        state = self.head.alive()
        if state is None:
            return
        job = self.find(name)
        if job is not None and job.uid == uid and (method == "POST") == job.alive:  # Ray deletes what is over, and nothing else
            self._call(state, method, f"{name}{action}")

    def _call(self, state: HeadState, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        url = f"http://127.0.0.1:{state.port}/api/jobs/{path}"
        try:
            return requests.request(method, url, json=body, headers=self.head.headers(state), timeout=CALL_TIMEOUT_S)
        except (requests.RequestException, FileNotFoundError) as error:
            raise Unreachable(f"the embedded Ray head does not answer: {type(error).__name__}") from error

    def _document(self, answer: requests.Response) -> Any:
        if not answer.ok:
            raise Unreachable(f"the embedded Ray head answers {answer.status_code}: {_last_line(answer.text)}")
        return answer.json()


def _spec(attempt: Attempt, store: StoreConfig) -> dict[str, Any]:
    """Secrets are no part of it: a store's credentials are names of variables, looked up in the head's environment."""
    command = [sys.executable, "-m", "ray_jobs.guard", attempt.module, "--attempt", attempt.key, "--store", store.model_dump_json()]
    spec: dict[str, Any] = {"entrypoint": shlex.join(command), "runtime_env": {"env_vars": {"PYTHONPATH": str(REPOSITORY)}}}
    if attempt.resources.num_cpus:
        spec["entrypoint_num_cpus"] = attempt.resources.num_cpus
    return spec


_PHASES: dict[str, Phase] = {"PENDING": "queued", "RUNNING": "running", "SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}


def phase_of(status: str) -> Phase:
    """Ray's job status as a phase. An unknown status is not a failure: it queues, within its budget."""
    return _PHASES.get(status, "queued")


def _job(state: HeadState, document: dict[str, Any]) -> Job:
    return Job(
        name=document["submission_id"],
        uid=f"{state.head_id}-{document.get('start_time')}",
        phase=phase_of(document["status"]),
        labels={key: str(value) for key, value in (document.get("metadata") or {}).items()},
        message=document.get("message") or "",
        error_type=document.get("error_type") or "",
        exit_code=document.get("driver_exit_code"),
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 1]
    return json.dumps(lines[-1][:300]) if lines else "no reason given"
