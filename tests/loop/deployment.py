"""A whole local deployment for tests: a copy of the code (so that a test may edit it), a home, Dagster, and the embedded Ray."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from orchestration.launching.head import Head
from orchestration.local import dagster_dev
from orchestration.local.graphql import GraphQL
from orchestration.settings import Settings, load
from ray_jobs.seam.results import Pointer, read_pointer
from ray_jobs.seam.store import Store

ROOT = Path(__file__).parents[2]
CODE = ("orchestration", "ray_jobs", "fleet", "definitions.py", "dagster.yaml", "workspace.yaml", "requirements.lock", "pyproject.toml")
DEMO: dict[str, Any] = {
    "deployment": "test",
    "first_day": "2026-01-05",
    "window_days": 2,
    "measure": {"task": "pick_place"},
    "training": {"steps": 40, "batch": 32, "workers": 1, "checkpoint_every": 20},
    "evaluation": {"evaluator": "simulated_arm", "rollouts": 4, "actors": 1},
    "triggers": {"poll_s": 2, "enabled": False},
}


class Deployment:
    def __init__(self, folder: Path, document: dict[str, Any]):
        self.root, self.home = folder / "code", folder / "home"
        for name in CODE:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            self.root.mkdir(parents=True, exist_ok=True)
            copy(source, self.root / name)
        self.document = folder / "flywheel.yaml"
        self.change({**document, "home": str(self.home)})
        self.raw = self.home / "raw"
        self.raw.mkdir(parents=True)
        self.sealed: set[Path] = set()

    def change(self, document: dict[str, Any]) -> None:
        """Edit the settings document; runs that start from now on read it."""
        current = yaml.safe_load(self.document.read_text()) if self.document.exists() else {}
        self.document.write_text(yaml.safe_dump(current | document))

    @property
    def settings(self) -> Settings:
        return load(self.document)

    @property
    def store(self) -> Store:
        return Store(self.settings.store_config())

    @contextmanager
    def running(self) -> Iterator["Deployment"]:
        with dagster_dev.dagster_dev(self.settings, self.document, root=self.root) as dagster:
            self.graphql, self.leader = GraphQL(dagster.url), dagster.pid
            try:
                yield self
            finally:
                Head(self.home).stop()

    def fleet(self, verb: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "fleet", verb, "--raw", str(self.raw), "--truth", str(self.home / "truth"), *arguments]
        subprocess.run(command, cwd=self.root, check=True, capture_output=True)
        for path in set(self.truth_files()) - self.sealed:  # whoever opens one of these from now on leaves a trace: its access time
            os.utime(path, ns=(0, path.stat().st_mtime_ns))
            self.sealed.add(path)

    def truth_files(self) -> list[Path]:
        return sorted(path for path in (self.home / "truth").rglob("*") if path.is_file())

    def pointer(self, asset: str, day: str) -> Pointer:
        pointer = read_pointer(self.store, asset, day)
        assert pointer, f"{asset} of {day} was not published"
        return pointer

    def run(self, job: str, day: str | None = None, last_day: str | None = None, budget_s: float = 240) -> str:
        run_id = self.graphql.launch(job, day, last_day)
        status = self.graphql.await_run(run_id, budget_s)
        assert status == "SUCCESS", f"{job} {day}: {status}\n{self.why(run_id)}"
        return run_id

    def why(self, run_id: str) -> str:
        query = """query($id: ID!) { logsForRun(runId: $id) { __typename ... on EventConnection { events { ... on MessageEvent { message }
          ... on ExecutionStepFailureEvent { message error { message } } } } } }"""
        events = self.graphql.ask(query, id=run_id).get("events", [])
        return "\n".join(str((event.get("error") or {}).get("message") or event.get("message") or "") for event in events)[-6000:]

    def keys(self, prefix: str) -> set[str]:
        return {entry.key for entry in self.store.list(prefix)}

    def attempts(self, asset: str) -> set[str]:
        """The attempts of an asset that were ever minted, as <base>/a<n>."""
        return self._attempts_with("attempt.json", asset)

    def submitted(self, asset: str) -> set[str]:
        """Those of them for which a job was created."""
        return self._attempts_with("submitted.json", asset)

    def _attempts_with(self, name: str, asset: str) -> set[str]:
        slug = asset.replace("_", "-")[:16].strip("-")
        return {"/".join(key.split("/")[1:3]) for key in self.keys("attempts/") if key.endswith(f"/{name}") and key.split("/")[1].startswith(slug)}

    def executions(self, asset: str) -> set[str]:
        slug = asset.replace("_", "-")[:16].strip("-")
        return {key for key in self.keys("attempts/") if key.endswith("/closed.json") and key.split("/")[1].startswith(slug)}

    def retry_of(self, *gone: str, budget_s: float = 60) -> str:
        """The retry of a run, or of its retries before."""
        group = {"tags": [{"key": "dagster/root_run_id", "value": gone[0]}]}
        return str(until(lambda: [run["runId"] for run in self.graphql.runs(group) if run["runId"] not in gone], budget_s, "the retry")[0])

    def session(self) -> list[int]:
        """Every process of Dagster's session: webserver, daemon, code server, run workers; not Ray, which has its own."""
        found = []
        for pid in subprocess.run(["ps", "-eo", "pid="], capture_output=True, text=True, check=True).stdout.split():
            with suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(pid)) == self.leader:
                    found.append(int(pid))
        return found

    def worker_pid(self, run_id: str) -> int:
        """The process that executes a Dagster run, as the run's own events name it."""
        return int(re.findall(r"\(pid: (\d+)\)", self.why(run_id))[-1])


def until(condition: Callable[[], Any], budget_s: float, what: str) -> Any:
    """Wait for a condition with a budget; its value, or an assertion that says what did not happen."""
    deadline = time.monotonic() + budget_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {budget_s:.0f} s")


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
