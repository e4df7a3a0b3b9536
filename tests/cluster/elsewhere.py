"""Another cluster than the testbed: `KUBECONFIG=… make test-cluster`, with KubeRay (and Kueue) installed and an administrator's context.

FLYWHEEL_TEST_IMAGE            the Ray image of deploy/images, as its nodes pull it
FLYWHEEL_TEST_STORE            an object store that both see, as JSON: {"url": "s3://bucket/prefix", "endpoint": …, "region": …}
STORE_ACCESS_KEY_ID, STORE_SECRET_ACCESS_KEY
"""

import os
import subprocess
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_jobs.seam.store import StoreConfig
from testbed import audit
from tests.cluster.cluster import COMPUTE_CREDENTIALS, CREDENTIALS, NAMESPACE, Cluster

SIZES = {"ray-head": "3Gi", "ray-worker": "2Gi"}


def asked() -> bool:
    return bool(os.environ.get("KUBECONFIG"))


def cluster() -> Cluster:
    wanted = ["FLYWHEEL_TEST_IMAGE", "FLYWHEEL_TEST_STORE", f"{CREDENTIALS}_ACCESS_KEY_ID", f"{CREDENTIALS}_SECRET_ACCESS_KEY"]
    if missing := [name for name in wanted if not os.environ.get(name)]:
        pytest.exit(f"KUBECONFIG is set, so the tests run on that cluster, and need {', '.join(missing)} (tests/cluster/elsewhere.py)", 2)
    store = StoreConfig.model_validate_json(os.environ["FLYWHEEL_TEST_STORE"]).model_copy(update={"credentials": CREDENTIALS})
    for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        os.environ[f"{COMPUTE_CREDENTIALS}_{part}"] = os.environ[f"{CREDENTIALS}_{part}"]

    def below(name: str) -> StoreConfig:
        return store.model_copy(update={"url": f"{store.url}/{name}"})

    keys = {f"{who}_{part}": os.environ[f"{who}_{part}"] for who in (CREDENTIALS, COMPUTE_CREDENTIALS) for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
    kubeconfig = Path(os.environ["KUBECONFIG"])
    return Cluster("kubectl", kubeconfig, NAMESPACE, below("store"), below("raw"), below("compute"), keys, _Created(kubeconfig))


class _Created:
    """What a watch has seen of RayJobs since the session began: the audit log of a cluster of others is not ours to read."""

    def __init__(self, kubeconfig: Path):
        self.seen: list[tuple[datetime, str, str]] = []
        columns = "custom-columns=NAME:.metadata.name,UID:.metadata.uid"
        command = ["kubectl", "--kubeconfig", str(kubeconfig), "-n", NAMESPACE, "get", "rayjobs", "--watch", "--no-headers", "-o", columns]
        self.watch = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.watch.stdout is not None
        for line in self.watch.stdout:
            name, uid = line.split()
            if uid not in {known for _, _, known in self.seen}:
                self.seen.append((audit.now(), name, uid))

    def __call__(self, since: datetime) -> list[tuple[str, str]]:
        return [(name, uid) for at, name, uid in self.seen if at >= since]


def manifest(path: Path) -> dict[str, Any]:
    """A RayJob of deploy/rayjobs with the image of the tests and small sizes; no GPU is asked of Kubernetes."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    spec = document["spec"]["rayClusterSpec"]
    for group in [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]:
        for container in group["template"]["spec"]["containers"]:
            container["image"] = os.environ["FLYWHEEL_TEST_IMAGE"]
            container["resources"] = {"requests": {"cpu": "500m"}, "limits": {"memory": SIZES[container["name"]]}}
        if int(group["rayStartParams"]["num-cpus"]):
            group["rayStartParams"]["num-cpus"] = "2" if group is spec["headGroupSpec"] else "1"
    return document
