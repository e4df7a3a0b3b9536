"""What a cluster has now, from the documents that its API server shows; and from a server that refuses, is silent or lacks the queue."""

import math
from pathlib import Path
from typing import Any

import pytest

from orchestration.launching.effects import Denied, Unreachable
from orchestration.launching.kuberay.api import Gone, Kubernetes
from orchestration.placement.live import KubernetesOffer, quotas, requested, rooms, usable
from orchestration.placement.offers import Offer, Room

GPU = "nvidia.com/gpu"
Object = dict[str, Any]


def node(name: str = "n", gpus: int = 8, memory: str = "512Gi", labels: Object | None = None, **spec: Any) -> Object:
    status = {"allocatable": {GPU: str(gpus), "cpu": "63500m", "memory": memory}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec, "status": status}


def pod(on: str | None = "n", gpus: int = 0, memory: str = "0", cpu: str = "0", **spec: Any) -> Object:
    requests = {GPU: str(gpus), "memory": memory, "cpu": cpu}
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"resources": {"requests": requests}}], **({"nodeName": on} if on else {}), **spec}}


TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("which", "of_pod", "is_usable"),
    [
        (node(), {}, True),
        (node(unschedulable=True), {}, False),
        ({**node(), "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, {}, False),
        ({**node(), "status": {}}, {}, False),
        (node(labels={"zone": "a"}), {"nodeSelector": {"zone": "a"}}, True),
        (node(labels={"zone": "b"}), {"nodeSelector": {"zone": "a"}}, False),
        (node(taints=[TAINT]), {}, False),
        (node(taints=[{**TAINT, "effect": "PreferNoSchedule"}]), {}, True),
        (node(taints=[TAINT]), {"tolerations": [{"key": GPU, "operator": "Exists"}]}, True),
        (node(taints=[TAINT]), {"tolerations": [{"operator": "Exists"}]}, True),
        (node(taints=[TAINT]), {"tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoExecute"}]}, False),
        (node(taints=[TAINT]), {"tolerations": [{"key": GPU, "value": "present", "effect": "NoSchedule"}]}, True),
        (node(taints=[TAINT]), {"tolerations": [{"key": GPU, "value": "other"}]}, False),
        (node(taints=[TAINT, {"key": "drained", "effect": "NoExecute"}]), {"tolerations": [{"key": GPU, "operator": "Exists"}]}, False),
    ],
)
def test_which_nodes_the_scheduler_would_consider(which: Object, of_pod: Object, is_usable: bool) -> None:
    assert usable(which, of_pod) is is_usable


def test_what_every_pod_requests_is_not_free() -> None:
    pods = [pod(gpus=3, memory="100Gi"), pod(gpus=1, memory="1024Mi"), pod("other", gpus=8), pod(None, gpus=8), {"metadata": {"name": "bare"}}]
    free, total = rooms([node("n"), node("empty", gpus=4, memory="64Gi"), node("cpus", gpus=0)], pods, GPU)
    assert total == (Room(8, 512), Room(4, 64), Room(0, 512))
    assert free == (Room(4, 411), Room(4, 64), Room(0, 512)), "a pod that has no node yet takes nothing"


def test_half_a_cpu_is_no_cpu_and_too_much_is_nothing() -> None:
    free, total = rooms([node()], [pod(cpu="750m", memory="1000Gi")], "cpu")
    assert (total[0].accelerators, free[0]) == (63, Room(62, 0.0))


def container(memory: str, **more: Any) -> Object:
    return {"resources": {"requests": {"memory": memory}}, **more}


@pytest.mark.parametrize(
    ("spec", "bytes_"),
    [
        ({"containers": [container("100"), container("50"), {"name": "asks for nothing"}]}, 150),
        ({"containers": [container("100")], "initContainers": [container("300")]}, 300),
        ({"containers": [container("100")], "initContainers": [container("20", restartPolicy="Always"), container("90")]}, 120),
        ({"containers": [container("100")], "initContainers": [container("20", restartPolicy="Always"), container("300")]}, 320),
        ({"containers": [container("1k")], "overhead": {"memory": "24"}}, 1024),
    ],
)
def test_what_the_scheduler_sets_aside_for_a_pod(spec: Object, bytes_: float) -> None:
    assert requested({"spec": spec}, "memory") == bytes_


def cluster_queue(status: Object | None = None, **quota: Any) -> Object:
    cpu = {"name": "cpu", "resources": [{"name": "cpu", "nominalQuota": "8"}, {"name": "memory", "nominalQuota": "64Gi"}]}
    gpu = {"name": "gpu", "resources": [{"name": "cpu", "nominalQuota": "8"}, {"name": GPU, "nominalQuota": "4"}, *quota.get("more", [])]}
    return {"spec": {"resourceGroups": [{"flavors": [cpu, gpu]}]}, "status": status or {}}


def test_a_quota_is_what_is_left_of_each_flavor() -> None:
    reserved = [{"name": "gpu", "resources": [{"name": GPU, "total": "3"}, {"name": "cpu", "total": "2"}]}, {"name": "cpu", "resources": []}]
    queue = cluster_queue({"flavorsReservation": reserved, "pendingWorkloads": 2}, more=[{"name": "memory", "nominalQuota": "100Gi"}])
    assert quotas(queue, GPU) == ((Room(1, 100),), (Room(4, 100),), 2)
    assert quotas(cluster_queue(), GPU) == ((Room(4, math.inf),), (Room(4, math.inf),), 0)
    assert quotas(cluster_queue(), "cpu")[1] == (Room(8, 64), Room(8, math.inf))
    assert quotas(cluster_queue(), "google.com/tpu") == ((), (), 0), "a queue without it never gives one"


class Api:
    """What the API server answers, or how it does not."""

    def __init__(self, queue: Object | Exception, pods: list[Object] | Exception = []):  # noqa: B006 - never changed
        self.queue, self.pods = queue, pods

    def nodes(self) -> list[Object]:
        return [node()]

    def pods_of_all(self) -> list[Object]:
        if isinstance(self.pods, Exception):
            raise self.pods
        return self.pods

    def local_queue(self, name: str) -> Object:
        if isinstance(self.queue, Exception):
            raise self.queue
        return {"spec": {"clusterQueue": "flywheel"}}

    def cluster_queue(self, name: str) -> Object:
        assert name == "flywheel" and not isinstance(self.queue, Exception)
        return self.queue


def completed(api: Api) -> Offer:
    return KubernetesOffer(lambda: api, GPU, {}, "daily").complete(Offer("x", "eu", "H100", 3.0))  # type: ignore[arg-type,return-value]


def test_without_credentials_it_is_silent_too(tmp_path: Path) -> None:
    source = KubernetesOffer(lambda: Kubernetes("robots", tmp_path / "none"), GPU, {}, None)
    assert "set kubeconfig and context" in source.complete(Offer("x", "eu", "H100", 3.0)).silent


def test_an_offer_is_completed() -> None:
    found = completed(Api(cluster_queue(), [pod(gpus=2)]))
    assert not found.silent and found.free == (Room(6, 512),) and found.quota == (Room(4),) and found.price == 3.0


@pytest.mark.parametrize(
    ("api", "said"),
    [
        (Api(cluster_queue(), Unreachable("the API server does not answer")), "does not answer"),
        (Api(cluster_queue(), Denied("not allowed (403)")), "403"),
        (Api(Gone("localqueues daily not found")), "its queue daily cannot be read: localqueues daily not found"),
        (
            Api(cluster_queue({"conditions": [{"type": "Active", "status": "False", "message": "it is stopped"}]})),
            "its queue daily is not active: it is stopped",
        ),
    ],
)
def test_a_cluster_that_cannot_be_asked_is_silent_and_no_error(api: Api, said: str) -> None:
    assert said in completed(api).silent
