"""The driver's parent, as a process with a real child: what it prints is kept, and how it was killed is told."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ray_jobs.guard import EXECUTION, FIRST_INTERVAL_S, LAST_INTERVAL_S, MAX_LOG_BYTES, pause
from ray_jobs.seam.results import JobError
from ray_jobs.seam.store import Store, StoreConfig

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """A package `job` beside the test, whose text the test writes."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "__init__.py").touch()
    return tmp_path / "job" / "__main__.py"


class Guarded:
    def __init__(self, store: Store, driver: Path, text: str):
        driver.write_text(text)
        self.store = store
        environ = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{driver.parents[1]}"}
        command = [sys.executable, "-m", "ray_jobs.guard", "job", "--attempt", "attempts/b/a1/attempt.json", "--store", store.config.model_dump_json()]
        self.process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)

    def end(self) -> tuple[int, bytes]:
        printed, _ = self.process.communicate(timeout=60)
        return self.process.returncode, printed

    def log(self) -> bytes:
        return b"".join(self.store.get(entry.key) for entry in sorted(self.store.list("attempts/"), key=lambda each: each.key) if "/log/" in entry.key)

    def report(self) -> JobError | None:
        found = [entry.key for entry in self.store.list("attempts/") if entry.key.endswith("/error.json")]
        return JobError.model_validate_json(self.store.get(found[0])) if found else None


def test_what_the_driver_prints_is_passed_on_and_kept_whole(store: Store, driver: Path) -> None:
    text = f"import os, sys\nprint('first', os.environ['{EXECUTION}'])\nprint('é' * 100_000, file=sys.stderr)\nsys.stdout.write('no newline')\nsys.exit(7)"
    guarded = Guarded(store, driver, text)
    code, printed = guarded.end()
    assert code == 7 and printed == guarded.log() and "é".encode() * 100_000 in printed and b"no newline" in printed
    (execution,) = {entry.key.split("/")[3] for entry in store.list("attempts/")}
    assert f"first {execution}".encode() in printed
    assert guarded.report() is None, "a driver that ends by itself reports by itself"


def test_a_log_without_end_is_cut_in_the_store_alone(store: Store, driver: Path) -> None:
    guarded = Guarded(store, driver, f"import sys\nfor _ in range({MAX_LOG_BYTES // 2**20 + 3}):\n    sys.stdout.write('x' * 2**20)")
    code, printed = guarded.end()
    assert code == 0 and len(printed) == MAX_LOG_BYTES + 3 * 2**20
    assert MAX_LOG_BYTES <= len(guarded.log()) <= MAX_LOG_BYTES + 200 and b"the cluster has the rest" in guarded.log()


@pytest.mark.parametrize(("number", "failure"), [(signal.SIGKILL, "infrastructure"), (signal.SIGSEGV, "user")])
def test_a_killed_driver_is_told(store: Store, driver: Path, number: signal.Signals, failure: str) -> None:
    guarded = Guarded(store, driver, f"import os\nprint('here', flush=True)\nos.kill(os.getpid(), {int(number)})")
    assert guarded.end()[0] == 128 + number
    report = guarded.report()
    assert report is not None and report.failure_class == failure and number.name in report.message
    assert guarded.log() == b"here\n"


def test_sigterm_reaches_the_driver(store: Store, driver: Path) -> None:
    text = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nprint('ready', flush=True)\ntime.sleep(60)"
    guarded = Guarded(store, driver, text)
    assert guarded.process.stdout is not None and guarded.process.stdout.readline() == b"ready\n"
    guarded.process.terminate()
    assert guarded.end()[0] == 5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_guard_takes_its_driver_with_it(store: Store, driver: Path) -> None:
    guarded = Guarded(store, driver, "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)")
    assert guarded.process.stdout is not None
    pid = int(guarded.process.stdout.readline())
    guarded.process.kill()
    guarded.process.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_store_that_takes_nothing_does_not_hold_the_driver(driver: Path, tmp_path: Path) -> None:
    closed = Store(StoreConfig(url="s3://nothing", endpoint="http://127.0.0.1:9", region="x", credentials=None))
    guarded = Guarded(closed, driver, "print('done')")
    code, printed = guarded.end()
    assert code == 0 and b"done" in printed


def test_pieces_come_twice_a_second_at_first_and_less_often_later() -> None:
    assert pause(0) == FIRST_INTERVAL_S and pause(1e6) == LAST_INTERVAL_S
    ages = [pause(age) for age in (0, 10, 100, 1000)]
    assert ages == sorted(ages)
