"""Where the testbed keeps things, the addresses it takes and the versions it is made of."""

import hashlib
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
MODULES = HERE / "modules"

HOME = Path(os.environ.get("FLYWHEEL_TESTBED") or "/var/tmp/flywheel-testbed")  # the user postgres must be able to enter it
NAME = f"testbed-{hashlib.sha256(str(HOME).encode()).hexdigest()[:6]}"  # of cgroups, namespaces and tables: what is cleared up is always one's own
CACHE = HOME / "cache"  # what `build` made; outlives `down`
RUN = HOME / "run"  # everything of the running cluster, etcd's data included; `down` removes it
LOGS = RUN / "logs"
PKI = RUN / "pki"
KUBECONFIG = RUN / "kubeconfig"  # for people and tests: user `admin`
INTERNAL_KUBECONFIG = RUN / "internal.kubeconfig"  # for the cluster's own parts: user `testbed`, so that the audit log tells them apart

KUBERNETES = "v1.35.4"

POD_NETWORK, SERVICE_NETWORK, API_SERVICE = "10.244.0.0/16", "10.96.0.0/16", "10.96.0.1"
BRIDGE, BRIDGE_ADDRESS = "ktbr0", "10.244.0.1"  # node N is 10.244.(N-1).1 and its pods are 10.244.(N-1).0/24
API_PORT, POSTGRES_PORT, S3_PORT, OTHER_S3_PORT = 6443, 5433, 7070, 7071
API_SERVER = f"https://{BRIDGE_ADDRESS}:{API_PORT}"

IMAGE, PAUSE_IMAGE = "localhost/base:bookworm", "localhost/pause:3.10"


def node_folder(number: int) -> Path:
    return RUN / f"node-{number}"


def node_address(number: int) -> str:
    return f"10.244.{number - 1}.1"
