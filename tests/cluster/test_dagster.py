"""The daily loop with every heavy asset a RayJob, and Dagster's own processes that die: the assets are those of `make loop`, only settings differ."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.seam.store import Store, StoreConfig
from testbed import audit
from tests.cluster.bench import token
from tests.cluster.cluster import SECRET, Cluster, running, until
from tests.loop.deployment import DEMO, Deployment, kill

DAYS = ["2026-01-05", "2026-01-06"]
HEAVY = ["episodes", "measurements", "curated_dataset", "dataset_at_compute", "policy", "evaluation"]
BUDGET_S = 600.0
EVERY = 250  # steps from one checkpoint to the next


SIGNAL_INGEST = """import os, pathlib, sys
found = [int(path.parent.name) for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if path.read_bytes().split(b"\\0")[1:3] == [b"-m", b"ray_jobs.ingest"]]
for pid in found:
    os.kill(pid, int(sys.argv[1]))
print(len(found))"""


class OnCluster(Deployment):
    """Dagster on this machine, the stores in S3, every job a RayJob."""

    def __init__(self, folder: Path, cluster: Cluster, manifests: dict[str, Path]):
        self.cluster, self.since, name = cluster, audit.now(), f"t{token()}"

        def inside(store: StoreConfig) -> dict[str, Any]:
            return store.model_copy(update={"url": f"{store.url}/{name}"}).model_dump(mode="json")

        def target(manifest: str) -> dict[str, Any]:
            budgets = {"queued": 600.0, "starting": 400.0, "unreachable": 120.0, "stopping": 60.0}
            place = {"kind": "kuberay", "kubeconfig": str(cluster.launcher), "namespace": cluster.namespace, "manifest": str(manifests[manifest])}
            return {**place, "secret": SECRET, "budgets": budgets}

        document = {
            **DEMO,
            "deployment": name,
            "store": inside(cluster.store),
            "raw": inside(cluster.raw),
            "compute": inside(cluster.compute),
            "targets": {"small": target("small"), "curation": target("curation"), "gang": target("training")},
            "launch": {"default": "small", "measurements": "curation", "policy": "gang"},
        }
        document["training"] = {**DEMO["training"], "workers": 2, "steps": 2000, "checkpoint_every": EVERY}
        super().__init__(folder, document)

    def upload(self) -> None:
        """What the fleet recorded, as the robots would send it."""
        store = Store(self.settings.raw_config())
        for path in sorted(path for path in self.raw.rglob("*") if path.is_file()):
            store.put_file(str(path.relative_to(self.raw)), path)

    def created(self, asset: str = "") -> list[str]:
        """The RayJobs that were ever made for an asset of this deployment."""
        mine = {key.split("/")[1] for key in self.keys("attempts/") if key.endswith("/attempt.json")}
        slug = asset.replace("_", "-")[:16].strip("-")
        return sorted(name for name, _ in self.cluster.created(self.since) if name.rsplit("-a", 1)[0] in mine and name.startswith(slug))

    def left(self) -> list[str]:
        label = f"robot-flywheel/deployment={self.settings.deployment}"
        return [item["metadata"]["name"] for kind in ("rayjobs", "pods") for item in self.cluster.items(kind, label)]

    def assert_nothing_left(self, budget_s: float = 60.0) -> None:
        until(lambda: not self.left(), "an empty cluster", budget_s)

    def running_job(self, asset: str) -> str | None:
        """The RayJob of an asset whose driver is at work now."""
        slug = asset.replace("_", "-")[:16].strip("-")
        for item in self.cluster.items("rayjobs", f"robot-flywheel/deployment={self.settings.deployment}"):
            if item["metadata"]["name"].startswith(slug) and (item.get("status") or {}).get("jobStatus") == "RUNNING":
                return str(item["metadata"]["name"])
        return None

    def signal_ingest(self, number: signal.Signals) -> bool:
        """To the driver of the job of `episodes`, in its pod. False: it is not there yet."""
        for pod in self.cluster.items("pods", f"robot-flywheel/deployment={self.settings.deployment},ray.io/node-type=head"):
            if pod["metadata"]["name"].startswith("episodes") and running(pod):
                found = self.cluster("exec", pod["metadata"]["name"], "-c", "ray-head", "--", "python", "-c", SIGNAL_INGEST, str(int(number)), check=False)
                return found.strip() == "1"
        return False

    def gang(self) -> list[str]:
        """The pods of the training gang that are at work."""
        pods = self.cluster.items("pods", f"robot-flywheel/deployment={self.settings.deployment},ray.io/group=gang")
        return [pod["metadata"]["name"] for pod in pods if running(pod)]

    def trained(self) -> list[dict[str, Any]]:
        """What each worker of each group of the policies' trainings said when it had made its first step."""
        return [json.loads(self.store.get(key)) for key in self.keys("attempts/") if "/workers/" in key and key.split("/")[1].startswith("policy")]

    def launched(self, asset: str) -> bool:
        slug = asset.replace("_", "-")[:16].strip("-")
        return any(item["metadata"]["name"].startswith(slug) for item in self.cluster.items("rayjobs", f"robot-flywheel/deployment={self.settings.deployment}"))

    def record(self, day: str) -> None:
        self.fleet("record", "--days", day, "--episodes", "4", "--robots", "arm-1", "arm-2")
        self.upload()
        self.run("index_uploads")

    def step_starts(self, run_id: str, step: str) -> float:
        """Seconds since 1970 of a step's start."""
        query = """query($id: ID!) { logsForRun(runId: $id) { __typename ... on EventConnection { events { __typename
          ... on ExecutionStepStartEvent { stepKey timestamp } ... on LogMessageEvent { message timestamp } } } } }"""
        events = self.graphql.ask(query, id=run_id)["events"]
        return float(next(event["timestamp"] for event in events if event["__typename"] == "ExecutionStepStartEvent" and event["stepKey"] == step)) / 1000

    def said_at(self, run_id: str, text: str) -> float | None:
        query = "query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { ... on LogMessageEvent { message timestamp } } } } }"
        found = [float(event["timestamp"]) / 1000 for event in self.graphql.ask(query, id=run_id)["events"] if text in (event.get("message") or "")]
        return found[0] if found else None


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, manifests: dict[str, Path]) -> Iterator[OnCluster]:
    with OnCluster(tmp_path_factory.mktemp("deployment"), cluster, manifests).running() as started:
        assert isinstance(started, OnCluster)
        yield started


def test_the_daily_loop_with_every_heavy_asset_a_rayjob(deployment: OnCluster) -> None:
    day = DAYS[0]
    deployment.record(day)
    deployment.run("curate", day, budget_s=BUDGET_S)
    learned = deployment.graphql.launch("learn", day)
    until(lambda: any("/checkpoints/" in key for key in deployment.keys("attempts/")), "the gang's first checkpoint", BUDGET_S)
    at, gone = time.time(), deployment.gang()[0]
    deployment.cluster("delete", "pod", gone, "--wait=false")
    assert deployment.graphql.await_run(learned, BUDGET_S) == "SUCCESS", deployment.why(learned)
    notes = sorted(deployment.trained(), key=lambda note: note["first_step"])
    assert [note["world"] for note in notes] == [2] * 4, "a gang of two, that lost one and had another"
    assert gone not in {note["host"] for note in notes[2:]}
    print(f"a pod with notice: {notes[2]['first_step_at'] - at:.1f} s to the next step, from step {notes[2]['first_step'] - 1}")
    assert (notes[2]["first_step"] - 1) % EVERY, "it went on from where it had stopped, not from a checkpoint that was due: no step is lost"
    for asset in HEAVY:
        assert len(deployment.created(asset)) == 1, f"{asset}: {deployment.created(asset)}"
        assert len(deployment.keys(f"partitions/{asset}/{day}/")) == 1
    assert deployment.pointer("champion", day).output["reasons"]
    assert deployment.pointer("evaluation", day).output["scores"]["candidate"]["rollouts"] == 4
    counts = deployment.pointer("verdicts", day).counts
    assert counts["uploaded"] == counts["kept"] + counts["rejected"] + counts["quarantined"] + counts["superseded"]
    assert deployment.said_at(learned, "launched curated-dataset") is not None
    printed = "".join(path.read_text(errors="replace") for path in (deployment.home / "dagster").rglob("*.out"))
    assert "Starting execution of Dataset" in printed, "what the pods printed is in Dagster's compute logs"
    deployment.assert_nothing_left()


def test_13_a_run_that_is_terminated_leaves_nothing_within_ten_seconds(deployment: OnCluster) -> None:
    day = DAYS[1]
    deployment.record(day)
    run_id = deployment.graphql.launch("curate", day, assets=["episodes"])
    until(lambda: deployment.left() and deployment.launched("episodes"), "the RayJob")
    deployment.graphql.stop(run_id)
    asked = time.monotonic()
    deployment.assert_nothing_left(budget_s=15.0)
    print(f"gone after {time.monotonic() - asked:.1f} s")
    assert deployment.graphql.await_run(run_id, 60) == "CANCELED"
    assert not deployment.keys(f"partitions/episodes/{day}/")


def test_1_14_and_2_run_workers_that_are_killed_or_asked_to_leave_and_all_of_dagster_killed_are_followed_by_ones_that_adopt(deployment: OnCluster) -> None:
    """Last: it is another Dagster afterwards, over the same home. The day is that of the run that was terminated."""
    day = DAYS[1]
    before = set(deployment.created("episodes"))
    run_id = deployment.graphql.launch("curate", day, assets=["episodes"])
    until(lambda: deployment.launched("episodes"), "the RayJob")
    kill([deployment.worker_pid(run_id)])
    until(lambda: deployment.signal_ingest(signal.SIGSTOP), "the driver, which stands still until it is adopted three times: else it might end before")
    first = deployment.retry_of(run_id, budget_s=120)
    until(lambda: deployment.said_at(first, "adopted episodes"), "the adoption", 120)
    os.kill(deployment.worker_pid(first), signal.SIGTERM)
    second = deployment.retry_of(run_id, first, budget_s=120)
    until(lambda: deployment.said_at(second, "adopted episodes"), "the second adoption", 120)
    everything = deployment.session()
    assert deployment.worker_pid(second) in everything
    kill(everything)
    with deployment.running():
        third = deployment.retry_of(run_id, first, second, budget_s=120)
        assert deployment.graphql.status(second) == "FAILURE", "it does not stay STARTED for ever"
        until(lambda: deployment.said_at(third, "adopted episodes"), "the third adoption", 120)
        until(lambda: deployment.signal_ingest(signal.SIGCONT), "the driver, to go on")
        assert deployment.graphql.await_run(third, BUDGET_S) == "SUCCESS", deployment.why(third)
        for retry in (first, second):
            adopted = deployment.said_at(retry, "adopted episodes")
            assert adopted is not None and adopted - deployment.step_starts(retry, "episodes") < 5.0
        assert deployment.said_at(third, "launched episodes") is None
        assert len(set(deployment.created("episodes")) - before) == 1, "no second RayJob"
        assert len(deployment.keys(f"partitions/episodes/{day}/")) == 1
        deployment.assert_nothing_left()
