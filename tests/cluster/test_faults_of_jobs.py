"""Jobs that fail, do not fit or may not be: on the real cluster, by the protocol alone.

The numbers are those of the table in docs/launching.md.
"""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.launching.effects import Denied, InvalidSpec
from orchestration.launching.kuberay.api import Kubernetes
from orchestration.launching.work import Budgets, Resources
from tests.cluster.bench import Bench


def changed(manifest: Path, tmp_path: Path, change: Any) -> Path:
    """The manifest with a change made to its document."""
    document = yaml.safe_load(manifest.read_text())
    change(document)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def head(document: Any) -> Any:
    return document["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]


def test_8_an_exception_is_the_users_and_is_never_retried(bench: Bench) -> None:
    outcome = bench.perform(bench.work("exception"))
    assert outcome.failure_class == "user" and outcome.error is not None
    assert "ZeroDivisionError: nobody foresaw this" in outcome.error and "fix the code" in outcome.error
    assert "Traceback (most recent call last)" in "".join(bench.printed), "the traceback is in the log"
    assert len(bench.starts()) == 1 and len(bench.created()) == 1 and not bench.pointers()
    bench.assert_nothing_left()


def test_7_a_driver_out_of_memory_is_retried_once_with_more(bench: Bench, manifests: dict[str, Path], tmp_path: Path) -> None:
    small = changed(manifests["small"], tmp_path, lambda document: head(document)["resources"].update(limits={"memory": "1300Mi"}))
    outcome = bench.perform(bench.work("driver out of memory", mebibytes=1000, resources=Resources(memory_limit=4 * 2**30)), target=bench.target(small))
    assert outcome.error is None, outcome.error
    killers = ("ran out of memory", "running low on memory")  # the kernel and Ray's memory monitor, whoever comes first
    assert any("out_of_memory" in line and any(words in line for words in killers) for line in bench.lines), bench.lines
    assert len(bench.starts()) == 2, "the first was killed, the second had room"
    bench.assert_once(created=2)


def test_7_a_worker_out_of_memory_is_told_and_retried_once(bench: Bench, manifests: dict[str, Path]) -> None:
    resources = Resources(memory_limit=2 * 2**30)  # no more than it has: there is no retry that would do better
    outcome = bench.perform(bench.work("worker out of memory", resources=resources), target=bench.target(manifests["worker"]))
    assert outcome.failure_class == "out_of_memory" and outcome.error is not None and "give the step more memory" in outcome.error
    assert not bench.pointers() and len(bench.created()) <= 2
    bench.assert_nothing_left()


def test_9_a_spec_that_the_api_server_refuses_is_told_at_once(bench: Bench, manifests: dict[str, Path], tmp_path: Path) -> None:
    wrong = changed(manifests["small"], tmp_path, lambda document: document["spec"].update(backoffLimit="not a number"))
    started = time.monotonic()
    outcome = bench.perform(bench.work(), target=bench.target(wrong))
    assert outcome.failure_class == "invalid_spec" and outcome.error is not None and "backoffLimit" in outcome.error
    assert time.monotonic() - started < 10 and bench.created() == []
    bench.assert_nothing_left()


def test_9_a_spec_that_kuberay_refuses_is_told_at_once(bench: Bench, manifests: dict[str, Path], tmp_path: Path) -> None:
    wrong = changed(manifests["small"], tmp_path, lambda document: document["spec"].update(shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=5))
    outcome = bench.perform(bench.work(), target=bench.target(wrong))
    assert outcome.failure_class == "invalid_spec" and outcome.error is not None and "TTLSecondsAfterFinished" in outcome.error
    assert len(bench.created()) == 1, "never retried"
    bench.assert_nothing_left()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: head(document).update(image="nowhere.invalid/nothing:1", imagePullPolicy="Always"), "ImagePull|ErrImagePull|Failed"),
        (lambda document: head(document)["resources"].update(requests={"cpu": "64"}, limits={"cpu": "64", "memory": "2Gi"}), "Insufficient cpu"),
    ],
    ids=["image", "place"],
)
def test_10_what_cannot_start_is_capacity_within_its_budget(bench: Bench, manifests: dict[str, Path], tmp_path: Path, change: Any, said: str) -> None:
    budgets = Budgets(starting=15.0, stopping=60.0)  # a pull that cannot work is told after some seconds, on a busy machine ten
    outcome = bench.perform(bench.work(budgets=budgets), target=bench.target(changed(manifests["small"], tmp_path, change)))
    assert outcome.failure_class == "capacity" and outcome.error is not None
    assert any(word in outcome.error for word in said.split("|")), outcome.error
    assert len(bench.created()) == 3, "capacity is tried three times"
    bench.assert_nothing_left()


@pytest.mark.testbed
@pytest.mark.parametrize("kind", ["wrong", "expired"])
def test_19_credentials_that_are_refused_are_told_at_once(bench: Bench, kind: Any) -> None:
    from testbed.service_accounts import service_account_kubeconfig

    started = time.monotonic()
    api = Kubernetes(bench.cluster.namespace, service_account_kubeconfig(bench.cluster.namespace, "launcher", kind))
    with pytest.raises(Denied, match=r"401.*renew the token"):
        bench.perform(bench.work(), target=bench.target(api=api))
    assert time.monotonic() - started < 10 and bench.created() == []


def test_19_without_any_credentials_the_target_says_what_to_set(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="set kubeconfig and context"):
        Kubernetes("robots", tmp_path / "none")


def test_the_name_of_somebody_else_is_not_touched(bench: Bench, manifests: dict[str, Path]) -> None:
    from orchestration.launching.work import base_of

    work, run = bench.work(), bench.run()
    theirs = yaml.safe_load(manifests["small"].read_text())
    theirs["metadata"] = {"name": f"{base_of(work, run)}-a1"}
    theirs["spec"]["entrypoint"] = "sleep 600"
    theirs["spec"] |= {"suspend": True, "shutdownAfterJobFinishes": True}
    bench.cluster.apply(theirs)
    outcome = bench.perform(work, run)
    assert outcome.failure_class == "invalid_spec" and outcome.error is not None and "not ours" in outcome.error
    assert [item["spec"]["entrypoint"] for item in bench.cluster.rayjobs(bench.prefix)] == ["sleep 600"], "it is still there"
    bench.cluster("delete", "rayjob", theirs["metadata"]["name"])
