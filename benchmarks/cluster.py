"""The project's testbed as the benchmarks use it: the deployment's settings on it, the same small RayJob for everybody, and its audit log."""

import contextlib
import json
import os
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from orchestration.launching.kuberay.manifest import NAME_LABEL, rayjob, read_manifest
from orchestration.launching.work import Attempt, Resources
from ray_jobs.seam.store import Store, StoreConfig

ROOT = Path(__file__).parents[1]
NAMESPACE, CREDENTIALS, SECRET = "bench", "BENCH", "stores"  # a namespace of our own: all that is in it may be deleted
TARGET = {"kind": "kuberay", "namespace": NAMESPACE, "secret": SECRET}


@dataclass(frozen=True)
class Cluster:
    """A running testbed. `manifest` is deploy/rayjobs/small.yaml for it, with the checkout mounted: the tiny jobs are no part of the code archive."""

    kubectl: Path
    admin: Path
    launcher: Path
    manifest: Path
    bridge: str
    config: StoreConfig
    folder: Path

    @property
    def store(self) -> Store:
        return Store(self.config)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl as administrator; its output."""
        command = [str(self.kubectl), "--kubeconfig", str(self.admin), "-n", NAMESPACE, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def apply(self, *documents: dict[str, Any]) -> None:
        self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)}))

    def settings(self, **target: Any) -> dict[str, str]:
        """The environment of a process whose deployment launches on this cluster; `target` adds to the target's settings."""
        token = secrets.token_hex(3)
        place = {**TARGET, "kubeconfig": str(self.launcher), "manifest": str(self.manifest), **target}
        document = {"deployment": f"bench-{token}", "home": str(self.folder / token), "store": self.config.model_dump(), "first_day": "2026-01-05"}
        path = self.folder / f"{token}.yaml"
        path.write_text(yaml.safe_dump({**document, "targets": {"cluster": place}, "launch": {"default": "cluster"}}))
        return {"FLYWHEEL_SETTINGS": str(path)}

    def plain(self) -> dict[str, Any]:
        """The RayJob that we would launch, as somebody without us would write it: no name, none of our labels, no archive of code."""
        attempt = Attempt(
            base="plain", number=1, deployment="", asset="", days=(), module="", config={}, code="", generation="", root_run="", run_id="", series="",
            resources=Resources(),
        )  # fmt: skip
        made = rayjob(read_manifest(self.manifest), attempt, self.config, "", secret=SECRET)
        made["metadata"] = {"namespace": NAMESPACE}
        made["spec"] = {**made["spec"], "entrypoint": "true", "runtimeEnvYAML": "{}"}
        for group in [made["spec"]["rayClusterSpec"]["headGroupSpec"], *made["spec"]["rayClusterSpec"].setdefault("workerGroupSpecs", [])]:
            group["template"]["metadata"].pop("labels", None)
        return made

    def left(self, name: str = "") -> int:
        """RayJobs and pods of the job of that name that are there; without a name, of all."""
        items = json.loads(self("get", "rayjobs,pods", "-o", "json"))["items"]
        return sum(not name or name in (item["metadata"]["name"], (item["metadata"].get("labels") or {}).get(NAME_LABEL)) for item in items)

    def clear(self) -> None:
        """Nothing of an earlier measurement is at work."""
        self("delete", "rayjobs", "--all", "--wait=false")
        deadline = time.monotonic() + 120
        while self.left() and time.monotonic() < deadline:
            time.sleep(1)

    def requests(self, agent: str, since: datetime, seconds: float) -> dict[str, int]:
        """verb and resource -> how often it was asked for in that time, in this namespace, by clients whose agent begins so."""
        from testbed import audit

        until = since + timedelta(seconds=seconds)
        asked = [each for each in audit.requests(since, user_agent=agent) if each.at < until and each.namespace == NAMESPACE]
        return dict(Counter(f"{each.verb} {each.resource}" for each in asked))


@contextlib.contextmanager
def collector(address: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(URL, what was put below it, by name): how a job in a pod tells its marks."""
    told: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            told[self.path.strip("/")] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{address}:{server.server_address[1]}", told
    finally:
        server.shutdown()


def find(folder: Path) -> Cluster | None:
    """The testbed that is up, or None after a line that says why there is none to measure on."""
    try:
        from testbed import TestbedError, state
        from testbed.pods import mounts
        from testbed.service_accounts import service_account_kubeconfig
        from tests.cluster.manifests import for_testbed
    except ImportError as error:
        print(f"overhead on a cluster is skipped: there is no testbed here ({error})")
        return None
    try:
        here = state()
    except TestbedError as error:
        print(f"overhead on a cluster is skipped: {error}")
        return None
    document = for_testbed(ROOT / "deploy" / "rayjobs" / "small.yaml")
    del document["spec"]["rayClusterSpec"]["authOptions"]  # for everybody: dagster-ray would need the cluster's token
    checkout = mounts(repository=True)
    pod = document["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    container = pod["containers"][0]
    pod["volumes"] += [each for each in checkout.volumes if each not in pod["volumes"]]
    container["volumeMounts"] += [each for each in checkout.volume_mounts if each not in container["volumeMounts"]]
    container["env"] = [*(each for each in container["env"] if each["name"] != "PYTHONPATH"), {"name": "PYTHONPATH", "value": str(ROOT)}]
    manifest = folder / "small.yaml"
    manifest.write_text(yaml.safe_dump(document))
    keys = here.s3.accounts
    os.environ |= {f"{CREDENTIALS}_ACCESS_KEY_ID": keys["dagster"].access_key, f"{CREDENTIALS}_SECRET_ACCESS_KEY": keys["dagster"].secret_key}
    config = StoreConfig(url="s3://flywheel-store/bench", endpoint=here.s3.endpoint, region=here.s3.region, credentials=CREDENTIALS)
    made = Cluster(here.kubectl, here.kubeconfig, here.kubeconfig, manifest, here.bridge, config, folder)
    try:
        made("get", "--raw", "/readyz")
    except RuntimeError as error:
        print(f"overhead on a cluster is skipped: the testbed does not answer: {str(error)[:200]}")
        return None
    made("apply", "-f", "-", stdin=(ROOT / "deploy" / "rbac.yaml").read_text().replace("robots", NAMESPACE))
    secret = {f"{CREDENTIALS}_ACCESS_KEY_ID": keys["jobs"].access_key, f"{CREDENTIALS}_SECRET_ACCESS_KEY": keys["jobs"].secret_key}
    made.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": secret})
    return replace(made, launcher=service_account_kubeconfig(NAMESPACE, "launcher"))
