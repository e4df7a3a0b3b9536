"""A handle on the real cluster under test: what tests ask of it beside the launcher, and how they count what it did."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from kubernetes.client import ApiClient, CoreV1Api, CustomObjectsApi
from kubernetes.config import new_client_from_config

from ray_jobs.seam.store import StoreConfig

T = TypeVar("T")
BUDGET_S = 360.0  # a budget is for what never comes: the same machine was seen half as fast from one hour to the next
NAMESPACE = "robots"  # of deploy/rbac.yaml
CREDENTIALS = "STORE"  # prefix of the variables that hold the store's keys, here and in pods
COMPUTE_CREDENTIALS = "COMPUTE"  # the same for the store near the training cluster: another cloud, other keys
SECRET = "stores"  # the Secret with the jobs' keys


@dataclass(frozen=True)
class Cluster:
    """`kubeconfig` of an administrator; `launcher` of the service account that the launcher has in deploy/.

    `created(since)`: (name, uid) of every RayJob that was ever created since. Dagster and jobs have different keys where that can be.
    """

    kubectl: str
    kubeconfig: Path
    namespace: str
    store: StoreConfig
    raw: StoreConfig
    compute: StoreConfig
    keys_of_jobs: dict[str, str]
    created: Callable[[datetime], Iterable[tuple[str, str]]]
    launcher: Path = Path()

    @contextmanager
    def access(self) -> Iterator["Cluster"]:
        """The same with the launcher's own kubeconfig: the administrator's, with that account's token."""
        document = json.loads(self("config", "view", "--minify", "--flatten", "--raw", "-o", "json"))
        token = self("create", "token", "launcher", "--duration=6h").strip()
        document["users"] = [{"name": "launcher", "user": {"token": token}}]
        document["contexts"][0]["context"]["user"] = "launcher"
        with tempfile.NamedTemporaryFile("w", suffix=".kubeconfig") as file:
            json.dump(document, file)
            file.flush()
            yield replace(self, launcher=Path(file.name))

    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True, namespace: str | None = None) -> str:
        """kubectl as administrator; its output."""
        command = [self.kubectl, "--kubeconfig", str(self.kubeconfig), "-n", namespace or self.namespace, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *documents: dict[str, Any]) -> None:
        self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)}))

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Of `rayjobs`, `pods` or `events`. Not by kubectl: tests look several times a second, and each look would be a process."""
        options = {"label_selector": selector, "_request_timeout": 60}
        if kind == "rayjobs":
            found = CustomObjectsApi(self._api).list_namespaced_custom_object("ray.io", "v1", self.namespace, kind, **options)
        else:
            core = CoreV1Api(self._api)
            ask = {"pods": core.list_namespaced_pod, "events": core.list_namespaced_event}[kind]
            found = json.loads(ask(self.namespace, _preload_content=False, **options).data)
        return list(found["items"])

    @cached_property
    def _api(self) -> ApiClient:
        return new_client_from_config(str(self.kubeconfig))

    def rayjobs(self, prefix: str) -> list[dict[str, Any]]:
        return [item for item in self.items("rayjobs") if item["metadata"]["name"].startswith(prefix)]

    def pods(self, prefix: str) -> list[dict[str, Any]]:
        return [item for item in self.items("pods") if item["metadata"]["labels"].get("robot-flywheel/name", "").startswith(prefix)]

    def pod(self, prefix: str, kind: str) -> str:
        """The name of the one running pod of this kind (head, worker)."""
        return until(
            lambda: [p["metadata"]["name"] for p in self.pods(prefix) if p["metadata"]["labels"]["ray.io/node-type"] == kind and running(p)], f"{kind} pod"
        )[0]

    def left(self, prefix: str) -> list[str]:
        return [item["metadata"]["name"] for item in [*self.rayjobs(prefix), *self.pods(prefix)]]


def running(pod: dict[str, Any]) -> bool:
    return pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def ready(pod: dict[str, Any]) -> bool:
    """Its Ray node has joined: what KubeRay's own readiness probe asks."""
    return running(pod) and any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))


def until(condition: Callable[[], T], what: str, budget_s: float = BUDGET_S) -> T:
    """Wait for a condition within a budget; its value, or an assertion that says what did not happen."""
    began = time.monotonic()
    while True:
        if value := condition():
            return value
        waited = time.monotonic() - began
        assert waited < budget_s, f"{what}: not within {budget_s:.0f} s"
        time.sleep(min(1.0, max(0.2, waited / 20)))  # who waits for long asks less often: asking costs what is waited for
