"""Somebody else's work in a Kueue queue. It has no pods: what counts is the room that Kueue gives away."""

import json

from tests.cluster.cluster import Cluster

WORKLOADS = "workloads.kueue.x-k8s.io"


def take(cluster: Cluster, queue: str, name: str, requests: dict[str, str], priority: str | None = None) -> None:
    """Ask for room in the cluster's namespace, and hold it until the Workload `name` is deleted. `priority`: a WorkloadPriorityClass of value 1000."""
    container = {"name": "theirs", "image": "theirs", "resources": {"requests": requests}}
    pods = [{"name": "main", "count": 1, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}]
    spec = {"queueName": queue, "podSets": pods}
    if priority:
        spec |= {"priority": 1000, "priorityClassRef": {"group": "kueue.x-k8s.io", "kind": "WorkloadPriorityClass", "name": priority}}
    cluster.apply({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": {"name": name}, "spec": spec})


def admitted(cluster: Cluster, name: str) -> bool:
    found = json.loads(cluster("get", WORKLOADS, name, "-o", "json"))
    return any(each["type"] == "Admitted" and each["status"] == "True" for each in (found.get("status") or {}).get("conditions", []))
