"""What a RayJob's status and its pods mean: pure functions from what the API server shows to a phase, a note and a failure class.

The deployment status is read before the job status, for KubeRay leaves the two in contradiction (Failed with RUNNING after a deadline,
kuberay#2314; both cleared on suspend and retry). docs/launching.md has the same as a table.
"""

import re
from datetime import datetime
from typing import Any

from orchestration.launching.effects import Job, Phase
from orchestration.launching.kuberay.manifest import PREFIX, quantity_bytes
from ray_jobs.seam.errors import FailureClass

Object = dict[str, Any]
OVERDUE_S = 10.0  # past its grace period, a pod whose node is well is gone

_ENDED: dict[str, Phase] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}

# jobDeploymentStatus -> phase, where the job's own status does not decide
_DEPLOYMENT: dict[str, Phase] = {
    "": "starting",
    "Initializing": "starting",
    "Waiting": "starting",
    "Retrying": "starting",
    "Suspending": "queued",
    "Suspended": "queued",
    "ValidationFailed": "failed",
    "Failed": "failed",
}

_REASONS: dict[str, FailureClass] = {
    "ValidationFailed": "invalid_spec",
    "PreRunningDeadlineExceeded": "capacity",
    "DeadlineExceeded": "user",  # activeDeadlineSeconds: it had all its time
    "SubmissionFailed": "infrastructure",
    "JobDeploymentStatusTransitionGracePeriodExceeded": "infrastructure",
    "JobStatusCheckTimeoutExceeded": "infrastructure",
}

_PREEMPTING = frozenset({"PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI", "TerminationByKubelet", "DeletionByPodGC"})
_UNPULLED = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_UNCREATED = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_EXIT = re.compile(r"exit (?:code|status) (-?\d+)")


def job_of(resource: Object, pods: list[Object], events: dict[str, list[Object]], now: float) -> Job:
    """The RayJob as the protocol sees it. `events`: by the name of the object they are about, oldest first. `now`: seconds since 1970."""
    status = resource.get("status") or {}
    meta = resource["metadata"]
    phase = phase_of(resource)
    seen = [pod_note(pod, events.get(pod["metadata"]["name"], [])) for pod in pods]
    notes, failures = [note for note, _ in seen if note], [failure for _, failure in seen if failure]
    message, reason = str(status.get("message") or ""), str(status.get("reason") or "")
    failure: FailureClass | None = None
    if phase in ("queued", "starting"):
        note = "; ".join(notes[:2]) or waiting_note(resource, events.get(meta["name"], []))
        failure = "capacity" if "capacity" in failures or (phase == "starting" and cluster_note(resource)) else None
    else:
        note = "; ".join(notes[:2])
    if phase == "failed":
        failure = _REASONS.get(reason)
    if "out_of_memory" in failures:
        failure = "out_of_memory"
    elif failure is None and phase != "succeeded" and "preempted" in failures:
        failure = "preempted"
    if meta.get("deletionTimestamp"):
        note = note or "it is being deleted"
    code = _EXIT.search(message)
    return Job(
        name=meta["name"],
        uid=meta["uid"],
        phase=phase,
        labels={key.removeprefix(PREFIX): value for key, value in (meta.get("annotations") or {}).items() if key.startswith(PREFIX)},
        message=message,
        error_type="RUNTIME_ENV_SETUP_FAILURE" if "runtime_env" in message.lower() and "fail" in message.lower() else reason,
        exit_code=int(code.group(1)) if code else None,
        note=note,
        failure=failure,
        lost=lost_pods(pods, now),
        memory=max((_bytes(pod) for pod in pods), default=0),
    )


def phase_of(resource: Object) -> Phase:
    """Deployment status first, then the job's own. A RayJob that is being deleted is at work until it is gone: its pods may be."""
    status = resource.get("status") or {}
    deployment, job = str(status.get("jobDeploymentStatus") or ""), str(status.get("jobStatus") or "")
    if resource["metadata"].get("deletionTimestamp"):
        return "running"
    if deployment == "" and (resource.get("spec") or {}).get("suspend"):
        return "queued"
    if deployment in _DEPLOYMENT:
        return _DEPLOYMENT[deployment]
    if deployment in ("Running", "Complete"):
        if job in _ENDED:
            return _ENDED[job]
        if deployment == "Complete":
            return "failed"
        return "running" if job == "RUNNING" else "starting"
    return "queued"  # a status of a later KubeRay is no failure: it waits, within its budget


def waiting_note(resource: Object, events: list[Object]) -> str:
    """What a RayJob without a telling pod waits for: the queue, or pods that cannot be made."""
    queue = (resource["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    if phase_of(resource) == "queued" and queue:
        told = [event for event in events if event.get("reason") in ("Pending", "Preempted", "Stopped", "Suspended", "EvictedDueToPreempted")]
        return f"it waits in the queue {queue}" + (f" ({_said(told[-1])})" if told else "")
    return cluster_note(resource)


def cluster_note(resource: Object) -> str:
    """Why the RayCluster has no pods, where KubeRay says so: a quota, an admission webhook (kuberay#2182)."""
    conditions = ((resource.get("status") or {}).get("rayClusterStatus") or {}).get("conditions") or []
    for condition in conditions:
        if condition.get("type") == "RayClusterReplicaFailure" and condition.get("status") == "True":
            return f"pods cannot be made: {_short(condition.get('message'))}"
    return ""


def pod_note(pod: Object, events: list[Object]) -> tuple[str, FailureClass | None]:
    """One line about a pod that is not well, and the class of failure that it would be. ("", None): nothing to say."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    for container in status.get("containerStatuses") or []:
        for ended in (container.get("state", {}).get("terminated"), container.get("lastState", {}).get("terminated")):
            if ended and ended.get("reason") == "OOMKilled":
                return f"{name}: its container {container['name']} ran out of memory ({_limit(pod, container['name'])})", "out_of_memory"
    if is_lost(pod):
        return f"{name}: its node {pod.get('spec', {}).get('nodeName')} is lost", "preempted"
    disrupted = conditions.get("DisruptionTarget", {})
    if disrupted.get("status") == "True" and disrupted.get("reason") in _PREEMPTING:
        return f"{name}: {disrupted['reason']}: {_short(disrupted.get('message'))}", "preempted"
    if status.get("reason") == "Evicted":
        return f"{name}: evicted: {_short(status.get('message'))}", "preempted"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _UNPULLED | _UNCREATED:
            kind: FailureClass = "capacity" if waiting["reason"] in _UNPULLED else "invalid_spec"
            return f"{name}: {waiting['reason']}: {_last_warning(events) or _short(waiting.get('message'))}", kind
    scheduled = conditions.get("PodScheduled", {})
    if status.get("phase") == "Pending" and scheduled.get("status") == "False":
        return f"{name}: {scheduled.get('reason', 'Unschedulable')}: {_last_warning(events) or _short(scheduled.get('message'))}", "capacity"
    return "", None


def is_lost(pod: Object) -> bool:
    """Nothing is heard of the pod's node: the node controller has written Ready=False while the kubelet's last word is that all is well."""
    status = pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    ready = conditions.get("Ready", {})
    unheard = ready.get("status") == "False" and not ready.get("reason") and conditions.get("ContainersReady", {}).get("status") == "True"
    return unheard or status.get("reason") == "NodeLost"


def lost_pods(pods: list[Object], now: float) -> tuple[str, ...]:
    """Pods that were asked to go and cannot, for nobody at their node hears it: they hold their place until they are given up."""
    lost = []
    for pod in pods:
        asked = pod["metadata"].get("deletionTimestamp")  # the request's time and the grace period
        if asked and (is_lost(pod) or now - datetime.fromisoformat(asked).timestamp() > OVERDUE_S):
            lost.append(pod["metadata"]["name"])
    return tuple(sorted(lost))


def at_work(pods: list[Object]) -> bool:
    """Does any container of these pods possibly run?"""
    return any((pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") for pod in pods)


def unwell(pod: Object) -> bool:
    """Is it worth asking for this pod's events?"""
    return (pod.get("status") or {}).get("phase") == "Pending"


def _bytes(pod: Object) -> int:
    """The largest memory limit of the pod's containers; 0 without any."""
    limits = [each.get("resources", {}).get("limits", {}).get("memory") for each in pod.get("spec", {}).get("containers", [])]
    return max((quantity_bytes(limit) for limit in limits if limit), default=0)


def _limit(pod: Object, container: str) -> str:
    for each in pod.get("spec", {}).get("containers", []):
        if each["name"] == container:
            return f"limit {each.get('resources', {}).get('limits', {}).get('memory', 'unset')}"
    return "limit unknown"


def _last_warning(events: list[Object]) -> str:
    warnings = [event for event in events if event.get("type") == "Warning"]
    return _said(warnings[-1]) if warnings else ""


def _said(event: Object) -> str:
    return f"{event.get('reason')}: {_short(event.get('message'))}"


def _short(text: object) -> str:
    return " ".join(str(text or "no reason given").split())[:300]
