"""What a KubeRay target has now: room on its nodes beside every pod that is there, Ray's or not, and what is left of its queue's quota."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from orchestration.launching.effects import InvalidSpec, Unreachable
from orchestration.launching.kuberay.api import Gone, Kubernetes
from orchestration.placement.offers import Offer, Room

Object = dict[str, Any]
GIB = 2**30


class KubernetesOffer:
    """A source: `resource` is what Kubernetes counts as accelerators, `pod` the spec of the manifest's workers, `queue` its LocalQueue."""

    def __init__(self, connect: Callable[[], Kubernetes], resource: str, pod: Object, queue: str | None):
        self.connect, self.resource, self.pod, self.queue = connect, resource, pod, queue

    def complete(self, offer: Offer) -> Offer:
        """Never raises for a cluster that does not answer, or that there are no credentials for: it is silent, and says why."""
        try:
            api = self.connect()
            nodes = [node for node in api.nodes() if usable(node, self.pod)]
            free, total = rooms(nodes, api.pods_of_all(), self.resource)
            found = replace(offer, free=free, total=total)
            return self._with_queue(found, api, self.queue) if self.queue else found
        except (Unreachable, InvalidSpec) as error:
            return replace(offer, silent=str(error))

    def _with_queue(self, offer: Offer, api: Kubernetes, queue: str) -> Offer:
        try:
            local = api.local_queue(queue)
            cluster = api.cluster_queue(local["spec"]["clusterQueue"])
        except Gone as error:
            return replace(offer, silent=f"its queue {queue} cannot be read: {error}")
        stopped = next((each for each in (cluster.get("status") or {}).get("conditions") or [] if each["type"] == "Active" and each["status"] != "True"), None)
        if stopped:
            return replace(offer, silent=f"its queue {queue} is not active: {stopped.get('message') or stopped.get('reason')}")
        free, quota, waiting = quotas(cluster, self.resource)
        return replace(offer, quota_free=free, quota=quota, waiting=waiting)


def usable(node: Object, pod: Object) -> bool:
    """Would the scheduler consider the node for such a pod? Readiness, cordon, nodeSelector, taints; affinities are not looked at."""
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in (node.get("status") or {}).get("conditions") or [])
    spec, labels = node.get("spec") or {}, node["metadata"].get("labels") or {}
    if not ready or spec.get("unschedulable"):
        return False
    if any(labels.get(key) != value for key, value in (pod.get("nodeSelector") or {}).items()):
        return False
    bad = [taint for taint in spec.get("taints") or [] if taint["effect"] in ("NoSchedule", "NoExecute")]
    return all(any(_tolerates(each, taint) for each in pod.get("tolerations") or []) for taint in bad)


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and (toleration.get("value") or "") == (taint.get("value") or "")


def rooms(nodes: Iterable[Object], pods: Iterable[Object], resource: str) -> tuple[tuple[Room, ...], tuple[Room, ...]]:
    """(free, total) room of each node. What a pod requests is taken from its node, whoever made the pod."""
    used: dict[str, tuple[float, float]] = {}
    for pod in pods:
        if name := (pod.get("spec") or {}).get("nodeName"):
            before = used.get(name, (0.0, 0.0))
            used[name] = (before[0] + requested(pod, resource), before[1] + requested(pod, "memory"))
    free, total = [], []
    for node in nodes:
        has = (node.get("status") or {}).get("allocatable") or {}
        accelerators, memory = _number(has.get(resource)), _number(has.get("memory"))
        taken = used.get(node["metadata"]["name"], (0.0, 0.0))
        total.append(Room(math.floor(accelerators), memory / GIB))
        free.append(Room(max(0, math.floor(accelerators - taken[0])), max(0.0, memory - taken[1]) / GIB))
    return tuple(free), tuple(total)


def requested(pod: Object, resource: str) -> float:
    """What the scheduler sets aside for the pod. Source: Kubernetes, "Resource sharing within containers" and sidecar containers.

    The containers and sidecars together, or an init container beside the sidecars before it, whichever is more; and the overhead.
    """
    spec = pod.get("spec") or {}

    def of(container: Object) -> float:
        return _number(((container.get("resources") or {}).get("requests") or {}).get(resource))

    beside, most = 0.0, 0.0
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            beside += of(container)
        else:
            most = max(most, beside + of(container))
    return max(most, beside + sum(of(each) for each in spec.get("containers") or [])) + _number((spec.get("overhead") or {}).get(resource))


def quotas(queue: Object, resource: str) -> tuple[tuple[Room, ...], tuple[Room, ...], int]:
    """(free, quota, waiting) of a ClusterQueue: a room for each flavor that has the resource. What its cohort may lend is not counted."""
    status = queue.get("status") or {}
    reserved = {
        (flavor["name"], each["name"]): _number(each.get("total"))
        for flavor in status.get("flavorsReservation") or []
        for each in flavor.get("resources") or []
    }
    free, quota = [], []
    for group in queue["spec"].get("resourceGroups") or []:
        for flavor in group["flavors"]:
            nominal = {each["name"]: _number(each["nominalQuota"]) for each in flavor["resources"]}
            if resource not in nominal:
                continue
            left = {name: max(0.0, value - reserved.get((flavor["name"], name), 0.0)) for name, value in nominal.items()}
            quota.append(_room(nominal, resource))
            free.append(_room(left, resource))
    return tuple(free), tuple(quota), int(status.get("pendingWorkloads") or 0)


def _room(amounts: dict[str, float], resource: str) -> Room:
    return Room(math.floor(amounts[resource]), amounts["memory"] / GIB if "memory" in amounts else math.inf)


def _number(quantity: object) -> float:
    return float(parse_quantity(quantity)) if quantity is not None else 0.0
