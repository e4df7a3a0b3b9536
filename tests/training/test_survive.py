"""Real workers and drivers that are killed, halted, hang, are asked to stop: what was trained is what would have been, and little is done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from ray_jobs.driver import Execution
from ray_jobs.seam.configs import DayDataset, TrainConfig, TrainSettings
from ray_jobs.seam.errors import DataError, UserError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training import checkpoint
from ray_jobs.training.job import run
from tests.training.faulty import faults
from tests.training.recorded import DAY, demo_day

pytestmark = pytest.mark.timeout(900)  # six trainings, each with its own processes

SETTINGS = TrainSettings(policy="tests.training.faulty:Faulty", steps=60, batch=32, workers=2, checkpoint_every=20, holdout=4, hang_s=10.0)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, DayDataset]:
    folder = tmp_path_factory.mktemp("demonstrations")
    store = Store(StoreConfig.local(folder / "store"))
    return store, demo_day(store, folder, 8)


@pytest.fixture(scope="module")
def happen(local_ray: None) -> Iterator[Any]:
    made = faults()
    yield made
    ray.kill(made)


def config(store: Store, dataset: DayDataset, settings: TrainSettings) -> TrainConfig:
    return TrainConfig(store=store.config, days=(DAY,), data=store.config, view=(dataset,), settings=settings)


def train(store: Store, dataset: DayDataset, base: str, settings: TrainSettings = SETTINGS) -> None:
    run(config(store, dataset, settings), Execution(store, prefix(base), report=lambda message: None))


def prefix(base: str) -> str:
    return f"attempts/{base}/a1/first"


def weights(store: Store, execution: str) -> torch.Tensor:
    (key,) = [entry.key for entry in store.list(execution) if entry.key.endswith("000000060.safetensors")]
    found = checkpoint._read(store, key)
    assert found is not None
    return found[1].weights


def groups(store: Store, execution: str) -> list[dict[str, Any]]:
    """What each group's first worker said when it had made its first step, oldest first."""
    notes = [json.loads(store.get(entry.key)) for entry in store.list(f"{execution}/workers/")]
    return sorted((note for note in notes if note["rank"] == 0), key=lambda note: note["began"])


@pytest.fixture(scope="module")
def whole(day: tuple[Store, DayDataset], happen: Any) -> torch.Tensor:
    """The weights where nothing happens."""
    store, dataset = day
    ray.get(happen.plan.remote())
    train(store, dataset, "whole")
    return weights(store, prefix("whole"))


def test_workers_that_are_killed_halted_or_hang_are_begun_again_to_the_same_weights(day: tuple[Store, DayDataset], whole: torch.Tensor, happen: Any) -> None:
    store, dataset = day
    ray.get(happen.plan.remote(("kill", 1, 30), ("kill", 0, 25), ("hang", 1, 3), ("halt", 1, 4)))
    train(store, dataset, "disturbed")
    happened = ray.get(happen.told.remote())
    found = groups(store, prefix("disturbed"))
    assert [kind for kind, _ in happened] == ["kill", "kill", "hang", "halt"]
    assert [group["first_step"] for group in found] == [1, 21, 41, 41, 41], "no more is lost than one interval"
    for (kind, at), group in zip(happened, found[1:], strict=True):
        print(f"{kind}: {group['first_step_at'] - at:.1f} s to the next step")
    stood = [store.get(entry.key).decode() for entry in store.list(prefix("disturbed") + "/hangs/")]
    assert any("time.sleep(3600)" in text for text in stood) and any("dist.all_reduce(vector)" in text for text in stood)
    assert torch.equal(weights(store, prefix("disturbed")), whole)


def test_a_hang_after_the_same_step_again_ends_the_job(day: tuple[Store, DayDataset], happen: Any) -> None:
    store, dataset = day
    ray.get(happen.plan.remote(("hang", 0, 30), ("hang", 0, 10)))
    with pytest.raises(UserError, match=r"training hung twice after step 29: .*hangs/000000029-rank[01]\.txt") as error:
        train(store, dataset, "hanging")
    assert "\n" not in str(error.value)


class Driver:
    """`python -m ray_jobs.training --config`, a process of its own in this test's Ray."""

    def __init__(self, store: Store, document: Path):
        self.store, self.before = store, set(executions(store))
        command = [sys.executable, "-m", "ray_jobs.training", "--config", str(document)]
        environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        self.process = subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def trained(self) -> str:
        """Its execution, as soon as that has a checkpoint."""
        ends = time.monotonic() + 240
        while time.monotonic() < ends and self.process.poll() is None:
            for name in set(executions(self.store)) - self.before:
                if checkpoint.steps(self.store, name):
                    return name
            time.sleep(0.05)
        raise AssertionError(self.process.communicate()[0])

    def end(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=240)
        return self.process.returncode, said


def executions(store: Store) -> list[str]:
    return sorted({"/".join(entry.key.split("/")[:4]) for entry in store.list("attempts/by-hand-training/a1/")})


def test_a_driver_is_asked_to_stop_the_next_is_killed_and_the_third_ends_as_if_nothing_had_been(
    day: tuple[Store, DayDataset], whole: torch.Tensor, happen: Any, tmp_path: Path
) -> None:
    store, dataset = day
    document = tmp_path / "config.json"
    document.write_text(config(store, dataset, SETTINGS).model_dump_json())
    ray.get(happen.plan.remote(pace_s=1.0))

    asked = Driver(store, document)
    first = asked.trained()
    asked.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    code, said = asked.end()
    print(f"asked: {time.monotonic() - began:.1f} s to the end")
    (reached,) = checkpoint.steps(store, first)[-1:]
    assert code == 1 and "training stopped where it stood" in said
    assert json.loads(store.get(f"{first}/error.json"))["failure_class"] == "preempted"
    assert 20 < reached < 60 and not store.exists(f"{first}/checkpoints/stop"), "a step of its own, not one that was due"

    killed = Driver(store, document)
    second = killed.trained()
    killed.process.kill()
    killed.end()
    assert not store.exists(f"{second}/error.json")

    ray.get(happen.plan.remote())
    code, said = Driver(store, document).end()
    assert code == 0, said
    third = executions(store)[-1]
    assert [group["first_step"] for group in groups(store, first) + groups(store, second)] == [1, reached + 1]
    (last,) = groups(store, third)
    assert last["first_step"] - 1 == max(checkpoint.steps(store, second))
    assert torch.equal(weights(store, third), whole)


def living(kind: str) -> list[int]:
    """The processes of this Ray's actors of a class."""
    return [actor["Pid"] for actor in ray._private.state.actors().values() if actor["ActorClassName"] == kind and actor["State"] == "ALIVE"]


def test_a_controller_that_is_killed_ends_the_job_and_its_room_is_free_again(day: tuple[Store, DayDataset], happen: Any, tmp_path: Path) -> None:
    """Ray Train's own cleaner is left out: the group goes with its controller, and the placement group with the job."""
    document, store = tmp_path / "config.json", Store(StoreConfig.local(tmp_path / "store"))
    document.write_text(config(day[0], day[1], SETTINGS).model_copy(update={"store": store.config}).model_dump_json())
    ray.get(happen.plan.remote(pace_s=1.0))
    before = living("TrainController")  # of the trainings whose errors pytest still holds
    driver = Driver(store, document)
    execution = driver.trained()
    assert len(living("RayTrainWorker")) == 2 and ray.available_resources()["CPU"] == 2
    (controller,) = set(living("TrainController")) - set(before)
    os.kill(controller, signal.SIGKILL)
    code, said = driver.end()
    assert code == 1, said
    assert json.loads(store.get(f"{execution}/error.json"))["failure_class"] == "infrastructure"
    ends = time.monotonic() + 60
    while time.monotonic() < ends and (living("RayTrainWorker") or ray.available_resources().get("CPU") != 4):
        time.sleep(0.1)
    assert not living("RayTrainWorker") and ray.available_resources()["CPU"] == 4


def test_a_loss_that_is_no_number_is_never_tried_again(day: tuple[Store, DayDataset], happen: Any) -> None:
    store, dataset = day
    ray.get(happen.plan.remote())
    with pytest.raises(DataError, match=r"the training loss became .* at step ") as error:
        train(store, dataset, "diverging", SETTINGS.model_copy(update={"learning_rate": 1e30}))
    assert "\n" not in str(error.value) and len(groups(store, prefix("diverging"))) == 1


def test_a_mistake_in_a_policy_is_told_with_its_line_and_never_tried_again(day: tuple[Store, DayDataset], happen: Any) -> None:
    store, dataset = day
    ray.get(happen.plan.remote(("mistake", 1, 10)))
    with pytest.raises(UserError, match=r"^the policy '.*:Faulty' raised KeyError: 'features' \(.*keypoints\.py, line \d+: .*\)$"):
        train(store, dataset, "mistaken")
    assert len(groups(store, prefix("mistaken"))) == 1


def test_a_policy_that_cannot_be_built_is_never_tried_again(day: tuple[Store, DayDataset], local_ray: None) -> None:
    store, dataset = day
    with pytest.raises(UserError, match=r"^these are not the observations"):
        train(store, dataset, "unbuildable", SETTINGS.model_copy(update={"policy": "tests.training.faulty:Unbuildable", "workers": 0}))


def test_a_node_that_is_drained_costs_no_step_and_an_elastic_group_goes_on_without_it(day: tuple[Store, DayDataset], tmp_path: Path) -> None:
    store, dataset = day
    document = tmp_path / "config.json"
    elastic = SETTINGS.model_copy(update={"min_workers": 1})
    document.write_text(config(store, dataset, elastic).model_dump_json())
    command = [sys.executable, "-m", "tests.training.two_nodes", str(document)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    execution = "attempts/two-nodes/a1/first"
    both, alone = groups(store, execution)
    drained_at = json.loads(done.stdout.splitlines()[-1])["drained_at"]
    assert (both["world"], alone["world"]) == (2, 1)
    assert 20 < alone["first_step"] - 1 < 60, "a step of its own, not one that was due"
    print(f"drained: {alone['first_step_at'] - drained_at:.1f} s to the next step")
    assert checkpoint.steps(store, execution)[-1] == 60
