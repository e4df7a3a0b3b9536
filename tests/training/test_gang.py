"""What two workers agree on, over a real process group: leaving at the same step, and one that fails alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.seam.errors import DataError, FlywheelError, StoreError, UserError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training import checkpoint
from ray_jobs.training.gang import fail, failure

WORKER = """
import os, sys, time
from pathlib import Path
import torch, torch.distributed as dist
from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import DataError, FlywheelError, StoreError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training import checkpoint
from ray_jobs.training.gang import Leaving, Member, OtherFailed, stop_key
from ray_jobs.training import gang
from ray_jobs.training.loop import State

rank, folder, drained = int(sys.argv[1]), Path(sys.argv[2]), []
gang.drained = lambda: bool(drained)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
store = Store(StoreConfig.local(folder / "store"))
settings = TrainSettings(steps=12, checkpoint_every=5)

def train(case, at=lambda step: None):
    state = State(0, *(torch.zeros(3) for _ in range(3)))
    member = Member(store, case, "subject", settings, rank, 2, 0, torch.device("cpu"))
    with member:
        try:
            while state.step < settings.steps:
                at(state.step)
                vector = torch.tensor([1.0, 1.0, 1.0, 0.5, 9.0])
                member.reduce(vector)
                assert vector[:4].tolist() == [2, 2, 2, 1]
                state.weights += vector[:3]
                state.step += 1
                state.curve.append((state.step, float(vector[3])))
                member.after(state)
            return f"ended at {state.step}"
        except OtherFailed:
            return f"other failed before {state.step + 1}"
        except Leaving as left:
            member.stopped()
            return f"left after {state.step}: {gang.drained()}"
        except FlywheelError as error:
            member.failed(error, state)
            return f"failed before {state.step + 1}"

def told(step):
    if rank == 1 and step == 6:
        drained.append(step)

def asked(step):
    if step == 3:
        store.put(stop_key("asked"), b"")
    time.sleep(0.3)

def broken(step):
    if rank == 1 and step == 7:
        raise DataError("shard 3 is not whole")

def refused(step):
    (folder / "store" / "refused").write_text("a file where the folder has to be")
    time.sleep(0.05)

print(train("whole"))
print(train("told", told))
drained.clear()
print(train("asked", asked))
print(train("broken", broken))
try:
    print(train("refused", refused))
except StoreError:
    print("raised: Ray Train begins it again")
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[list[str]]]:
    """The store, and what each of two workers said of each case."""
    folder = tmp_path_factory.mktemp("gang")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", WORKER]
    workers = [subprocess.Popen([*command, str(rank), str(folder)], env=environment, stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    lines = [worker.communicate(timeout=240)[0].splitlines() for worker in workers]
    return Store(StoreConfig.local(folder / "store")), [[line for line in each if not line.startswith(("the checkpoint", "not written"))] for each in lines]


def test_undisturbed_the_last_step_lies_in_the_store(said: tuple[Store, list[list[str]]]) -> None:
    store, lines = said
    assert [each[0] for each in lines] == ["ended at 12"] * 2
    found = checkpoint.newest(store, ["whole"], "subject")
    assert found is not None and found.step == 12 and found.weights.tolist() == [24.0] * 3


def test_one_that_is_told_takes_all_with_it_and_no_step_is_lost(said: tuple[Store, list[list[str]]]) -> None:
    store, lines = said
    assert lines[0][1] == "left after 7: False" and lines[1][1] == "left after 7: True"
    found = checkpoint.newest(store, ["told"], "subject")
    assert found is not None and found.step == 7 and found.weights.tolist() == [14.0] * 3


def test_the_driver_asks_and_is_answered(said: tuple[Store, list[list[str]]]) -> None:
    store, lines = said
    assert lines[0][2] == lines[1][2] and lines[0][2].startswith("left after ")
    found = checkpoint.newest(store, ["asked"], "subject")
    assert found is not None and lines[0][2] == f"left after {found.step}: False" and 4 <= found.step < 12
    assert not store.exists("asked/checkpoints/stop")


def test_one_that_fails_alone_leaves_none_waiting(said: tuple[Store, list[list[str]]]) -> None:
    store, lines = said
    assert [each[3] for each in lines] == ["other failed before 8", "failed before 8"]
    error = failure(store, "broken")
    assert isinstance(error, DataError) and str(error) == "shard 3 is not whole"
    assert checkpoint.steps(store, "broken") == [5]


def test_a_store_that_takes_nothing_any_more_ends_all(said: tuple[Store, list[list[str]]]) -> None:
    store, lines = said
    assert lines[0][4].startswith("raised") and lines[1][4].startswith("other failed before "), lines
    assert not list(store.list("refused"))


@pytest.mark.parametrize("error", [DataError("a"), UserError("b"), StoreError("c")])
def test_a_failure_comes_back_as_what_it_was(store: Store, error: FlywheelError) -> None:
    assert failure(store, "some") is None
    fail(store, "some", error)
    found = failure(store, "some")
    assert type(found) is type(error) and str(found) == str(error)
