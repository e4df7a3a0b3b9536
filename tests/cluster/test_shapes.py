"""The autoscaled shape of deploy/rayjobs under the real operator, a CPU in place of the accelerator. The gang and its spare: test_training.py."""

from pathlib import Path

from tests.cluster.bench import Bench
from tests.cluster.cluster import running, until


def group(bench: Bench, name: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in bench.cluster.pods(bench.prefix) if pod["metadata"]["labels"].get("ray.io/group") == name and running(pod)]


def processes(bench: Bench, kind: str) -> str:
    """The command lines of all processes in the Ray container of a pod of this kind."""
    command = "for each in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $each; echo; done 2> /dev/null"
    return bench.cluster("exec", bench.cluster.pod(bench.prefix, kind), "-c", f"ray-{kind}", "--", "bash", "-c", command)


def test_a_gpu_group_grows_from_zero_when_a_task_asks_and_goes_again(bench: Bench, manifests: dict[str, Path]) -> None:
    going = bench.begin(bench.work(tasks=2, task_s=0.5, num_gpus=1, waits=True), target=bench.target(manifests["curation"]))
    until(lambda: group(bench, "cpu"), "the first CPU worker")
    assert group(bench, "gpu") == [], "nobody has asked for a GPU yet"
    until(lambda: group(bench, "gpu"), "a worker of the GPU group")
    until(lambda: len(bench.tasks()) == 2, "the tasks on it")
    for kind in ("head", "worker"):
        assert "raylet" in (found := processes(bench, kind)) and "log_monitor" not in found, "what the manifest asks for is heard"
    until(lambda: not group(bench, "gpu"), "its end, for nothing asks for it any more", 120)
    bench.go()
    assert going.end().error is None
    bench.assert_once()
