"""Break the running testbed and mend it. Names of processes: `python -m testbed status`.

    with faults.without("kube-apiserver"):    # SIGKILL now, and started again at the end
        ...
    with faults.frozen("kuberay-operator"):   # SIGSTOP: it keeps its connections and says nothing
        ...
    faults.restart("kueue")
    faults.lose_node(); faults.give_up_node(); faults.add_node()

Only processes that the testbed started are ever sent a signal: they are known by pid, start time and boot.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from testbed import api, operators, postgres, s3
from testbed.nodes import OUT_OF_SERVICE, SECOND, add_node, delete_node, lose_node, taint, untaint
from testbed.processes import end, living, names, send, start_again, stopped, wait_for
from testbed.shell import TestbedError, wait_until

__all__ = ["OUT_OF_SERVICE", "SECOND", "add_node", "delete_node", "living", "lose_node", "names", "taint", "untaint"]  # what stands elsewhere

_READY: dict[str, Callable[[], bool]] = {
    "kube-apiserver": api.ready,
    "kuberay-operator": operators.kuberay_ready,
    "kueue": operators.kueue_ready,
    "postgres": postgres.ready,
    "s3": partial(s3.ready, "s3"),
    "s3-elsewhere": partial(s3.ready, "s3-elsewhere"),
}


def kill(name: str, number: signal.Signals = signal.SIGKILL) -> None:
    """End it and wait until it is gone; with SIGTERM it may take its time, but no more than ten seconds."""
    _known(name)
    end([name], number)


def start(name: str) -> None:
    """Start it as it was started before, and wait until it answers; nothing happens if it lives."""
    start_again(name)
    wait_for(name, 60, _READY.get(name, lambda: True))


def restart(name: str, number: signal.Signals = signal.SIGKILL) -> None:
    kill(name, number)
    start(name)


def freeze(name: str) -> None:
    """SIGSTOP, and wait until it stands still: the signal is delivered a moment later."""
    _known(name)
    send(name, signal.SIGSTOP)
    wait_until(f"{name} stands still", 5, lambda: stopped(name))


def thaw(name: str) -> None:
    _known(name)
    send(name, signal.SIGCONT)


@contextmanager
def without(name: str, number: signal.Signals = signal.SIGKILL) -> Iterator[None]:
    kill(name, number)
    try:
        yield
    finally:
        start(name)


@contextmanager
def frozen(name: str) -> Iterator[None]:
    freeze(name)
    try:
        yield
    finally:
        thaw(name)


def give_up_node(name: str = "node-2") -> None:
    """What an administrator says of a lost node: its pods are deleted now, not when somebody deletes the node. `add_node` takes it back."""
    taint(name, OUT_OF_SERVICE, "nodeshutdown")


def _known(name: str) -> None:
    if not living(name):
        raise TestbedError(f"no process {name} of the testbed lives, but {', '.join(filter(living, names())) or 'none at all'}")
