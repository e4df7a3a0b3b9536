"""What every test may use: a store, a local Ray of this worker's own, and the real recordings beside the checkout."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ray_jobs.seam.store import Store, StoreConfig

# By default Ray starts a worker for each CPU at once; here many a Ray is over before a second task asks for one
os.environ.setdefault("RAY_prestart_worker_first_driver", "false")
os.environ.setdefault("RAY_LOG_MONITOR_MANY_FILES_THRESHOLD", "0")  # twice a second it looks for new logs, and not ten times
settings.register_profile("shared", deadline=None)  # on a busy machine a test is slow, and not wrong
settings.load_profile("shared")

# The two longest, so that no process works alone at the end: one is begun first, the other in the middle, for its hangs are told by the clock
LONGEST, NEXT, MIDDLE = "tests/loop/test_days.py", "tests/training/test_survive.py", "tests/local/"
SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    if item.nodeid.startswith(LONGEST):
        return 0
    if item.nodeid.startswith(NEXT):
        return 2
    return 1 if item.nodeid < MIDDLE else 3


class ToldAtOnce:
    """Pytest tells what failed at the end; a run that is ended from outside would tell nothing."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            said = report.longreprtext.strip().splitlines() or ["no text"]
            self.config.get_terminal_writer().line(f"\n{report.nodeid}, {report.when}: {next((line for line in said if line.startswith('E ')), said[-1])}")


def pytest_configure(config: pytest.Config) -> None:
    # A script's `&` leaves SIGINT ignored, Dagster then ignores SIGTERM too, and every process that a test starts inherits both
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(ToldAtOnce(config))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StoreConfig.local(tmp_path / "store"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings. Missing, it is a failure in CI and a skip elsewhere."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail("../shared/data is missing, and CI must not pass without it")
        pytest.skip("../shared/data is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of this test process, with more logical than physical CPUs, as the embedded target has."""
    import ray

    folder = tempfile.mkdtemp(prefix="fw-", dir="/tmp")  # Ray's socket paths must stay short
    ray.init(address="local", num_cpus=4, include_dashboard=False, _temp_dir=folder, log_to_driver=False, object_store_memory=300_000_000)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
