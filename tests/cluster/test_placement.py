"""Two contexts stand for two clouds, each with a quota, and a store of its own near it: the data goes where the compute is.

Behind both contexts is the one cluster under test: two namespaces, and two accounts of which neither may do anything in the other's.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.launching.kuberay.api import Kubernetes
from orchestration.placement.decision import Decision
from orchestration.placement.live import KubernetesOffer
from orchestration.placement.offers import Offer
from ray_jobs.seam.store import Store, StoreConfig
from tests.cluster.cluster import SECRET, Cluster, until
from tests.cluster.conftest import prepare
from tests.cluster.queueing import WORKLOADS, admitted, take
from tests.cluster.test_dagster import OnCluster
from tests.loop.deployment import DEMO

DAYS = ["2026-01-05", "2026-01-06"]
BUDGET_S = 600.0
QUOTA = 4  # CPUs of each cloud, which stand for accelerators
QUEUED_S = 15.0


class TwoClouds(OnCluster):
    """Training goes through one of two queues; everything else runs on this machine, for it is not what is tried here."""

    def __init__(self, folder: Path, cluster: Cluster, manifests: dict[str, Path]):
        super().__init__(folder, cluster, manifests)
        self.name = self.settings.deployment
        near = cluster.store.model_copy(update={"url": f"{cluster.store.url}/{self.name}-near"})
        self.stores = {"near": near, "far": self.settings.compute_config()}
        self.clusters = {"near": cluster, "far": replace(cluster, namespace=f"{self.name}-far")}
        self.kubeconfig = folder / "contexts.kubeconfig"

        def cloud(region: str, price: float) -> dict[str, Any]:
            place = {"kind": "kuberay", "kubeconfig": str(self.kubeconfig), "context": region, "namespace": self.clusters[region].namespace}
            place |= {"manifest": str(manifests["small"])}
            budgets = {"queued": QUEUED_S, "starting": 400.0, "unreachable": 120.0, "stopping": 60.0}
            offer = {"region": region, "accelerator": "cpu", "resource": "cpu", "price": price, "start_s": 20.0, "launch": {"evaluation": "embedded"}}
            return {**place, "secret": SECRET, "queue": self.queue(region), "budgets": budgets, "offer": offer}

        links = [{"source": "near", "destination": "far", "price_per_gb": 0.09, "mb_per_s": 50}]
        self.change(
            {
                "targets": {"cheap": cloud("near", 0.05), "dear": cloud("far", 0.40)},
                "launch": {},
                "placement": {
                    "home": "near",
                    "stores": {region: store.model_dump(mode="json") for region, store in self.stores.items()},
                    "links": links,
                    "needs": {"hours": {"cpu": 0.1}, "count": 1, "memory_gib": 2, "deadline_hours": 0.5},
                    "max_cost": 1.0,
                },
                "training": {**DEMO["training"], "workers": 0},
            }
        )

    def queue(self, region: str) -> str:
        return f"{self.name}-{region}"

    def open(self) -> None:
        """The second namespace with its account, the queues, and the kubeconfig: whoever asks without naming a context is told that there is none."""
        prepare(self.clusters["far"])
        with ExitStack() as stack:
            mine = {region: json.loads(stack.enter_context(each.access()).launcher.read_text()) for region, each in self.clusters.items()}
        document = {**mine["near"], "current-context": "", "contexts": [], "users": []}
        for region, each in mine.items():
            document["users"].append({**each["users"][0], "name": region})
            document["contexts"].append({"name": region, "context": {"cluster": each["clusters"][0]["name"], "user": region}})
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(document))
        flavor = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": self.name}}
        self.cluster.apply(flavor)
        for region, each in self.clusters.items():
            each.apply(*self.documents(region))

    def documents(self, region: str) -> list[dict[str, Any]]:
        name = self.queue(region)
        quota = [{"name": "cpu", "nominalQuota": str(QUOTA)}, {"name": "memory", "nominalQuota": "16Gi"}]
        group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": self.name, "resources": quota}]}
        common = {"apiVersion": "kueue.x-k8s.io/v1beta2", "metadata": {"name": name}}
        return [
            {**common, "kind": "ClusterQueue", "spec": {"namespaceSelector": {}, "resourceGroups": [group]}},
            {**common, "kind": "LocalQueue", "spec": {"clusterQueue": name}},
        ]

    def close(self) -> None:
        for region, each in self.clusters.items():
            each("delete", WORKLOADS, self.queue(region), "--ignore-not-found")
            each("delete", "localqueues.kueue.x-k8s.io,clusterqueues.kueue.x-k8s.io", self.queue(region), "--ignore-not-found", "--wait=false")
        self.cluster("delete", "resourceflavors.kueue.x-k8s.io", self.name, "--ignore-not-found", "--wait=false")
        far = self.clusters["far"].namespace
        self.cluster("delete", "namespaces,clusterroles,clusterrolebindings", far, "--ignore-not-found", "--wait=false")

    def left(self) -> list[str]:
        label = f"robot-flywheel/deployment={self.settings.deployment}"
        return [item["metadata"]["name"] for each in self.clusters.values() for kind in ("rayjobs", "pods") for item in each.items(kind, label)]

    def seen_in(self, region: str) -> set[str]:
        """Names of what has events in the cloud's namespace, for an hour also of what is gone."""
        return {event["involvedObject"]["name"] for event in self.clusters[region].items("events")}

    def taken_by_another(self, region: str) -> None:
        """Somebody else's work gets the whole quota, and holds it."""
        name = self.queue(region)
        take(self.clusters[region], name, name, {"cpu": str(QUOTA), "memory": "1Gi"})
        until(lambda: admitted(self.clusters[region], name), "their admission", 30)

    def decision(self, day: str) -> Decision:
        return Decision.model_validate(self.pointer("placement", day).output["decision"])

    def materializations(self, asset: str, day: str) -> list[dict[str, str]]:
        """label -> text of each materialization's metadata, the newest first, as the UI shows it."""
        query = """query($key: AssetKeyInput!, $days: [String!]) { assetOrError(assetKey: $key) { ... on Asset { assetMaterializations(partitions: $days) {
          metadataEntries { label ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr } } } } } }"""
        found = self.graphql.ask(query, key={"path": [asset]}, days=[day])["assetMaterializations"]
        return [{entry["label"]: entry.get("text") or entry.get("mdStr") or "" for entry in each["metadataEntries"]} for each in found]

    def datasets(self, store: StoreConfig) -> dict[str, int]:
        return {entry.key: entry.size for entry in Store(store).list("datasets/")}


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, manifests: dict[str, Path]) -> Iterator[TwoClouds]:
    made = TwoClouds(tmp_path_factory.mktemp("clouds"), cluster, manifests)
    made.open()
    try:
        with made.running():
            yield made
    finally:
        made.close()


def test_the_first_cloud_runs_out_the_job_moves_and_the_data_follows(clouds: TwoClouds) -> None:
    day = DAYS[0]
    clouds.record(day)
    clouds.run("curate", day, budget_s=BUDGET_S)
    run_id = clouds.graphql.launch("learn", day)
    until(lambda: clouds.keys(f"partitions/placement/{day}/"), "the decision", BUDGET_S)
    first = clouds.decision(day)
    assert (first.target, first.region) == ("cheap", "near") and [each["target"] for each in first.ranked] == ["cheap", "dear"]
    clouds.taken_by_another("near")
    assert clouds.graphql.await_run(run_id, BUDGET_S) == "SUCCESS", clouds.why(run_id)

    moved = clouds.decision(day)
    assert (moved.target, moved.region, moved.id) == ("dear", "far", f"{first.id}-m01")
    (move,) = moved.moves
    assert move.target == "cheap" and "capacity: it waited" in move.why and clouds.queue("near") in move.why
    assert [(each["target"], each["why"].split(":")[0]) for each in moved.lost] == [("cheap", "tried already")]

    packed = clouds.datasets(clouds.settings.store_config())
    assert packed and clouds.datasets(clouds.stores["far"]) == packed == clouds.datasets(clouds.stores["near"])
    assert len(clouds.keys(f"partitions/policy/{day}/")) == 1
    trained = clouds.pointer("policy", day)
    assert trained.output["placement"] == {"id": moved.id, "target": "dear", "region": "far", "moves": 1} and trained.output["model"]
    made_by = str(trained.attempt).rsplit("-a", 1)[0]
    (refused,) = [name for name in clouds.created("policy") if not name.startswith(made_by)]
    written = {key.rsplit("/", 1)[1] for key in clouds.keys(f"attempts/{refused.rsplit('-a', 1)[0]}/")}
    assert written == {"plan.json", "attempt.json", "submitted.json", "ended.json"}, "it was tried once, and no driver ever started"
    near, far = clouds.seen_in("near"), clouds.seen_in("far")
    assert refused in near - far and str(trained.attempt) in far - near
    assert clouds.pointer("evaluation", day).output["placement"]["target"] == "dear"

    newest, oldest = clouds.materializations("placement", day)
    assert "USD more than cheap" in oldest["why_not_the_others"] and "moved" not in oldest
    assert "now dear" in newest["moved"] and "tried already: capacity: it waited" in newest["why_not_the_others"]
    clouds.assert_nothing_left()


def test_a_day_that_is_made_stays_where_it_is_and_costs_nothing(clouds: TwoClouds) -> None:
    day, before, jobs = DAYS[0], clouds.decision(DAYS[0]), clouds.created()
    copies = {region: clouds.keys(f"partitions/dataset_at_compute@{region}/{day}/") for region in clouds.stores}
    clouds.run("learn", day, budget_s=BUDGET_S)
    assert clouds.decision(day).id == before.id and clouds.created() == jobs
    assert copies == {region: clouds.keys(f"partitions/dataset_at_compute@{region}/{day}/") for region in clouds.stores}


def test_a_queue_that_is_full_loses_before_anything_is_launched(clouds: TwoClouds) -> None:
    """The day after: the first cloud is still taken, and what yesterday's window has is in the second already."""
    day = DAYS[1]
    clouds.record(day)
    clouds.run("curate", day, budget_s=BUDGET_S)
    run_id = clouds.graphql.launch("learn", day, assets=["curated_dataset", "placement"])
    assert clouds.graphql.await_run(run_id, BUDGET_S) == "SUCCESS", clouds.why(run_id)
    decided = clouds.decision(day)
    assert (decided.target, decided.moves) == ("dear", ())
    assert [(each["target"], each["why"]) for each in decided.lost] == [("cheap", "it would end in 1.1 h, and the deadline is in 0.5 h")]
    assert decided.ranked[0]["copy_bytes"] == clouds.pointer("curated_dataset", day).counts["bytes"], "yesterday's is there"


def test_what_a_pod_of_anybody_uses_is_not_free(cluster: Cluster) -> None:
    """With the launcher's own account, in a namespace that it may not touch."""
    source = KubernetesOffer(lambda: Kubernetes(cluster.namespace, cluster.launcher), "cpu", {}, None)

    def free() -> float:
        found = source.complete(Offer("x", "near", "cpu", 1.0))
        assert not found.silent and found.free
        return sum(room.memory_gib for room in found.free)

    name = f"theirs-{time.time_ns()}"
    container = {"name": "theirs", "image": "theirs", "imagePullPolicy": "Never", "resources": {"requests": {"memory": "512Mi"}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [container]}}
    before = free()
    cluster("apply", "-f", "-", stdin=json.dumps(pod), namespace="default")
    try:
        until(lambda: free() == pytest.approx(before - 0.5), "less memory by what it asks for", 30)
    finally:
        cluster("delete", "pod", name, "--wait=false", namespace="default")
