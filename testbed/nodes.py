"""Two nodes on one machine: each has its kubelet, containerd and kube-proxy, and its own folder, cgroup, pod network; the second its own namespace."""

import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path

from testbed import api, images, network
from testbed.build import program
from testbed.credentials import CA
from testbed.layout import BRIDGE, BRIDGE_ADDRESS, INTERNAL_KUBECONFIG, NAME, PAUSE_IMAGE, POD_NETWORK, node_address, node_folder
from testbed.leftovers import cgroups, clear_node
from testbed.processes import end, start, wait_for
from testbed.shell import TestbedError, run, succeeds, wait_until

NUMBERS = (1, 2)
SECOND = "testbed/second-node"  # a taint


def start_runtime(number: int) -> None:
    """containerd with the images. Needs no API server, so that it can be made ready beside it."""
    here, address = node_folder(number), node_address(number)
    (here / "cni").mkdir(parents=True, exist_ok=True)
    for name, content in _configuration(here, number).items():
        (here / name).write_text(content)
    for group in cgroups(number, missing=True):
        group.mkdir(exist_ok=True)
    network.make_bridge(address, number)
    start(f"containerd-{number}", *network.inside(number), "containerd", "--config", here / "containerd.toml")
    control = ("ctr", "-a", here / "containerd.sock", "-n", "k8s.io", "images")
    wait_for(f"containerd-{number}", 30, lambda: succeeds(*control, "list"))  # a kubelet that finds no runtime ends
    imported = here / "images-are-imported"
    if not imported.exists():
        for archive in images.archives():
            run(*control, "import", archive)
        imported.touch()


def start_node(number: int) -> None:
    here, inside, config = node_folder(number), network.inside(number), f"--kubeconfig={INTERNAL_KUBECONFIG}"
    name = f"--hostname-override=node-{number}"
    conntrack = ("--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")
    addresses = ("--metrics-bind-address=127.0.0.1:10249", "--healthz-bind-address=127.0.0.1:10256")
    proxy = ("--proxy-mode=nftables", f"--cluster-cidr={POD_NETWORK}", *conntrack, *addresses)
    start(f"kube-proxy-{number}", *inside, program("kubernetes", "kube-proxy"), config, name, *proxy)
    folders = (f"--root-dir={here}/kubelet", f"--cert-dir={here}/pki", f"--config={here}/kubelet.json")
    start(f"kubelet-{number}", *inside, program("kubernetes", "kubelet"), config, name, *folders, f"--node-ip={node_address(number)}")


def wait_ready(number: int) -> None:
    wait_for(f"kubelet-{number}", 180, lambda: api.node_ready(f"node-{number}"))


def add_node() -> None:
    """The second node; brings it back after `lose_node`. Only pods that tolerate SECOND come there: others' are not lost with it."""
    network.plug_in()
    start_runtime(2)
    start_node(2)
    wait_until("node-2 is registered", 60, lambda: bool(api.call("GET", "/api/v1/nodes/node-2")))
    untaint("node-2", OUT_OF_SERVICE)
    wait_ready(2)


def lose_node() -> None:
    """End the second node as a power cut does: packets vanish, and kubelet, containerd and pods go without a word."""
    network.unplug()
    end([f"{part}-2" for part in ("kubelet", "containerd", "kube-proxy")], signal.SIGKILL)
    clear_node(2)


OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


def taint(node: str, key: str, value: str, effect: str = "NoExecute") -> None:
    """With OUT_OF_SERVICE: an administrator says that the node is off, and its pods are given up at once."""
    _change_taints(node, lambda old: [*(item for item in old if item["key"] != key), {"key": key, "value": value, "effect": effect}])


def untaint(node: str, key: str) -> None:
    _change_taints(node, lambda old: [item for item in old if item["key"] != key])


def delete_node(node: str) -> None:
    api.call("DELETE", f"/api/v1/nodes/{node}")


def _change_taints(node: str, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    for _ in range(10):
        document = api.call("GET", f"/api/v1/nodes/{node}")
        old = document["spec"].get("taints") or []
        document["spec"]["taints"] = change(old)
        if document["spec"]["taints"] == old:
            return
        with contextlib.suppress(api.Refused):  # the kubelet wrote in between: once more
            api.call("PUT", f"/api/v1/nodes/{node}", document)
            return
    raise TestbedError(f"{node} changes too often to be tainted: try again")


def _configuration(here: Path, number: int) -> dict[str, str]:
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        **{"address": node_address(number), "healthzPort": 0, "readOnlyPort": 0, "nodeStatusUpdateFrequency": "4s"},
        **{"containerRuntimeEndpoint": f"unix://{here}/containerd.sock", "podLogsDir": f"{here}/podlogs"},
        **{"cgroupDriver": "cgroupfs", "cgroupRoot": f"/{NAME}-{number}", "failCgroupV1": False, "enforceNodeAllocatable": []},
        **{"failSwapOn": False, "makeIPTablesUtilChains": False, "clusterDomain": "cluster.local", "clusterDNS": [BRIDGE_ADDRESS]},
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}, "x509": {"clientCAFile": str(CA)}},
        "authorization": {"mode": "AlwaysAllow"},
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        **{"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99},
    }
    if number == 2:
        kubelet["registerWithTaints"] = [{"key": SECOND, "effect": "NoSchedule"}]
    addresses = {"type": "host-local", "dataDir": f"{here}/ipam", "ranges": [[{"subnet": f"10.244.{number - 1}.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": addresses}
    return {
        "kubelet.json": json.dumps(kubelet, indent=1),
        "cni/10-testbed.conflist": json.dumps({"cniVersion": "0.4.0", "name": NAME, "plugins": [bridge]}, indent=1),
        "containerd.toml": f"""version = 2
root = "{here}/containerd"
state = "{here}/run"
oom_score = 0
[grpc]
  address = "{here}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{here}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{here}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{here}/cni"
""",
    }
