"""The shapes of deploy/rayjobs under the real operator: a GPU group from zero, and a gang with a hot spare. CPUs stand in for the accelerator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.bench import Bench
from tests.cluster.cluster import ready, running, until


def group(bench: Bench, name: str, state: Callable[[dict[str, Any]], bool] = running) -> list[str]:
    return [pod["metadata"]["name"] for pod in bench.cluster.pods(bench.prefix) if pod["metadata"]["labels"].get("ray.io/group") == name and state(pod)]


def test_a_gpu_group_grows_from_zero_when_a_task_asks_and_goes_again(bench: Bench, manifests: dict[str, Path]) -> None:
    going = bench.begin(bench.work(tasks=2, task_s=0.5, num_gpus=1, waits=True), target=bench.target(manifests["curation"]))
    until(lambda: group(bench, "cpu"), "the first CPU worker")
    assert group(bench, "gpu") == [], "nobody has asked for a GPU yet"
    until(lambda: group(bench, "gpu"), "a worker of the GPU group")
    until(lambda: len(bench.tasks()) == 2, "the tasks on it")
    until(lambda: not group(bench, "gpu"), "its end, for nothing asks for it any more", 120)
    bench.go()
    assert going.end().error is None
    bench.assert_once()


def test_a_gang_with_a_hot_spare_loses_one_worker_and_waits_for_none(bench: Bench, manifests: dict[str, Path], tmp_path: Path) -> None:
    document = yaml.safe_load(manifests["training"].read_text())
    document["spec"]["rayClusterSpec"]["workerGroupSpecs"][0] |= {"replicas": 3, "minReplicas": 3, "maxReplicas": 3}
    (tmp_path / "gang.yaml").write_text(yaml.safe_dump(document))
    going = bench.begin(bench.work(tasks=10, task_s=0.5, waits=True), target=bench.target(tmp_path / "gang.yaml"))
    gang = until(lambda: found if len(found := group(bench, "gang", ready)) == 3 else [], "a gang of three")
    until(lambda: len(bench.tasks()) >= 2, "two tasks")
    bench.cluster("delete", "pod", gang[0], "--wait=false")
    until(lambda: len(bench.tasks()) == 10, "all tasks, on those that are left", 30)
    bench.go()
    assert going.end().error is None and len(bench.starts()) == 1
    bench.assert_once()
