"""The pod bridge, the second node's network namespace, and the kernel settings that a cluster changes. All of it can be taken back."""

import json
from pathlib import Path

from testbed.layout import BRIDGE, BRIDGE_ADDRESS, NAME, POD_NETWORK, RUN
from testbed.processes import boot
from testbed.shell import TestbedError, read, run, succeeds

NAMESPACE = f"{NAME}-2"
LINK = "ktn2"  # our end of the second node's cable
TABLE = NAME  # nftables: pods reach the world under this machine's address
_SETTINGS = [  # kubelet and CNI change these; `down` puts back what was there
    *("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables", "vm.overcommit_memory", "vm.panic_on_oom"),
    *("kernel.panic", "kernel.panic_on_oops", "kernel.keys.root_maxkeys", "kernel.keys.root_maxbytes"),
]


def inside(number: int) -> list[str]:
    """What to put before a command of node N. Not `ip netns exec`: that remounts /sys and hides the cgroups."""
    return [] if number == 1 else ["nsenter", f"--net=/run/netns/{NAMESPACE}"]


def make_bridge(address: str, number: int) -> None:
    here = inside(number)
    if not succeeds(*here, "ip", "link", "show", BRIDGE):
        run(*here, "ip", "link", "add", BRIDGE, "type", "bridge")
        run(*here, "ip", "link", "set", BRIDGE, "alias", NAME)
        run(*here, "ip", "addr", "add", f"{address}/24", "dev", BRIDGE)
        run(*here, "ip", "link", "set", BRIDGE, "up")
    for setting in ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables"):  # the second: answers between pods of one node are translated back
        run(*here, "sysctl", "-qw", f"{setting}=1")


def up() -> None:
    """The bridge comes first, because the API server and the other servers bind its address: no other machine reaches them."""
    if _owner() not in ("", NAME):
        raise TestbedError(f"the interface {BRIDGE} is another testbed's ({_owner()}): take that down first, with its own FLYWHEEL_TESTBED")
    succeeds("modprobe", "br_netfilter")  # where it is built in, there is no module to load
    saved = RUN / "kernel.json"
    if not saved.exists():
        before = {name: read(_path(name)).decode().strip() for name in _SETTINGS}
        saved.write_text(json.dumps({"boot": boot(), "before": before}))
    make_bridge(BRIDGE_ADDRESS, 1)
    if not succeeds("nft", "list", "table", "ip", TABLE):
        chain = "type nat hook postrouting priority srcnat;"
        rule = f"ip saddr {POD_NETWORK} ip daddr != {POD_NETWORK} masquerade"
        run("nft", "-f", "-", input=f"table ip {TABLE} {{\nchain postrouting {{\n{chain}\n{rule}\n}}\n}}\n")


def plug_in() -> None:
    """The second node's namespace and its cable."""
    if not Path(f"/run/netns/{NAMESPACE}").exists():
        run("ip", "netns", "add", NAMESPACE)
    if not succeeds("ip", "link", "show", LINK):
        run("ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
        run("ip", "addr", "add", "10.245.2.1/30", "dev", LINK)
        run("ip", "-n", NAMESPACE, "addr", "add", "10.245.2.2/30", "dev", "eth0")
    for interface in ("lo", "eth0"):
        run("ip", "-n", NAMESPACE, "link", "set", interface, "up")
    run("ip", "link", "set", LINK, "up")
    run("ip", "-n", NAMESPACE, "route", "replace", "default", "via", "10.245.2.1")
    run("ip", "route", "replace", "10.244.1.0/24", "via", "10.245.2.2", "src", BRIDGE_ADDRESS)


def unplug() -> None:
    """From now on packets to and from the second node vanish, as after a power cut."""
    succeeds("ip", "link", "set", LINK, "down")


def down() -> None:
    succeeds("nft", "delete", "table", "ip", TABLE)
    succeeds("ip", "netns", "del", NAMESPACE)
    if _owner() == NAME:
        succeeds("nft", "delete", "table", "ip", "kube-proxy")
        succeeds("nft", "delete", "table", "ip6", "kube-proxy")
        for link in (LINK, BRIDGE):
            succeeds("ip", "link", "del", link)
    saved = json.loads(read(RUN / "kernel.json") or "{}")
    if saved.get("boot") == boot():
        for name, value in saved["before"].items():
            if value and read(_path(name)).decode().strip() != value:
                _path(name).write_text(value)


def _owner() -> str:
    """The name of the testbed whose bridge there is."""
    found = json.loads(run("ip", "-j", "link", "show"))
    return "".join(link.get("ifalias", "somebody's") for link in found if link["ifname"] == BRIDGE)


def _path(setting: str) -> Path:
    return Path("/proc/sys") / setting.replace(".", "/")
