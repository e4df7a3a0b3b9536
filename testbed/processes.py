"""The testbed's processes by name. Each is recorded with pid, start time and boot, so that nothing else is ever ended by mistake."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from testbed.layout import LOGS, RUN
from testbed.shell import Ended, TestbedError, read, wait_until, write_secret

RECORDS = RUN / "processes"
_children: list[subprocess.Popen[bytes]] = []  # kept, so that Python does not complain of children it lost sight of


def boot() -> str:
    return read(Path("/proc/sys/kernel/random/boot_id")).decode().strip()


def _identity(pid: int) -> str | None:
    """What no other process has, for a living one. A zombie is dead, but not before its last thread is: until then its ports are taken."""
    state, *fields = read(Path(f"/proc/{pid}/stat")).decode().rpartition(")")[2].split() or ["X"]
    return None if state == "X" or (state == "Z" and int(fields[16]) <= 1) else f"{pid} {fields[18]} {boot()}"


def names() -> list[str]:
    return sorted(path.stem for path in RECORDS.glob("*.json"))


def _record(name: str) -> dict[str, object]:
    text = read(RECORDS / f"{name}.json")
    return dict(json.loads(text)) if text else {}


def living(name: str) -> int | None:
    """The pid of the process of this name, if it lives."""
    identity = _record(name).get("identity")
    if not isinstance(identity, str):
        return None
    pid = int(identity.split()[0])
    return pid if _identity(pid) == identity else None


def stopped(name: str) -> bool:
    """Whether each of its threads stands still after a SIGSTOP."""
    states = [read(path).decode().rpartition(")")[2].split()[:1] for path in Path(f"/proc/{living(name)}/task").glob("*/stat")]
    return bool(states) and all(state == ["T"] for state in states)


def start(name: str, *command: object, environment: dict[str, str] | None = None) -> bool:
    """Start it unless it lives; it outlives us, with its own session and log. Says whether it was started."""
    if living(name):
        return False
    arguments = [str(part) for part in command]
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("ab") as log:
        try:
            child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, env={**os.environ, **(environment or {})}
            )
        except FileNotFoundError as error:
            raise TestbedError(f"the program {arguments[0]} is missing: run `make cluster-up`") from error
    _children.append(child)
    record = {"identity": _identity(child.pid), "command": arguments, "environment": environment or {}}
    write_secret(RECORDS / f"{name}.json", json.dumps(record, indent=1))
    return True


def start_again(name: str) -> bool:
    """Start it with the command that it had before."""
    record = _record(name)
    command, environment = record.get("command"), record.get("environment")
    if not isinstance(command, list) or not isinstance(environment, dict):
        raise TestbedError(f"the testbed has no process {name}, but {', '.join(names()) or 'none at all'}")
    return start(name, *command, environment=environment)


def wait_for(name: str, seconds: float, ready: Callable[[], bool]) -> None:
    """Wait until it answers. One that has died is told at once, with its last word."""

    def check() -> bool:
        if not living(name):
            last = read(LOGS / f"{name}.log").decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            raise Ended(f"{name} ended, and its last word was: {last[0][-300:]}; run `make cluster-up` to start it again")
        return ready()

    wait_until(name, seconds, check)


def send(name: str, number: signal.Signals) -> None:
    pid = living(name)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(wanted: Iterable[str], number: signal.Signals = signal.SIGTERM, seconds: float = 10) -> None:
    """Send all of them the signal, wait, then SIGKILL: some wait for ever for something that went before them."""
    alive = [name for name in wanted if living(name)]
    for last, patience in ((number, seconds), (signal.SIGKILL, 5.0)):
        for name in alive:
            send(name, last)
        deadline = time.monotonic() + patience
        while alive and time.monotonic() < deadline:
            time.sleep(0.02)
            alive = [name for name in alive if living(name)]
    if alive:
        raise TestbedError(f"{', '.join(alive)} would not end, not even by SIGKILL: look with `ps`")
