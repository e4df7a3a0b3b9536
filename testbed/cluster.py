"""The verbs: bring the whole of it up, take the whole of it down, say how it is."""

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator

from testbed import api, build, control_plane, credentials, description, leftovers, network, nodes, operators, postgres, s3
from testbed.layout import API_SERVER, BRIDGE_ADDRESS, CACHE, HOME, IMAGE, KUBECONFIG, RUN, node_folder
from testbed.processes import boot, end, living, names
from testbed.shell import TestbedError, read


def up() -> None:
    """Start what does not live; a cluster of which nothing lives is taken down first, for its etcd remembers pods that are gone."""
    with alone():
        if RUN.exists() and (read(RUN / "boot").decode() != boot() or not any(living(name) for name in names())):
            print("testbed: cleaning up after a cluster that was not taken down", file=sys.stderr)
            _remove()
        RUN.mkdir(parents=True, exist_ok=True)
        (RUN / "boot").write_text(boot())
        credentials.write()
        network.up()
        control_plane.start_etcd()
        postgres.start_postgres()
        s3.start_servers()
        control_plane.start_api_server()
        nodes.start_runtime(1)  # while the API server comes up
        control_plane.start_controllers()
        nodes.start_node(1)
        operators.apply_definitions()
        operators.start_operators()
        postgres.wait_ready()
        s3.wait_ready()
        operators.wait_ready()
        nodes.wait_ready(1)
        if node_folder(2).exists() and living("containerd-2"):
            nodes.add_node()
        description.write(_describe())


def down() -> None:
    with alone():
        _remove()


def _remove() -> None:
    """Nothing is asked to end well: all that would be saved goes anyway, and nothing that hangs can hold this up."""
    known = names()
    end([name for name in known if name.startswith("kubelet")], signal.SIGKILL)  # first, so that no pod is started again
    end(known, signal.SIGKILL)
    postgres.clear()
    for number in nodes.NUMBERS:
        leftovers.clear_node(number)
    network.down()
    leftovers.clear_shared_places()
    leftovers.remove_folder(RUN)
    if RUN.exists():
        raise TestbedError(f"{RUN} could not be removed: look what keeps it with `fuser -vm {RUN}`")


def _describe() -> description.State:
    return description.State(
        kubeconfig=KUBECONFIG,
        kubectl=build.program("kubernetes", "kubectl"),
        api_server=API_SERVER,
        certificate_authority=credentials.CA,
        image=IMAGE,
        bridge=BRIDGE_ADDRESS,
        postgres=postgres.URL,
        s3=s3.describe("s3"),
        s3_elsewhere=s3.describe("s3-elsewhere"),
        audit_log=control_plane.AUDIT_LOG,
    )


def status() -> str:
    """One line per process and per node."""
    lines = [f"{name:25} {'pid ' + str(living(name)) if living(name) else 'DEAD'}" for name in names()]
    if living("kube-apiserver"):
        for node in api.call("GET", "/api/v1/nodes")["items"]:
            name = node["metadata"]["name"]
            lines.append(f"{name:25} {'Ready' if api.node_ready(name) else 'NOT READY'}")
    return "\n".join(lines) or f"no testbed is up in {HOME}: run `make cluster-up`"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One at a time may change the cluster."""
    if os.geteuid() != 0:
        raise TestbedError("the testbed makes namespaces, mounts and cgroups: run it as root, or use another cluster by KUBECONFIG (docs/testbed.md)")
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = os.open(CACHE, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
