"""etcd, API server, controller manager and scheduler, and the names of the cluster."""

import json
import sys

from testbed import api
from testbed.build import program
from testbed.credentials import ACCOUNT_KEY, ACCOUNT_PUBLIC_KEY, CA, CERTIFICATE, KEY, TOKENS
from testbed.layout import API_PORT, BRIDGE_ADDRESS, HERE, INTERNAL_KUBECONFIG, LOGS, PKI, RUN, SERVICE_NETWORK
from testbed.processes import start, wait_for
from testbed.shell import succeeds

AUDIT_LOG = LOGS / "audit.log"
_ETCD = "http://127.0.0.1:23790"
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "RequestResponse", "verbs": ["create", "delete"], "resources": [{"group": "ray.io", "resources": ["rayjobs"]}]},
        {"level": "Metadata"},
    ],
}


def start_etcd() -> None:
    peers = ("--listen-peer-urls", "http://127.0.0.1:23800", "--unsafe-no-fsync")
    start("etcd", "etcd", "--data-dir", RUN / "etcd", "--listen-client-urls", _ETCD, "--advertise-client-urls", _ETCD, *peers)


def start_api_server() -> None:
    wait_for("etcd", 30, lambda: succeeds("env", "ETCDCTL_API=3", "etcdctl", "--endpoints", _ETCD, "endpoint", "health"))
    policy = RUN / "audit-policy.json"
    policy.write_text(json.dumps(_POLICY))
    start(
        "kube-apiserver",
        program("kubernetes", "kube-apiserver"),
        f"--etcd-servers={_ETCD}",
        *(f"--bind-address={BRIDGE_ADDRESS}", f"--advertise-address={BRIDGE_ADDRESS}", f"--secure-port={API_PORT}"),
        *(f"--tls-cert-file={CERTIFICATE}", f"--tls-private-key-file={KEY}"),
        *(f"--kubelet-client-certificate={CERTIFICATE}", f"--kubelet-client-key={KEY}"),
        *(f"--token-auth-file={TOKENS}", "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc"),
        *(f"--service-account-key-file={ACCOUNT_PUBLIC_KEY}", f"--service-account-signing-key-file={ACCOUNT_KEY}"),
        *(f"--service-cluster-ip-range={SERVICE_NETWORK}", "--allow-privileged=true"),
        # Without this, logs and exec look the node's name up
        "--kubelet-preferred-address-types=InternalIP",
        # Production waits five minutes before it evicts pods of a lost node, tests should not
        *("--default-not-ready-toleration-seconds=10", "--default-unreachable-toleration-seconds=10"),
        # One file, never rotated: the reader needs every RayJob since the start
        *(f"--audit-policy-file={policy}", f"--audit-log-path={AUDIT_LOG}", "--audit-log-maxsize=100000"),
    )


def start_controllers() -> None:
    wait_for("kube-apiserver", 60, api.ready)
    config = f"--kubeconfig={INTERNAL_KUBECONFIG}"
    start(
        "kube-controller-manager",
        program("kubernetes", "kube-controller-manager"),
        *(config, f"--service-account-private-key-file={ACCOUNT_KEY}", f"--root-ca-file={CA}", "--use-service-account-credentials=true"),
        *("--leader-elect=false", f"--cert-dir={PKI}/controller-manager", "--node-monitor-grace-period=20s"),  # production: 50 s
    )
    start("kube-scheduler", program("kubernetes", "kube-scheduler"), config, "--leader-elect=false", f"--cert-dir={PKI}/scheduler")
    start("dns", sys.executable, "-m", "testbed.dns", BRIDGE_ADDRESS, environment={"PYTHONPATH": str(HERE.parent)})
