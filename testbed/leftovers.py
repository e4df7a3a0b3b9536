"""Take back what a node leaves on this machine whose kubelet and containerd are gone. Nothing is touched that is not the testbed's."""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import time
from functools import partial
from pathlib import Path

from testbed.layout import NAME, node_folder
from testbed.shell import TestbedError, read, run, wait_until

# Places outside the testbed's own folder that no setting moves
_SHIM_SOCKETS = Path("/run/containerd/s")
_CNI_RESULTS = Path("/var/lib/cni/results")
_LOG_LINKS = Path("/var/log/containers")
_PLUGIN_SOCKET = Path("/var/lib/kubelet/device-plugins/kubelet.sock")


def cgroups(number: int, missing: bool = False) -> list[Path]:
    """This node's cgroup in every hierarchy (version 1: one folder per controller)."""
    base = Path("/sys/fs/cgroup")
    roots = [base] if (base / "cgroup.controllers").exists() else [path for path in base.iterdir() if path.is_dir() and not path.is_symlink()]
    return [root / f"{NAME}-{number}" for root in roots if missing or (root / f"{NAME}-{number}").exists()]


def clear_node(number: int) -> None:
    """Remove what a node leaves whose kubelet and containerd are gone: shims, pod processes, mounts, cgroups, sockets, addresses."""
    here = node_folder(number)
    socket_of_runtime = f"{here}/containerd.sock"
    wait_until(f"the pods of node-{number} are gone", 20, lambda: not _kill_left(socket_of_runtime, number))
    for mount in reversed(mounts_below(here)):
        run("umount", "-l", mount)
    for root in cgroups(number):
        for group in [*sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True), root]:
            wait_until(f"the cgroup {group} is empty", 5, partial(_remove_cgroup, group))
    for task in (here / "run" / "io.containerd.runtime.v2.task" / "k8s.io").glob("*"):
        name = hashlib.sha256(f"{socket_of_runtime}/k8s.io/{task.name}".encode()).hexdigest()
        (_SHIM_SOCKETS / name).unlink(missing_ok=True)
        for result in _CNI_RESULTS.glob(f"*-{task.name}-*"):
            result.unlink(missing_ok=True)
    for link in _LOG_LINKS.glob("*"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{here}/"):
            link.unlink()
    remove_folder(here / "ipam")
    remove_folder(here / "run")
    remove_folder(here / "runc")


def mounts_below(path: Path) -> list[str]:
    return [line.split()[1] for line in read(Path("/proc/self/mounts")).decode().splitlines() if line.split()[1].startswith(f"{path}/")]


def remove_folder(path: Path) -> None:
    """Pods mount folders of this machine: nothing is deleted while anything is still mounted there."""
    left = mounts_below(path)
    if left:
        raise TestbedError(f"{left[0]} is still mounted: run `umount -l {left[0]}` and try again")
    shutil.rmtree(path, ignore_errors=True)


def _kill_left(socket_of_runtime: str, number: int) -> bool:
    """Kill what there still is; says whether there was anything. A pod may fork between two looks, so it is asked again."""
    shims = {path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if socket_of_runtime.encode() in read(path).split(b"\0")}
    pods = {pid for root in cgroups(number) for path in root.rglob("cgroup.procs") for pid in read(path).decode().split()}
    for pid in (shims | pods) - {str(os.getpid())}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    if shims or pods:
        time.sleep(0.05)
    return bool(shims or pods)


def _remove_cgroup(group: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        group.rmdir()
    return True


def clear_shared_places() -> None:
    """The kubelets' one socket, if none listens, and folders that nothing is left in."""
    if _PLUGIN_SOCKET.exists():
        with socket.socket(socket.AF_UNIX) as asking, contextlib.suppress(OSError):
            if asking.connect_ex(str(_PLUGIN_SOCKET)) != 0:
                _PLUGIN_SOCKET.unlink()
    for path in (_SHIM_SOCKETS, _SHIM_SOCKETS.parent, _CNI_RESULTS, _CNI_RESULTS.parent, _LOG_LINKS, _PLUGIN_SOCKET.parent, _PLUGIN_SOCKET.parents[1]):
        with contextlib.suppress(OSError):
            path.rmdir()
