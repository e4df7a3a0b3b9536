"""The parent of a driver. A driver that is killed cannot say why, and what it printed dies with its node: the guard tells both.

`python -m ray_jobs.guard ray_jobs.<step> --attempt KEY --store JSON` mints the execution, starts the driver as its child, passes on
what it prints, and writes the same to the store: attempts/<base>/a<n>/<execution>/log/<number>.txt, UTF-8, pieces in order. It starts the child
before it imports anything that takes time. Losing a piece of the log loses nothing else.
"""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_jobs.seam.store import Store

EXECUTION = "FLYWHEEL_EXECUTION"  # the variable by which the driver is told its execution
MAX_LOG_BYTES = 16 * 2**20  # of one execution in the store; the cluster's own log has the rest
MAX_PIECE_BYTES = 2**20
FIRST_INTERVAL_S, LAST_INTERVAL_S = 0.5, 5.0  # between two pieces; it grows over ten minutes, as a person's patience does


def pause(age_s: float) -> float:
    """Seconds between two objects of a driver that is this old: two a second at first, one in five seconds later."""
    return min(FIRST_INTERVAL_S + age_s / 60.0, LAST_INTERVAL_S)


def execution_name() -> str:
    """Sorts by the second it was minted in: 20261121T090000-1a2b3c4d."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.guard")
    parser.add_argument("module")
    parser.add_argument("--attempt", required=True)
    parser.add_argument("--store", required=True)
    told = parser.parse_args()
    name = execution_name()
    before = oom_kills()
    command = [sys.executable, "-m", told.module, "--attempt", told.attempt, "--store", told.store]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, EXECUTION: name}, preexec_fn=_ends_with_parent
    )

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    log = _Log(told.store, f"{told.attempt.rsplit('/', 1)[0]}/{name}")
    log.start()
    assert child.stdout is not None
    while piece := os.read(child.stdout.fileno(), 65536):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        log.add(piece)
    code = child.wait()
    log.close()
    if code < 0:
        _report(log, -code, oom_kills() - before)
    return code if code >= 0 else 128 - code


def _ends_with_parent() -> None:
    """Linux: a guard that is killed takes its driver with it, so that no driver works on unseen."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class _Log(threading.Thread):
    """Writes what was added, piece by piece, from a thread of its own: a store that stalls never stalls the driver."""

    def __init__(self, store: str, prefix: str):
        super().__init__(daemon=True)
        self.prefix = prefix
        self.store: Store | None = None
        self._config = store
        self._pending = bytearray()
        self._taken = self._number = 0
        self._full = False
        self._changed = threading.Condition()
        self._closing = False
        self._since = time.monotonic()

    def add(self, piece: bytes) -> None:
        with self._changed:
            room = MAX_LOG_BYTES - self._taken
            self._pending += piece[:room]
            self._taken += min(len(piece), room)
            if len(piece) > room and not self._full:
                self._full = True
                self._pending += f"\nthe log is longer than {MAX_LOG_BYTES} bytes; the cluster has the rest\n".encode()
            self._changed.notify()

    def close(self) -> None:
        """Write what is left; a store that does not take it within ten seconds loses it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self.join(10.0)

    def run(self) -> None:
        from ray_jobs.seam.errors import FlywheelError
        from ray_jobs.seam.store import Store, StoreConfig

        try:
            self.store = Store(StoreConfig.model_validate_json(self._config))
        except (FlywheelError, ValueError):
            return  # the driver says the same, and says it better
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                if not self._pending:
                    return
                piece = bytes(self._pending[:MAX_PIECE_BYTES])
                del self._pending[:MAX_PIECE_BYTES]
            try:
                self.store.put(f"{self.prefix}/log/{self._number:06d}.txt", piece)
            except FlywheelError as error:
                print(f"a piece of the log was lost: {error}", file=sys.stderr, flush=True)
            self._number += 1
            with self._changed:
                self._changed.wait_for(lambda: self._closing, timeout=pause(time.monotonic() - self._since))


def _report(log: _Log, number: int, kills: int) -> None:
    """The driver was killed: error.json says by what, unless the driver itself has said how it ended."""
    from ray_jobs.seam.errors import FailureClass, FlywheelError
    from ray_jobs.seam.results import REPORT_MARK, JobError

    failure: FailureClass = "infrastructure"
    message = f"the driver was killed by signal {number} ({signal.Signals(number).name}, exit code {128 + number})"
    if number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL):
        failure, message = "user", f"the driver crashed with signal {number} ({signal.Signals(number).name}): a native library failed"
    elif number == signal.SIGTERM:
        failure = "preempted"
    elif number == signal.SIGKILL and kills > 0:
        failure = "out_of_memory"
        message = f"the driver was killed because its container ran out of memory ({_mebibytes(memory_peak())} used of {_mebibytes(memory_limit())})"
    report = JobError(failure_class=failure, message=message, peak_memory_bytes=memory_peak() if failure == "out_of_memory" else 0)
    try:
        if log.store is None:
            raise FlywheelError("the store could not be opened")
        if not any(log.store.find(f"{log.prefix}/{name}") for name in ("closed.json", "error.json")):  # its own word stands
            log.store.put(f"{log.prefix}/error.json", report.model_dump_json().encode())
    except FlywheelError:
        print(f"{REPORT_MARK}{report.model_dump_json()}", flush=True)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count else "an unknown amount"


def oom_kills() -> int:
    """How often the kernel has killed for memory in this process's control group; 0 where it does not say."""
    for name in ("memory.events", "memory/memory.oom_control"):
        for line in _cgroup(name).splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def memory_peak() -> int:
    """Bytes that this control group has used at most; 0 where it does not say."""
    return _number(_cgroup("memory.peak") or _cgroup("memory/memory.max_usage_in_bytes"))


def memory_limit() -> int:
    """Bytes that this control group may use; 0 where there is no limit."""
    return _number(_cgroup("memory.max") or _cgroup("memory/memory.limit_in_bytes"))


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() and int(text) < 2**60 else 0


def _cgroup(name: str) -> str:
    """A file of this process's control group, version 2 or (below its controller) version 1, as a container sees it; "" without."""
    try:
        return (Path("/sys/fs/cgroup") / name).read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
