"""The embedded Ray head: one per home, its own session of processes, token auth, started by whoever finds it missing."""

import fcntl
import json
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
from contextlib import contextmanager
from pathlib import Path

import requests

from orchestration.launching.effects import Unreachable
from ray_jobs.seam.model import Strict

START_BUDGET_S = 90.0
STOP_BUDGET_S = 6.0
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
        if (state := self.alive()) is not None:
            return state
        with self._lock():
            return self.alive() or self._start()

    def stop(self) -> None:
        """End the head and everything of it: ask, wait, then insist. Its jobs end within a second of it."""
        with self._lock():
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
        self._end()  # a dead leader may have left parts of its group behind
        folder = tempfile.mkdtemp(prefix="fw-", dir="/tmp")  # Ray's socket paths must stay short
        token_path = Path(folder) / "token"
        token_path.touch(mode=0o600)
        token_path.write_text(secrets.token_hex(32))
        port, agent_port, client_port = _free_ports(3)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
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
        log = self.home / "ray-head.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        state = HeadState(
            pid=process.pid, started=_start_time(process.pid) or "", port=port, folder=folder, token_path=str(token_path), head_id=secrets.token_hex(4)
        )
        (self.home / "head.json.new").write_text(state.model_dump_json())
        os.replace(self.home / "head.json.new", self.home / "head.json")
        self._await_ready(process, state, log)
        return state

    def _await_ready(self, process: "subprocess.Popen[bytes]", state: HeadState, log: Path) -> None:
        deadline = time.monotonic() + START_BUDGET_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if requests.get(f"http://127.0.0.1:{state.port}/api/jobs/", headers=self.headers(state), timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.1)
        self._end()
        tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing was logged"]
        raise Unreachable(f"the embedded Ray head did not start within {START_BUDGET_S:.0f} s: {tail[0]}; the log is {log}")

    def _end(self) -> None:
        try:
            state = HeadState.model_validate_json((self.home / "head.json").read_bytes())
        except FileNotFoundError:
            return
        leader = _start_time(state.pid)
        if leader in (None, state.started):  # never a foreign process that was given the same pid
            for how, budget in ((signal.SIGTERM, STOP_BUDGET_S), (signal.SIGKILL, 5.0)):
                if not _members(state.pid):
                    break
                try:
                    os.killpg(state.pid, how)
                except ProcessLookupError:
                    break
                deadline = time.monotonic() + budget
                while _members(state.pid) and time.monotonic() < deadline:
                    _reap(state.pid)
                    time.sleep(0.05)
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


def _members(group: int) -> list[int]:
    """Processes of a group that are not zombies."""
    lines = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=False).stdout.splitlines()
    fields = (line.split() for line in lines)
    return [int(pid) for pid, pgid, stat in fields if int(pgid) == group and not stat.startswith("Z")]


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


def describe(home: Path) -> dict[str, object]:
    """What head.json says, for a person."""
    state = Head(home).alive()
    return json.loads(state.model_dump_json()) if state else {}
