"""The search on a real Ray: every trial's numbers follow from the settings, poor ones are stopped, and a lost driver's trials are not done again."""

import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from ray_jobs.driver import Execution
from ray_jobs.seam.configs import DayDataset, TrainSettings, Tuned, TuningConfig, TuningSettings
from ray_jobs.seam.errors import StoreError, UserError
from ray_jobs.seam.results import DayResult
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.policies.keypoints import Keypoints
from ray_jobs.tuning.job import run
from ray_jobs.tuning.search import Trial
from tests.training.recorded import DAY, demo_day

TRAINING = TrainSettings(batch=64, workers=2, holdout=4, learning_rate=2e-3)
SEARCH = TuningSettings(trials=5, learning_rate=(1e-5, 5e-3), batch=(32, 64), episodes=0.6, steps=36, rungs=2, reduction=3, workers=1)
SAID: list[dict[str, object]] = []


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, DayDataset]:
    folder = tmp_path_factory.mktemp("demonstrations")
    store = Store(StoreConfig.local(folder / "store"))
    return store, demo_day(store, folder, 16)


def execution(store: Store, name: str, base: str = "base") -> Execution:
    """Its report cannot be pickled, as the one to Dagster cannot."""
    lock = threading.Lock()

    def report(message: dict[str, object]) -> None:
        with lock:
            SAID.append(message)

    return Execution(store, f"attempts/{base}/a1/{name}", report=report)


def config(store: Store, dataset: DayDataset, training: TrainSettings = TRAINING, settings: TuningSettings = SEARCH) -> TuningConfig:
    return TuningConfig(store=store.config, days=(DAY,), data=store.config, view=(dataset,), training=training, settings=settings)


@pytest.fixture(scope="module")
def searched(day: tuple[Store, DayDataset], local_ray: None) -> Iterator[DayResult]:
    store, dataset = day
    yield run(config(store, dataset), execution(store, "first"))[DAY]


def trials(store: Store, result: DayResult) -> list[Trial]:
    return [Trial.model_validate(each) for each in json.loads(store.get(result.output["evidence"]))["trials"]]


def test_the_best_of_what_was_trained_to_the_end_and_where_the_others_were_stopped(day: tuple[Store, DayDataset], searched: DayResult) -> None:
    store, _ = day
    found = trials(store, searched)
    assert len(found) == 5 and found[0].candidate.learning_rate == 2e-3
    assert {trial.step for trial in found} <= {4, 12, 36} and 36 in {trial.step for trial in found}
    assert searched.counts["stopped"] == sum(trial.step < 36 for trial in found) > 0 and searched.counts["failed"] == 0
    assert [message["done"] for message in SAID if message["stage"] == "trials"][:5] == [1, 2, 3, 4, 5]
    best = Tuned.model_validate(searched.output["best"])
    whole = [trial for trial in found if trial.step == 36]
    assert best.error == min(trial.points[-1][1] for trial in whole)
    assert best.apply(TRAINING).learning_rate == best.learning_rate and best.apply(TRAINING).steps == TRAINING.steps
    assert searched.shown["trials"].value.count("\n") == 6 and "**best** at step 36" in searched.shown["trials"].value
    assert searched.shown["curves"].value.startswith("![action error of each trial](data:image/png;base64,")
    evidence = json.loads(store.get(searched.output["evidence"]))
    assert len(evidence["episodes"]) == searched.counts["episodes"] == -(-6 * (16 - len_held_out(store, day[1])) // 10)
    assert not set(evidence["episodes"]) & set(evidence["held_out"])


def len_held_out(store: Store, dataset: DayDataset) -> int:
    from ray_jobs.packing.view import episodes_of
    from ray_jobs.training.selection import is_held_out

    return sum(is_held_out(episode.episode_id, 4) for episode in episodes_of(store, dataset))


def test_one_at_a_time_gives_the_same_to_the_last_digit(day: tuple[Store, DayDataset], searched: DayResult) -> None:
    store, dataset = day
    again = run(config(store, dataset), execution(store, "only", base="again"))[DAY]
    assert (again.output, again.output_digest) == (searched.output, searched.output_digest)


def test_several_at_a_time_give_each_trial_the_same_numbers(day: tuple[Store, DayDataset], searched: DayResult) -> None:
    """Where a trial is stopped may differ: that depends on who came to the rung before."""
    store, dataset = day
    together = run(config(store, dataset, settings=SEARCH.model_copy(update={"workers": 3})), execution(store, "only", base="together"))[DAY]
    for one, other in zip(trials(store, searched), trials(store, together), strict=True):
        shared = min(len(one.points), len(other.points))
        assert one.candidate == other.candidate and shared and one.points[:shared] == other.points[:shared]


def test_what_a_lost_driver_left_is_not_done_again(day: tuple[Store, DayDataset], searched: DayResult) -> None:
    store, dataset = day
    for entry in list(store.list("attempts/base/a1/first/trials/")):
        store.put(entry.key.replace("/base/", "/lost/"), store.get(entry.key))
    some = sorted(entry.key for entry in store.list("attempts/lost/a1/first/trials/"))
    store.put(some[0], store.get(some[0])[:20])  # one that was cut short
    again = run(config(store, dataset), execution(store, "second", base="lost"))[DAY]
    assert again.output == searched.output
    noted = {entry.key.rsplit("/", 1)[1] for entry in store.list("attempts/lost/a1/second/trials/")}
    assert noted == {some[0].rsplit("/", 1)[1]}, "only the trial whose note was cut short is trained"


def mark() -> Path:
    """A file that this test and Ray's workers name alike."""
    return Path(tempfile.gettempdir()) / f"fw-mortal-{ray.get_runtime_context().get_job_id()}-{os.getuid()}"


class Mortal(Keypoints):
    """Its process is killed in the tenth step, unless there is the mark that this has happened."""

    name = "mortal"
    losses = 0

    def loss(self, seen: dict[str, torch.Tensor], actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        self.losses += 1
        if self.losses == 10 and not mark().exists():
            mark().touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(seen, actions, valid)


def test_a_trial_whose_process_is_killed_is_done_again_to_the_same_numbers(day: tuple[Store, DayDataset], local_ray: None) -> None:
    store, dataset = day
    mortal = "tests.tuning.test_tuning_job:Mortal"
    two = SEARCH.model_copy(update={"trials": 2, "learning_rate": (3e-3, 3e-3), "batch": (64,), "policy": (mortal,)})
    told = config(store, dataset, TRAINING.model_copy(update={"policy": mortal}), two)
    mark().unlink(missing_ok=True)
    try:
        killed = run(told, execution(store, "only", base="killed"))[DAY]
        assert mark().exists(), "nothing was killed"
        spared = run(told, execution(store, "only", base="spared"))[DAY]
    finally:
        mark().unlink(missing_ok=True)
    assert killed.output == spared.output and killed.output["best"]


class Diskless(Keypoints):
    """Something that no other settings would mend."""

    name = "diskless"

    def loss(self, seen: dict[str, torch.Tensor], actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        raise StoreError("the disk is full; free or enlarge it")


def test_what_is_no_trials_fault_ends_the_job_with_its_line(day: tuple[Store, DayDataset], local_ray: None) -> None:
    store, dataset = day
    training = TRAINING.model_copy(update={"policy": "tests.tuning.test_tuning_job:Diskless"})
    with pytest.raises(StoreError, match=r"^the disk is full; free or enlarge it$"):
        run(config(store, dataset, training, SEARCH.model_copy(update={"trials": 2, "workers": 2})), execution(store, "only", base="diskless"))


def test_a_trial_that_diverges_is_told_and_the_others_go_on(day: tuple[Store, DayDataset], local_ray: None) -> None:
    store, dataset = day
    wild = SEARCH.model_copy(update={"trials": 2, "learning_rate": (1e-3, 2e-3)})
    result = run(config(store, dataset, TRAINING.model_copy(update={"learning_rate": 1e30}), wild), execution(store, "only", base="wild"))[DAY]
    assert result.counts["failed"] == 1 and result.output["best"]["error_as_set"] is None
    assert "failed: the training loss became" in result.shown["trials"].value


def test_without_held_out_episodes_there_is_nothing_to_compare_on(day: tuple[Store, DayDataset]) -> None:
    store, dataset = day
    result = run(config(store, dataset, TRAINING.model_copy(update={"holdout": 0})), execution(store, "only", base="none"))[DAY]
    assert (result.status, result.output["best"]) == ("ok", None)
    assert result.reason == "no episode is held out to compare trials on: set training.holdout, or wait for more episodes"


def test_an_unknown_policy_is_told_before_anything_starts(store: Store, tmp_path: Path, day: tuple[Store, DayDataset]) -> None:
    with pytest.raises(UserError, match="'keypoint'"):
        run(config(day[0], day[1], settings=SEARCH.model_copy(update={"policy": ("keypoint",)})), execution(store, "only"))
