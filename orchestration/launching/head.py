"""The embedded Ray head: one per home, its own session of processes, token auth, started by whoever finds it missing."""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from orchestration.launching.effects import Unreachable
from ray_jobs.seam.model import Strict

START_BUDGET_S = 90.0  # of one try: 10 s on a quiet machine of two cores, 50 s on a crowded one
START_TRIES = 2
STOP_BUDGET_S = 5.0
OBJECT_STORE_BYTES = 500_000_000


class HeadState(Strict):
    """head.json in the home: how every process of the deployment finds the same head."""

    pid: int  # leader of the session, and of the process group
    started: str  # the process's start time, so that a reused pid is not taken for it
    port: int  # of the dashboard, on loopback
    folder: str  # Ray's temporary files
    token_path: str
    head_id: str


class Head:
    """`ray start --head` for one home. Every public method may be called from any process and any thread."""

    def __init__(self, home: Path, num_cpus: int | None = None, env: dict[str, str] | None = None):
        self.home = home
        self.num_cpus = num_cpus or max(4, (os.cpu_count() or 1) + 2)  # more logical than physical: Ray Data beside Train hangs on 2
        self.env = env or {}

    def alive(self) -> HeadState | None:
        """The head that runs now, or None. `ray start --block` ends when any of its parts has died, so one process tells."""
        try:
            state = HeadState.model_validate_json((self.home / "head.json").read_bytes())
        except FileNotFoundError:
            return None
        return state if _start_time(state.pid) == state.started else None

    def ensure(self) -> HeadState:
        """The head, started if it is missing or dead. Raises Unreachable with the log's last line where it does not start."""
        if (state := self.alive()) is not None and self.ready(state):
            return state
        with self._lock():
            state = self.alive()
            if state is not None and (self.ready(state) or self._becomes_ready(state)):  # or whoever started it is gone
                return state
            return self._start()

    def stop(self) -> None:
        """End the head and everything of it: ask, wait, then insist. Its jobs end within a second of it."""
        with self._lock():
            self._end()

    def ready(self, state: HeadState) -> bool:
        """It has answered once. Before that it has no jobs."""
        return (Path(state.folder) / "ready").exists()

    def bury(self) -> None:
        """Where the head has died, end what it left behind, so that none of its jobs is at work any more."""
        if (self.home / "head.json").exists() and self.alive() is None:
            with self._lock():
                if self.alive() is None:
                    self._end()

    def headers(self, state: HeadState) -> dict[str, str]:
        return {"Authorization": f"Bearer {Path(state.token_path).read_text()}"}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.home / "head.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start(self) -> HeadState:
        """A second try, with other ports: one that was free may be taken a moment later, and Ray gives up where its parts take more than 30 s."""
        for _ in range(START_TRIES):
            state = self._launched()
            if self._becomes_ready(state):
                return state
            self._end()
        log = self.home / "ray-head.log"
        tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing was logged"]
        raise Unreachable(f"the embedded Ray head did not start in {START_TRIES} tries of {START_BUDGET_S:.0f} s at most: {tail[0]}; the log is {log}")

    def _launched(self) -> HeadState:
        self._end()  # a dead leader may have left parts of its group behind
        folder = tempfile.mkdtemp(prefix="fw-", dir="/tmp")  # Ray's socket paths must stay short
        token_path = Path(folder) / "token"
        token_path.touch(mode=0o600)
        token_path.write_text(secrets.token_hex(32))
        port, agent_port, client_port = _free_ports(3)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--include-log-monitor=false"]  # it sends what workers print to drivers that ask for it, and ours do not
        command += ["--port=0", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
        command += [f"--dashboard-agent-listen-port={agent_port}", f"--ray-client-server-port={client_port}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", f"--num-cpus={self.num_cpus}"]
        command += [f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={folder}/r"]
        environ = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token_path),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default of 2 s loses reported checkpoints
            "RAY_DEDUP_LOGS": "0",
            **self.env,
        }
        environ.pop("RAY_ADDRESS", None)
        with (self.home / "ray-head.log").open("ab") as output:
            process = subprocess.Popen(
                command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        state = HeadState(
            pid=process.pid, started=_start_time(process.pid) or "", port=port, folder=folder, token_path=str(token_path), head_id=secrets.token_hex(4)
        )
        (self.home / "head.json.new").write_text(state.model_dump_json())
        os.replace(self.home / "head.json.new", self.home / "head.json")
        return state

    def _becomes_ready(self, state: HeadState) -> bool:
        deadline = time.monotonic() + START_BUDGET_S
        while time.monotonic() < deadline and self.alive() is not None:
            try:
                if requests.get(f"http://127.0.0.1:{state.port}/api/jobs/", headers=self.headers(state), timeout=5).ok:
                    (Path(state.folder) / "ready").touch()
                    return True
            except requests.RequestException:
                pass
            time.sleep(0.1)
        return False

    def _end(self) -> None:
        try:
            state = HeadState.model_validate_json((self.home / "head.json").read_bytes())
        except FileNotFoundError:
            return
        leader = _start_time(state.pid)
        if leader == state.started:  # asked alone, it ends its parts in order; asked all at once, the raylet waits for a dead GCS
            os.kill(state.pid, signal.SIGTERM)
            _await_empty(state, STOP_BUDGET_S)
        if leader in (None, state.started):  # never a foreign process that was given the same pid
            for pid in _members(state):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _await_empty(state, 5.0)
        _reap(state.pid)
        (self.home / "head.json").unlink(missing_ok=True)
        shutil.rmtree(state.folder, ignore_errors=True)


def _start_time(pid: int) -> str | None:
    """When a process that is not a zombie was started, as the system tells it; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if fields[0] == "Z" else f"tick {fields[19]}"
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return None
    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.split(maxsplit=1)
    return None if len(answer) < 2 or answer[0].startswith("Z") else answer[1].strip()


def _members(state: HeadState) -> list[int]:
    """Processes of the head that are not zombies: its group, its workers and its jobs' drivers.

    Workers and drivers have groups of their own, and a driver that never joined the cluster outlives a killed head; but
    all of them inherit the path of the head's token, which no other process has.
    """
    lines = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=False).stdout.splitlines()
    living = [(int(pid), int(pgid)) for pid, pgid, stat in (line.split() for line in lines) if not stat.startswith("Z")]
    mark = f"RAY_AUTH_TOKEN_PATH={state.token_path}".encode()
    return [pid for pid, pgid in living if pgid == state.pid or mark in _environment(pid)]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended meanwhile, is another user's, or the system has no /proc
        return []


def _await_empty(state: HeadState, budget_s: float) -> None:
    deadline = time.monotonic() + budget_s
    while _members(state) and time.monotonic() < deadline:
        _reap(state.pid)
        time.sleep(0.1)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # another process's child


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
