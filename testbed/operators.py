"""KubeRay and Kueue, as processes of this machine, and KWOK's pretended nodes."""

import json
import shutil
import urllib.request
from functools import partial
from pathlib import Path

import yaml

from testbed import api
from testbed.build import folder, program
from testbed.credentials import CA, CERTIFICATE, KEY, encoded
from testbed.layout import BRIDGE_ADDRESS, INTERNAL_KUBECONFIG, PKI, REPOSITORY, RUN
from testbed.processes import start, wait_for
from testbed.shell import run, wait_until

_CONFIG = f"--kubeconfig={INTERNAL_KUBECONFIG}"
_KUBERAY_HEALTH, _KUEUE_HEALTH, _KUEUE_WEBHOOKS = 18082, 18091, 9443
# Kueue has webhooks for kinds that are not installed here; the API server would refuse to create what they stand for
_WEBHOOKS = ("workload", "clusterqueue", "localqueue", "resourceflavor", "rayjob", "raycluster", "cohort")


def kubectl(*arguments: object, document: str | None = None) -> str:
    return run(program("kubernetes", "kubectl"), "--kubeconfig", INTERNAL_KUBECONFIG, "--cache-dir", RUN / "kubectl", *arguments, input=document)


def apply_definitions() -> None:
    """The operators' custom resources. Server-side, for they are too large for an annotation."""
    if (RUN / "definitions-are-applied").exists():
        return
    kubectl("apply", "--server-side", "-f", folder("kuberay") / "crds", "-f", folder("kueue") / "crds")
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    (RUN / "definitions-are-applied").touch()


def start_operators() -> None:
    # The operator asks the cluster's DNS for heads, as in production: its --use-kubernetes-proxy has no time limit and hangs on a lost head
    resolver = RUN / "etc-of-kuberay"
    resolver.mkdir(exist_ok=True)
    (resolver / "resolv.conf").write_text(f"nameserver {BRIDGE_ADDRESS}\n")
    health = ("--metrics-addr=127.0.0.1:18080", f"--health-probe-bind-address=127.0.0.1:{_KUBERAY_HEALTH}")
    values = yaml.safe_load((REPOSITORY / "deploy" / "helm" / "kuberay.yaml").read_text())
    command = [*_over_etc(resolver), program("kuberay", "ray-operator"), _CONFIG, "--enable-leader-election=false", *health]
    start("kuberay-operator", *command, environment={each["name"]: each["value"] for each in values["env"]})
    # Kueue wants a certificate for its metrics, in a place that no setting changes, even where it serves none
    certificates = RUN / "etc-of-kueue"
    wanted = certificates / "kueue" / "metrics" / "certs"
    wanted.mkdir(parents=True, exist_ok=True)
    for path in (CERTIFICATE, KEY):
        shutil.copy(path, wanted)
    document = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{_KUEUE_HEALTH}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"port": _KUEUE_WEBHOOKS, "certDir": str(PKI)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["ray.io/rayjob", "ray.io/raycluster"]},
    }
    config = RUN / "kueue.json"
    config.write_text(json.dumps(document, indent=1))
    start("kueue", *_over_etc(certificates), program("kueue", "kueue"), f"--config={config}", _CONFIG, "--feature-gates=VisibilityOnDemand=false")


def _over_etc(files: Path) -> list[object]:
    """Before a command: it alone sees these files laid over /etc, in a mount namespace of its own."""
    return ["unshare", "-m", "sh", "-c", 'mount -t overlay overlay -o "lowerdir=$0:/etc" /etc && exec "$@"', files]


def wait_ready() -> None:
    wait_for("kuberay-operator", 60, kuberay_ready)
    wait_for("kueue", 60, kueue_ready)
    if not (RUN / "webhooks-are-applied").exists():
        kubectl("apply", "--server-side", "-f", "-", document=_webhooks(folder("kueue") / "webhooks.yaml"))
        (RUN / "webhooks-are-applied").touch()


def kuberay_ready() -> bool:
    return _answers(_KUBERAY_HEALTH)


def kueue_ready() -> bool:
    return _answers(_KUEUE_HEALTH)


def _answers(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
        return bool(answer.status == 200)


def _webhooks(manifest: Path) -> str:
    """Kueue's own list, with the address of the process on this machine where it names a Service."""
    documents = []
    for document in yaml.safe_load_all(manifest.read_text()):
        hooks = []
        for hook in document["webhooks"]:
            path = hook["clientConfig"]["service"]["path"]
            if any(kind in path.rsplit("-", 1)[-1] for kind in _WEBHOOKS):
                here = {"url": f"https://127.0.0.1:{_KUEUE_WEBHOOKS}{path}", "caBundle": encoded(CA)}
                hooks.append({**hook, "clientConfig": here})
        documents.append({**document, "metadata": {"name": f"kueue-{document['metadata']['name']}"}, "webhooks": hooks})
    return yaml.safe_dump_all(documents)


def fake_nodes() -> None:
    """Four nodes with eight GPUs each in two racks, which KWOK pretends to run: their pods count as running and do nothing."""
    selected = ("--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake")
    start("kwok", program("kwok", "kwok"), _CONFIG, *selected, "--server-address=127.0.0.1:10999")
    size = {"cpu": "32", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"}
    items = []
    for number in range(4):
        labels = {"kubernetes.io/hostname": f"fake-{number}", "rack": f"rack-{number // 2}", "type": "kwok"}
        metadata = {"name": f"fake-{number}", "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": labels}
        taints = [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]
        status = {"allocatable": size, "capacity": size}
        items.append({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}, "status": status})
    kubectl("apply", "-f", "-", document=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    for number in range(4):
        wait_until(f"fake-{number}", 30, partial(api.node_ready, f"fake-{number}"))
