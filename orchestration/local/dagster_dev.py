"""Start and end `dagster dev` in a session of its own.

Never from a shell with `&`: ignored SIGINT makes SIGTERM ignored too, and SIGKILL orphans daemon and webserver
(runtime.md). Own session, default signals, and the end is the end of the whole process group.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from orchestration.settings import REPOSITORY, Settings
from ray_jobs.seam.errors import StoreError

START_BUDGET_S = 120.0
STOP_BUDGET_S = 30.0


def environment(settings: Settings, document: Path, root: Path = REPOSITORY) -> dict[str, str]:
    """The environment of every process of a local deployment; makes $DAGSTER_HOME with the repository's dagster.yaml."""
    instance = settings.home_path / "dagster"
    instance.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / "dagster.yaml", instance / "dagster.yaml")
    return {
        **os.environ,
        "DAGSTER_HOME": str(instance),
        "FLYWHEEL_SETTINGS": str(document),
        "FLYWHEEL_HOME": str(settings.home_path),
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
    }


@dataclass(frozen=True)
class DagsterDev:
    url: str
    pid: int
    log: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def dagster_dev(settings: Settings, document: Path, port: int | None = None, root: Path = REPOSITORY) -> Iterator[DagsterDev]:
    """Webserver, daemon and code server until the block ends. Raises StoreError with the log's last line if they do not start."""
    port = port or free_port()
    log = settings.home_path / "dagster-dev.log"
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(root / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    environ = environment(settings, document, root)
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=root, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _await_ready(process, url, log)
        yield DagsterDev(url, process.pid, log)
    finally:
        end_group(process)


def _default_signals() -> None:
    """A shell's `&` leaves SIGINT ignored, and that is inherited: Dagster would then not hear SIGTERM either."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_BUDGET_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            # server_info answers before the code location is loaded; an asset that answers is what we wait for
            answer = requests.post(f"{url}/graphql", json={"query": "{workspaceOrError{__typename ... on Workspace{locationEntries{loadStatus}}}}"}, timeout=5)
            entries = answer.json()["data"]["workspaceOrError"].get("locationEntries", [])
            if entries and all(entry["loadStatus"] == "LOADED" for entry in entries):
                return
        except (requests.RequestException, ValueError):
            pass
        time.sleep(0.3)
    tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing was logged"]
    raise StoreError(f"Dagster did not start within {START_BUDGET_S:.0f} s: {tail[0]}; the log is {log}")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and everything of its group: ask, wait, then insist."""
    for how, budget in ((signal.SIGTERM, STOP_BUDGET_S), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(budget)
        except subprocess.TimeoutExpired:
            continue
    process.poll()
