"""Tables: what KubeRay's status, the pods and the events say, and what the launcher makes of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestration.launching.failures import classify
from orchestration.launching.kuberay.status import job_of, lost_pods, phase_of
from ray_jobs.seam.results import JobError

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
QUEUE = {"kueue.x-k8s.io/queue-name": "daily"}


def rayjob(deployment: str | None = None, job: str | None = None, *, suspend: bool = False, deleting: bool = False, **status: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": "x-a1", "uid": "u", "annotations": {"robot-flywheel/spec": "s", "other/thing": "no"}, "labels": QUEUE}
    if deleting:
        meta["deletionTimestamp"] = NOW.isoformat()
    shown = {key: value for key, value in {"jobDeploymentStatus": deployment, "jobStatus": job, **status}.items() if value is not None}
    return {"metadata": meta, "spec": {"suspend": suspend}, "status": shown}


def pod(phase: str = "Running", *, conditions: dict[str, Any] | None = None, deleting_for: float | None = None, **status: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": "x-a1-worker"}
    if deleting_for is not None:
        meta["deletionTimestamp"] = (NOW - timedelta(seconds=deleting_for)).isoformat().replace("+00:00", "Z")
    told = [{"type": kind, **content} for kind, content in (conditions or {}).items()]
    limits = {"containers": [{"name": "ray", "resources": {"limits": {"memory": "2Gi"}}}], "nodeName": "node-2"}
    return {"metadata": meta, "spec": limits, "status": {"phase": phase, "conditions": told, **status}}


HEALTHY = pod(conditions={"Ready": {"status": "True"}, "ContainersReady": {"status": "True"}})
UNHEARD = {"Ready": {"status": "False"}, "ContainersReady": {"status": "True"}}
KILLED = pod(containerStatuses=[{"name": "ray", "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}])
UNPULLED = pod("Pending", containerStatuses=[{"name": "ray", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}])
UNPLACED = pod(
    "Pending", conditions={"PodScheduled": {"status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}}
)
DRAINED = pod(conditions={"DisruptionTarget": {"status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}})


# Every jobDeploymentStatus of v1.6 and v1.7 against every jobStatus that it can be seen with (docs/launching.md has the same table).
@pytest.mark.parametrize(
    ("deployment", "job", "phase"),
    [
        (None, None, "starting"),
        ("Initializing", None, "starting"),
        ("Initializing", "PENDING", "starting"),
        ("Waiting", None, "starting"),
        ("Running", None, "starting"),
        ("Running", "PENDING", "starting"),
        ("Running", "RUNNING", "running"),
        ("Running", "SUCCEEDED", "succeeded"),  # the deployment status follows three seconds later
        ("Running", "FAILED", "failed"),
        ("Running", "STOPPED", "stopped"),
        ("Complete", "SUCCEEDED", "succeeded"),
        ("Complete", "STOPPED", "stopped"),
        ("Complete", "FAILED", "failed"),
        ("Complete", None, "failed"),
        ("Failed", "FAILED", "failed"),
        ("Failed", "RUNNING", "failed"),  # kuberay#2314: what activeDeadlineSeconds leaves
        ("Failed", "PENDING", "failed"),
        ("Failed", None, "failed"),
        ("ValidationFailed", None, "failed"),
        ("Suspending", "RUNNING", "queued"),
        ("Suspending", "STOPPED", "queued"),  # dagster-ray fails the step here
        ("Suspended", None, "queued"),
        ("Retrying", "FAILED", "starting"),
        ("Retrying", None, "starting"),
        ("SomethingOfALaterVersion", "RUNNING", "queued"),
    ],
)
def test_phase(deployment: str | None, job: str | None, phase: str) -> None:
    assert phase_of(rayjob(deployment, job)) == phase


def test_a_new_rayjob_that_is_suspended_waits_in_its_queue() -> None:
    job = job_of(rayjob(suspend=True), [], {"x-a1": [{"reason": "Pending", "message": "insufficient quota for cpu", "type": "Warning"}]}, NOW.timestamp())
    assert job.phase == "queued" and job.failure is None
    assert job.note == "it waits in the queue daily (Pending: insufficient quota for cpu)"


def test_what_is_being_deleted_is_at_work_until_it_is_gone() -> None:
    assert job_of(rayjob("Complete", "SUCCEEDED", deleting=True), [], {}, NOW.timestamp()).alive


def test_only_our_own_annotations_are_labels() -> None:
    assert job_of(rayjob(), [], {}, NOW.timestamp()).labels == {"spec": "s"}


@pytest.mark.parametrize(
    ("resource", "pods", "failure", "said"),
    [
        (rayjob("Failed", "RUNNING", reason="DeadlineExceeded"), [], "user", ""),
        (rayjob("Failed", None, reason="PreRunningDeadlineExceeded"), [], "capacity", ""),
        (rayjob("Failed", None, reason="SubmissionFailed"), [], "infrastructure", ""),
        (rayjob("Failed", "RUNNING", reason="JobStatusCheckTimeoutExceeded"), [], "infrastructure", ""),
        (rayjob("ValidationFailed", None, reason="ValidationFailed", message="name too long"), [], "invalid_spec", ""),
        (rayjob("Failed", "FAILED", reason="AppFailed", message="Job entrypoint command failed with exit code 1"), [], None, ""),
        (rayjob("Failed", "FAILED", reason="AppFailed"), [KILLED], "out_of_memory", "ran out of memory (limit 2Gi)"),
        (rayjob("Failed", "FAILED", reason="AppFailed"), [DRAINED], "preempted", "EvictionByEvictionAPI"),
        (rayjob("Initializing"), [UNPULLED], "capacity", "ImagePullBackOff: Back-off"),
        (rayjob("Initializing"), [UNPLACED], "capacity", "Insufficient cpu"),
        (rayjob("Initializing"), [HEALTHY], None, ""),
        (rayjob("Running", "RUNNING"), [HEALTHY], None, ""),
        (rayjob("Running", "RUNNING"), [pod(conditions=UNHEARD)], "preempted", "its node node-2 is lost"),
        (
            rayjob("Initializing", rayClusterStatus={"conditions": [{"type": "RayClusterReplicaFailure", "status": "True", "message": "exceeded quota: cpu"}]}),
            [],
            "capacity",
            "exceeded quota",
        ),
    ],
)
def test_what_the_cluster_saw(resource: dict[str, Any], pods: list[dict[str, Any]], failure: str | None, said: str) -> None:
    job = job_of(resource, pods, {}, NOW.timestamp())
    assert job.failure == failure
    assert said in job.note and bool(said) == bool(job.note)


def test_who_ran_out_of_memory_had_used_all_that_a_container_may() -> None:
    assert job_of(rayjob("Running", "RUNNING"), [HEALTHY], {}, NOW.timestamp()).memory == 2 * 2**30


def test_the_last_warning_of_a_pod_is_quoted() -> None:
    events = {
        "x-a1-worker": [
            {"type": "Warning", "reason": "Failed", "message": "pull access denied"},
            {"type": "Normal", "reason": "BackOff", "message": "Back-off pulling"},
        ]
    }
    assert "Failed: pull access denied" in job_of(rayjob("Initializing"), [UNPULLED], events, NOW.timestamp()).note


@pytest.mark.parametrize(
    ("conditions", "deleting_for", "lost"),
    [
        (UNHEARD, None, False),  # not heard of, and not yet asked to go: it may come back
        (UNHEARD, 0.0, True),
        ({"Ready": {"status": "False", "reason": "ContainersNotReady"}, "ContainersReady": {"status": "False"}}, 0.0, False),
        ({"Ready": {"status": "True"}}, 5.0, False),  # its grace period ended five seconds ago: the kubelet may still be at it
        ({"Ready": {"status": "True"}}, 30.0, True),
        ({"Ready": {"status": "True"}}, -20.0, False),
    ],
)
def test_pods_on_lost_nodes(conditions: dict[str, Any], deleting_for: float | None, lost: bool) -> None:
    found = lost_pods([pod(conditions=conditions, deleting_for=deleting_for)], NOW.timestamp())
    assert found == (("x-a1-worker",) if lost else ())


def test_the_exit_code_is_read_from_the_message_and_a_driver_that_was_ended_is_explained_by_its_pod() -> None:
    failed = rayjob("Failed", "FAILED", reason="AppFailed", message="Job entrypoint command failed with exit code 137, last available logs:\nbye")
    assert job_of(failed, [], {}, NOW.timestamp()).exit_code == 137
    ended = JobError(failure_class="infrastructure", message="a worker died")
    assert classify(job_of(failed, [KILLED], {}, NOW.timestamp()), ended)[0] == "out_of_memory"
    assert classify(job_of(failed, [HEALTHY], {}, NOW.timestamp()), ended) == ("infrastructure", "a worker died")
    assert classify(job_of(failed, [KILLED], {}, NOW.timestamp()), JobError(failure_class="data", message="bad"))[0] == "data"
