"""One start of a driver as a real process: what it leaves in the store, what it prints, how it exits."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration.launching.failures import report_in
from ray_jobs.seam.results import Closed, JobError
from ray_jobs.seam.store import Store

REPOSITORY = Path(__file__).parents[2]
PREFIX = "attempts/episodes-x/a1"


def start(store: Store, tmp_path: Path, limit: Callable[[], None] | None = None, **config: Any) -> "subprocess.Popen[str]":
    (tmp_path / "marks").mkdir(exist_ok=True)
    document = {"store": store.config.model_dump(), "days": ["2026-01-05"], "marks": str(tmp_path / "marks"), **config}
    store.put(f"{PREFIX}/attempt.json", json.dumps({"config": document, "asset": "episodes", "run_id": "run-1"}).encode())
    command = [sys.executable, "-m", "tests.launching.jobs.tiny", "--attempt", f"{PREFIX}/attempt.json", "--store", store.config.model_dump_json()]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def keys(store: Store, name: str) -> list[str]:
    return [entry.key for entry in store.list(PREFIX) if entry.key.endswith("/" + name)]


def error_of(store: Store) -> JobError:
    (key,) = keys(store, "error.json")
    assert not keys(store, "closed.json")
    return JobError.model_validate_json(store.get(key))


def test_closed_comes_last_and_a_restart_finds_it(store: Store, tmp_path: Path) -> None:
    assert finish(start(store, tmp_path))[0] == 0
    (key,) = keys(store, "closed.json")
    closed = Closed.model_validate_json(store.get(key))
    assert closed.execution == key.split("/")[-2] and closed.peak_memory_bytes > 10_000_000
    assert all(entry.modified_ns <= store.head(key).modified_ns for entry in store.list(key.rsplit("/", 1)[0]))
    code, out, _ = finish(start(store, tmp_path))
    assert code == 0 and "sibling" in out and len(keys(store, "closed.json")) == 1 and len(list((tmp_path / "marks").iterdir())) == 1


def test_attempt_that_ended_is_not_begun(store: Store, tmp_path: Path) -> None:
    store.put(f"{PREFIX}/ended.json", b"{}")
    code, out, _ = finish(start(store, tmp_path))
    assert code == 0 and "has ended" in out and not list((tmp_path / "marks").iterdir())


@pytest.mark.parametrize(
    ("config", "failure_class", "says"),
    [
        ({"mode": "user"}, "user", "told to fail"),
        ({"mode": "content"}, "data", "no row could carry"),
        ({"mode": "unforeseen"}, "user", "ZeroDivisionError: nobody foresaw this"),
        ({"waits": True, "deadline_s": 0.3}, "user", "did not finish within its 0 s"),
    ],
)
def test_error_is_reported_with_its_class(store: Store, tmp_path: Path, config: dict[str, Any], failure_class: str, says: str) -> None:
    code, _, err = finish(start(store, tmp_path, **config))
    report = error_of(store)
    assert code == 1 and report.failure_class == failure_class and says in report.message and says in err


def test_sigterm_is_reported(store: Store, tmp_path: Path) -> None:
    process = start(store, tmp_path, waits=True)
    deadline = time.monotonic() + 30
    while not keys(store, "000000.json") and time.monotonic() < deadline:
        time.sleep(0.02)
    while not list((tmp_path / "marks").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 1 and error_of(store).failure_class == "preempted"


WAITING = """
import sys
import ray
from ray_jobs import driver
from ray_jobs.seam.configs import JobConfig
from ray_jobs.seam.store import Store, StoreConfig

@ray.remote
class Busy:
    def work(self):
        import threading
        threading.Event().wait(600)

def run(config, execution):
    driver.connect()
    busy = Busy.remote()
    ray.get(busy.__ray_ready__.remote())
    execution.store.put("ready", b"")
    ray.get(busy.work.remote())

store = StoreConfig.local(sys.argv[1])
sys.exit(driver.execute("waiting", JobConfig(store=store, days=("2026-01-05",), deadline_s=float(sys.argv[2])), Store(store), "attempts/waiting/a1", run))
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("deadline_s", [600.0, 20.0], ids=["SIGTERM", "deadline"])
def test_a_driver_that_waits_for_ray_is_ended_too(store: Store, tmp_path: Path, deadline_s: float) -> None:
    command = [sys.executable, "-c", WAITING, str(store.root), str(deadline_s)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": str(REPOSITORY)}
    began = time.monotonic()
    with subprocess.Popen(command, env=environment) as process:
        while not store.exists("ready") and process.poll() is None and time.monotonic() < began + 300:
            time.sleep(0.1)
        if deadline_s == 600.0:
            process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 1
    (key,) = [entry.key for entry in store.list("attempts/") if entry.key.endswith("/error.json")]
    report = JobError.model_validate_json(store.get(key))
    assert report.failure_class == ("preempted" if deadline_s == 600.0 else "user") and "\n" not in report.message
    assert time.monotonic() - began < 500, "the task would have gone on for ten minutes"


def test_unknown_key_is_one_line(store: Store, tmp_path: Path) -> None:
    code, _, err = finish(start(store, tmp_path, colour="red"))
    report = report_in(err)
    assert code == 1 and report is not None and report.failure_class == "user" and "colour" in report.message and "Traceback" not in err


@pytest.mark.parametrize("room", [8, 50_000])
def test_full_store_is_one_line_and_nothing_is_half_published(store: Store, tmp_path: Path, room: int) -> None:
    """A file that grows beyond `room` bytes fails, as on a full disk: nothing fits, or all but the result does."""
    code, _, err = finish(start(store, tmp_path, limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)), mode="large"))
    report = report_in(err) if room == 8 else error_of(store)
    assert code == 1 and report is not None and report.failure_class == "infrastructure" and "closed.json" in report.message
    assert "Traceback" not in err and "\n" not in report.message
    assert not keys(store, "closed.json") and len(keys(store, "error.json")) == (room != 8)


def test_by_hand_it_prints_its_progress(store: Store, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    document = {"store": store.config.model_dump(), "days": ["2026-01-05"], "marks": str(tmp_path / "marks")}
    (tmp_path / "config.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "tests.launching.jobs.tiny", "--config", str(tmp_path / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert [json.loads(line)["stage"] for line in done.stdout.splitlines()] == ["waiting", "done"]
