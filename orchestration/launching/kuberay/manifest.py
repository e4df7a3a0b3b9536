"""The user's RayJob with a thin overlay: the manifest says what a job looks like, the overlay what the protocol needs of it.

No schema of the CRD is repeated here: whatever the manifest says beyond the overlay reaches the API server as it stands. Each line
of the overlay and its reason: docs/launching.md.
"""

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from orchestration.launching.target import labels_of
from orchestration.launching.work import Attempt
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.store import StoreConfig

Object = dict[str, Any]
PREFIX = "robot-flywheel/"  # of our labels and annotations
NAME_LABEL = PREFIX + "name"
DEPLOYMENT_LABEL = PREFIX + "deployment"

# What is set where the manifest says nothing.
SPEC_DEFAULTS: Object = {
    "submissionMode": "HTTPMode",  # no submitter pod to lose, and a head that died gets its job again
    "backoffLimit": 0,  # the step alone retries
    "shutdownAfterJobFinishes": True,
    "ttlSecondsAfterFinished": 300,  # should nobody come to delete it
}
ENVIRONMENT = {
    "RAY_grpc_client_keepalive_time_ms": "10000",  # a node whose packets vanish: seen in 20 s, not in 2 minutes
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default of 2 s loses reported checkpoints
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}
GRACE_S = 3  # of a pod: a cancelled job is gone within ten seconds
LOST_AFTER_S = 10  # that a pod is kept on a node of which nothing is heard
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def read_manifest(path: Path) -> Object:
    """A RayJob from YAML. Raises UserError with what is wrong with the file."""
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read the RayJob manifest {path}: {error.strerror}; correct `manifest` of the target") from error
    except yaml.YAMLError as error:
        raise UserError(f"the RayJob manifest {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or document.get("kind") != "RayJob" or "rayClusterSpec" not in (document.get("spec") or {}):
        raise UserError(f"{path} is not one RayJob with a rayClusterSpec: start from one of deploy/rayjobs/")
    return document


def rayjob(
    manifest: Object, attempt: Attempt, store: StoreConfig, code_uri: str, *, queue: str | None = None, priority: str | None = None, secret: str | None = None
) -> Object:
    """The manifest as this attempt's RayJob. Secrets are named, never written: `secret` is the Secret that holds the stores' keys."""
    made = copy.deepcopy(manifest)
    spec = made["spec"]
    meta = made.setdefault("metadata", {})
    meta["name"] = attempt.name
    labels = {DEPLOYMENT_LABEL: attempt.deployment, NAME_LABEL: attempt.name}
    meta["labels"] = {**(meta.get("labels") or {}), **labels}
    if queue:
        meta["labels"]["kueue.x-k8s.io/queue-name"] = queue
    if priority:
        meta["labels"]["kueue.x-k8s.io/priority-class"] = priority
    meta["annotations"] = {
        **(meta.get("annotations") or {}),
        **{PREFIX + key: value for key, value in labels_of(attempt).items()},
        PREFIX + "code": attempt.code,
    }
    if queue and spec["rayClusterSpec"].get("enableInTreeAutoscaling"):  # refused without; and without a queue, its pods are held for ever
        meta["annotations"].setdefault("kueue.x-k8s.io/elastic-job", "true")
    for key, value in SPEC_DEFAULTS.items():
        spec.setdefault(key, value)
    deadline = float(attempt.config.get("deadline_s", 3600.0))
    spec.setdefault("activeDeadlineSeconds", int(deadline) + 600)  # behind the driver's own deadline and the launcher's
    command = ["python", "-m", "ray_jobs.guard", attempt.module, "--attempt", attempt.key, "--store", store.model_dump_json()]
    spec["entrypoint"] = shlex.join(command)
    environment = yaml.safe_load(spec.get("runtimeEnvYAML") or "{}") or {}
    spec["runtimeEnvYAML"] = json.dumps({**environment, "working_dir": code_uri})
    if attempt.resources.num_cpus:
        spec["entrypointNumCpus"] = attempt.resources.num_cpus
    cluster = spec["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster.get("workerGroupSpecs") or []
    for group in [head, *workers]:
        _overlay_pod(group.setdefault("template", {}), labels, store, secret, attempt.resources.memory)
        group["template"]["spec"]["containers"][0].setdefault("readinessProbe", _is_ready(group.get("rayStartParams") or {}))
    for group in workers:
        pod = group["template"]["spec"]
        pod["initContainers"] = [*(pod.get("initContainers") or []), _waits_for_head(pod["containers"][0], head.get("rayStartParams") or {})]
    if "submitterPodTemplate" in spec:
        _overlay_pod(spec["submitterPodTemplate"], labels, store, secret, None)
    return made


def _overlay_pod(template: Object, labels: dict[str, str], store: StoreConfig, secret: str | None, memory: int | None) -> None:
    meta = template.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), **labels}
    pod = template.setdefault("spec", {})
    pod.setdefault("terminationGracePeriodSeconds", GRACE_S)
    tolerations = pod.setdefault("tolerations", [])
    for taint in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(each.get("key") == taint for each in tolerations):
            tolerations.append({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_AFTER_S})
    container = pod["containers"][0]
    env = container.setdefault("env", [])
    given = {each["name"] for each in env}
    env += [each for each in _environment(store, secret) if each["name"] not in given]
    if secret:
        container.setdefault("envFrom", []).append({"secretRef": {"name": secret}})
    resources = container.setdefault("resources", {})
    limits, requests = resources.setdefault("limits", {}), resources.setdefault("requests", {})
    if memory is not None and "memory" in limits and quantity_bytes(limits["memory"]) < memory:
        limits["memory"] = str(memory)
    if "memory" in limits:
        requests["memory"] = limits["memory"]  # what may be used is set aside: a node is never out of memory because of somebody else


def _is_ready(started: dict[str, str]) -> Object:
    """KubeRay gives a job to its cluster when all pods are ready, and by itself looks for that after ten seconds and then every five."""
    port = str(started.get("dashboard-agent-listen-port", ""))
    asked = {"path": "/api/healthz", "port": int(port) if port.isdigit() else 52365}  # as KubeRay reads it
    return {"httpGet": asked, "initialDelaySeconds": 3, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 25}


def _waits_for_head(container: Object, started: dict[str, str]) -> Object:
    """An init container of a worker, whose head is `started` with these parameters: until its port is open at FQ_RAY_IP, which KubeRay sets.

    KubeRay's own asks by `ray health-check`: three seconds of CPU each time, of which it may use a fifth, 15 s for a head that is there.
    """
    same: Object = {key: container[key] for key in ("image", "imagePullPolicy", "securityContext") if key in container}
    port = started.get("port", "6379")
    script = f'until timeout 5 bash -c ": > /dev/tcp/$FQ_RAY_IP/{port}" 2> /dev/null; do sleep 1; done'
    few = {"memory": "32Mi"}
    return {"name": "head-is-up", **same, "command": ["bash", "-c", script], "resources": {"requests": {"cpu": "10m", **few}, "limits": few}}


def _environment(store: StoreConfig, secret: str | None) -> list[Object]:
    """What every Ray container sees: Ray's settings, and where Ray itself finds the code archive (its S3 client knows AWS_* alone)."""
    plain = dict(ENVIRONMENT)
    if store.endpoint:
        plain["AWS_ENDPOINT_URL"] = store.endpoint
    if store.region:
        plain["AWS_DEFAULT_REGION"] = store.region
    made: list[Object] = [{"name": name, "value": value} for name, value in plain.items()]
    if secret and store.credentials:
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            made.append({"name": f"AWS_{name}", "valueFrom": {"secretKeyRef": {"name": secret, "key": f"{store.credentials}_{name}"}}})
    return made


def quantity_bytes(quantity: str | int) -> int:
    """Bytes of a Kubernetes quantity: 512Mi, 2G, 1.5Gi, 1073741824. Source: the quantity grammar of the Kubernetes API."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity))
    if not found or found.group(2) not in _UNITS:
        raise UserError(f"the manifest's memory limit {quantity!r} is not a quantity that is understood")
    return int(float(found.group(1)) * _UNITS[found.group(2)])
