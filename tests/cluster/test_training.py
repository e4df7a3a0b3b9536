"""A gang of two that trains, loses a member beside a spare, and its head; a member with notice: test_dagster.py. What it costs: docs/training.md."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.launching.work import Work
from ray_jobs.seam.configs import DayDataset, TrainConfig, TrainSettings
from ray_jobs.seam.store import Store
from ray_jobs.training import checkpoint
from tests.cluster.bench import BUDGETS, Bench
from tests.cluster.cluster import Cluster, ready, until
from tests.training.recorded import demo_day

EVERY = 25
BUDGET_S = 400.0  # of a group of workers that starts, on two cores that others want too
# Of a fifth of a second each; a gang goes on for up to a minute after its head, and then something must be left
SETTINGS = TrainSettings(policy="tests.cluster.jobs.slow:Slow", steps=400, batch=32, workers=2, checkpoint_every=EVERY, holdout=4)


@pytest.fixture(scope="module")
def dataset(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> DayDataset:
    return demo_day(Store(cluster.store), tmp_path_factory.mktemp("demonstrations"), 8)


def work(bench: Bench, dataset: DayDataset) -> Work:
    def config(days: tuple[str, ...]) -> dict[str, object]:
        return TrainConfig(store=bench.cluster.store, days=days, data=bench.cluster.store, view=(dataset,), settings=SETTINGS).model_dump(mode="json")

    return replace(
        bench.work(budgets=BUDGETS.model_copy(update={"starting": 600.0})),
        module="ray_jobs.training",
        config_for=config,
        settings=SETTINGS.model_dump(mode="json"),
    )


def gang(bench: Bench) -> list[str]:
    return [pod["metadata"]["name"] for pod in bench.cluster.pods(bench.prefix) if pod["metadata"]["labels"]["ray.io/group"] == "gang" and ready(pod)]


def workers(bench: Bench) -> list[dict[str, Any]]:
    """What each worker of each group said when it had made its first step: the groups in order, their ranks in order."""
    keys = [entry.key for execution in bench.executions() for entry in bench.store.list(f"{execution}/workers/")]
    return sorted((json.loads(bench.store.get(key)) for key in keys), key=lambda note: (note["first_step_at"] // 5, note["rank"]))


def steps(bench: Bench) -> list[int]:
    return sorted(step for execution in bench.executions() for step in checkpoint.steps(bench.store, execution))


def test_5_a_gang_with_a_hot_spare_loses_a_pod_and_waits_for_none_and_then_loses_its_head(
    bench: Bench, manifests: dict[str, Path], dataset: DayDataset, tmp_path: Path
) -> None:
    document = yaml.safe_load(manifests["training"].read_text())
    document["spec"]["rayClusterSpec"]["workerGroupSpecs"][0] |= {"replicas": 3, "minReplicas": 3, "maxReplicas": 3}
    (tmp_path / "gang.yaml").write_text(yaml.safe_dump(document))
    going = bench.begin(work(bench, dataset), target=bench.target(tmp_path / "gang.yaml"))
    until(lambda: steps(bench), "the first checkpoint", BUDGET_S)
    before = until(lambda: found if len(found := gang(bench)) == 3 else [], "a gang of three", BUDGET_S)

    at, gone, reached = time.time(), workers(bench)[0]["host"], steps(bench)[-1]
    bench.cluster("delete", "pod", gone, "--grace-period=0", "--force")
    until(lambda: len(workers(bench)) == 4, "two workers again", BUDGET_S)
    again = workers(bench)[2:]
    print(f"a pod without notice, and a spare: {again[0]['first_step_at'] - at:.1f} s to the next step, from step {again[0]['first_step'] - 1}")
    assert {each["world"] for each in again} == {2} and {each["host"] for each in again} == set(before) - {gone}, "those that were there"
    assert again[0]["first_step"] - 1 >= reached, "no more is lost than one interval"
    assert len(bench.executions()) == 1 and len(bench.created()) == 1, "the driver never died"

    at, reached = time.time(), steps(bench)[-1]
    bench.cluster("delete", "pod", bench.cluster.pod(bench.prefix, "head"), "--wait=false")
    until(lambda: len(workers(bench)) == 6, "two workers of the next execution", BUDGET_S)
    last = workers(bench)[4]
    print(f"the head: {last['first_step_at'] - at:.1f} s to the next step, from step {last['first_step'] - 1}")
    assert {each["world"] for each in workers(bench)} == {2}
    assert last["first_step"] - 1 >= reached, "no more is lost than one interval"
    assert going.end().error is None
    assert len(bench.executions()) == 2 and steps(bench)[-1] == SETTINGS.steps
    assert len(bench.created()) <= 2
    bench.assert_once(created=len(bench.created()))
