"""A copy that is killed at any moment is gone on with: the same bytes in the end, and until then nothing that a reader would take for whole."""

import multiprocessing
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.clouds import cloud
from tests.cluster.copying import Pair, document, pair, transfer_of
from tests.transfer.made import content, make

pytestmark = pytest.mark.testbed  # the servers' program is compiled by the project's own testbed
KILLS = 30


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    with cloud("ROBOTS", tmp_path / "robots") as here, cloud("COMPUTE", tmp_path / "compute") as there:
        for name, value in (here.environment() | there.environment()).items():
            monkeypatch.setenv(name, value)
        (tmp_path / "dataset").mkdir()
        with pair(here, there, make(tmp_path / "dataset", small=40, large=3)) as made:
            yield made


def start(two: Pair) -> multiprocessing.process.BaseProcess:
    """A copy in a process of its own; a server that has imported everything forks it, so that it begins at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.cluster.copying"])
    process = context.Process(target=transfer_of, args=(document(two),))
    process.start()
    return process


def clear(two: Pair) -> None:
    for entry in list(two.destination.list()):
        two.destination.delete(entry.key)


def test_killed_at_thirty_random_moments(two: Pair) -> None:
    times = []
    for _ in range(3):  # how long an undisturbed copy takes
        clear(two)
        started = time.monotonic()
        process = start(two)
        process.join(60)
        times.append(time.monotonic() - started)
        two.whole()
    chance, interrupted = random.Random(6), 0
    for number in range(KILLS):
        clear(two)
        moment = chance.uniform(0.0, sorted(times)[1])
        process = start(two)
        process.join(moment)
        process.kill()
        process.join(30)
        told = f"kill {number} after {moment:.3f} s"
        two.nothing_wrong()
        interrupted += not two.published()
        before = set(content(two.destination))
        resumed = two.copy()
        assert resumed.status == "ok" and resumed.counts["skipped"] >= len(before - {f"{two.dataset.prefix}/manifest.json"}), told
        two.whole()
        assert two.copy().counts["copied"] == 0, told
    assert interrupted >= KILLS // 3, "most kills came before the end"
