"""`deploy/` against the real API server: what it takes, what the two accounts may and may not do, and Dagster from the chart's values."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient, AuthorizationV1Api
from kubernetes.config import new_client_from_config

import testbed
from orchestration.launching.effects import Denied
from orchestration.launching.kuberay.api import Kubernetes
from orchestration.launching.kuberay.manifest import rayjob, read_manifest
from orchestration.launching.work import Attempt, Resources
from orchestration.local.graphql import GraphQL
from orchestration.settings import Settings, load
from ray_jobs.seam.results import Pointer, read_pointer
from ray_jobs.seam.store import Store
from testbed.service_accounts import service_account_kubeconfig
from tests.cluster import deployed
from tests.cluster.bench import token
from tests.cluster.cluster import BUDGET_S, until
from tests.cluster.deployed import DEPLOY, Kubectl, Object, Refused
from tests.cluster.queueing import WORKLOADS

pytestmark = pytest.mark.testbed

JOBS = sorted((DEPLOY / "rayjobs").glob("*.yaml"))
DAYS = ("2026-01-05", "2026-01-06")
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Kubectl]:
    """A namespace of this module's own with deploy/rbac.yaml in it."""
    name = f"deploy-{token()}"
    made = Kubectl(name)
    for document in deployed.documents("rbac.yaml", lambda text: name if text == "robots" else text):
        made.create(document)
    yield made
    made("delete", "clusterrole,clusterrolebinding", name)
    made("delete", "namespace", name, "--wait=false")


# -- what the API server takes


@pytest.fixture(scope="module")
def strict(kubectl: Kubectl) -> Iterator[Kubectl]:
    """A namespace that admits restricted pods only, as docs/deploying.md labels the real one."""
    name = f"{kubectl.namespace}-strict"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, RESTRICTED)
    yield Kubectl(name)
    kubectl("delete", "namespace", name, "--wait=false")


def attempt(deployment: str = "dry") -> Attempt:
    names = {"base": "episodes-20260105-0123456789ab", "deployment": deployment, "asset": "episodes", "module": "ray_jobs.ingest", "code": "c" * 64}
    runs = {"generation": "20260105T000000.000000Z-abcd", "root_run": "root", "run_id": "run", "series": "run"}
    return Attempt(number=1, days=(DAYS[0],), config={"deadline_s": 600.0}, resources=Resources(num_cpus=1.0), **names, **runs)


def launched(path: Path) -> Object:
    """The manifest as the launcher makes a RayJob of it."""
    (document,) = deployed.documents("flywheel.yaml")
    store = Settings(**document).store_config()
    return rayjob(read_manifest(path), attempt(), store, "s3://flywheel-store/code/x/flywheel.zip", secret="stores")


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_rayjob_is_taken_as_it_stands_and_as_the_launcher_makes_it(path: Path, strict: Kubectl) -> None:
    strict.accepts(read_manifest(path))
    strict.accepts(launched(path))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_its_pods_are_admitted_where_only_restricted_pods_are(path: Path, strict: Kubectl) -> None:
    cluster = launched(path)["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
        spec = group["template"]["spec"]
        if group is cluster["headGroupSpec"] and "autoscalerOptions" in cluster:
            options = {name: cluster["autoscalerOptions"][name] for name in ("securityContext", "resources", "volumeMounts")}
            spec["containers"].append({"name": "autoscaler", "image": "the-heads", **options})
        strict.accepts({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dry"}, "spec": spec})
        assert spec["automountServiceAccountToken"] is False
        assert all(each["name"] != "api" for each in spec["containers"][0]["volumeMounts"]), "the container that runs the job sees no token"
        assert len(spec.get("initContainers", [])) == (group is not cluster["headGroupSpec"]), "a worker waits for its head"
        for container in [*spec.get("initContainers", []), spec["containers"][0]]:
            allowed = container.pop("securityContext")
            with pytest.raises(Refused, match="violates PodSecurity"):
                strict.accepts({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dry"}, "spec": spec})
            container["securityContext"] = allowed


def test_a_run_worker_is_admitted_where_only_restricted_pods_are(strict: Kubectl) -> None:
    """The pod that K8sRunLauncher makes of the values: the launcher's own configuration, and its code location's over it."""
    values = deployed.values()
    config = deployed.instance(values, "robots")["run_launcher"]["config"]
    own = {"k8s": {name: config[name] for name in ("security_context", "run_k8s_config", "service_account_name")}}
    context = K8sContainerContext.create_from_config(own).merge(K8sContainerContext.create_from_config(deployed.container_context(values, "robots")))
    names = {name: config[name] for name in ("dagster_home", "instance_config_map", "postgres_password_secret")}
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config("robot-flywheel/orchestration:0000000", SimpleNamespace(job_image=None, **names)),
        args=["dagster", "api", "execute_run"],
        job_name="dry",
        user_defined_k8s_config=context.run_k8s_config,
    )
    template = ApiClient().sanitize_for_serialization(job)["spec"]["template"]
    spec = template["spec"]
    assert spec.pop("serviceAccountName") == "launcher"
    assert spec["terminationGracePeriodSeconds"] > Settings(**next(deployed.documents("flywheel.yaml"))).place("small").budgets.stopping
    strict.accepts({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dry"}, "spec": spec})


def test_kueue_takes_the_queues_and_the_jobs_that_go_through_them(kubectl: Kubectl) -> None:
    for document in deployed.documents("queues.yaml", lambda text: kubectl.namespace if text == "robots" else text):
        kubectl.accepts(document)
    priorities = {document["metadata"]["name"]: document["value"] for document in deployed.documents("queues.yaml") if "value" in document}
    assert priorities["production"] > priorities["backfill"]
    for path in JOBS:
        document = read_manifest(path)
        document["spec"]["shutdownAfterJobFinishes"] = True
        document["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "daily"}
        if document["spec"]["rayClusterSpec"].get("enableInTreeAutoscaling"):
            with pytest.raises(Refused, match="workload slicing"):
                kubectl.accepts(document)
            document["metadata"]["annotations"] = {"kueue.x-k8s.io/elastic-job": "true"}
        kubectl.accepts(document)


def test_settings_manifests_and_versions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLYWHEEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLYWHEEL_PORT", "tcp://10.0.0.1:4000")  # Kubernetes sets such variables for a Service named flywheel
    settings = load(DEPLOY / "flywheel.yaml")
    places = [place for place in settings.targets.values() if place.kind == "kuberay"]
    assert {place.manifest.name for place in places} == {path.name for path in JOBS} and {str(place.manifest.parent) for place in places} == {"/etc/flywheel"}
    queues = {document["kind"]: document["metadata"]["name"] for document in deployed.documents("queues.yaml")}
    assert {place.queue for place in places} <= {None, queues["LocalQueue"]}
    lock = (DEPLOY.parent / "requirements.lock").read_text()
    for path in JOBS:
        assert f"\nray=={read_manifest(path)['spec']['rayClusterSpec']['rayVersion']} " in lock
    deployment = deployed.values()["dagster-user-deployments"]["deployments"][0]
    variables = {each["name"]: each["value"] for each in deployment["env"]}
    (mount,) = deployment["volumeMounts"]
    assert variables["FLYWHEEL_SETTINGS"].startswith(mount["mountPath"])
    assert deployed.values()["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


# -- what the two accounts may do

LAUNCHER = {
    "rayjobs.ray.io": ("create", "get", "list", "watch", "delete"),
    "pods": ("get", "list", "watch", "delete"),
    "events": ("list",),
    "nodes": ("list",),
    "localqueues.kueue.x-k8s.io": ("get",),
    "clusterqueues.kueue.x-k8s.io": ("get",),
}
ELSEWHERE = {("list", "pods"), ("list", "nodes"), ("get", "clusterqueues.kueue.x-k8s.io")}  # of the launcher: what placement reads
DAGSTER = {
    "jobs.batch": ("create", "get", "list", "delete"),
    "jobs.batch/status": ("get",),
    "pods": ("get", "list", "delete"),
    "pods/log": ("get",),
    "events": ("list",),
}
VERBS = ("create", "get", "list", "watch", "patch", "update", "delete", "deletecollection")
RESOURCES = (
    *("rayjobs.ray.io", "rayjobs.ray.io/status", "rayclusters.ray.io", "jobs.batch", "jobs.batch/status", "pods", "pods/log", "pods/exec", "pods/portforward"),
    *("events", "secrets", "configmaps", "serviceaccounts", "serviceaccounts/token", "services", "nodes", "namespaces", "deployments.apps"),
    *("roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io", WORKLOADS, "clusterqueues.kueue.x-k8s.io"),
    "localqueues.kueue.x-k8s.io",
)


@pytest.mark.parametrize(("account", "allowed"), [("launcher", LAUNCHER), ("dagster", DAGSTER)])
def test_an_account_may_do_this_and_nothing_else(account: str, allowed: dict[str, tuple[str, ...]], kubectl: Kubectl) -> None:
    """The API server's own answer (SelfSubjectAccessReview) to a real token, for every verb on everything that matters."""
    api = AuthorizationV1Api(new_client_from_config(str(service_account_kubeconfig(kubectl.namespace, account))))

    def may(verb: str, resource: str, namespace: str) -> bool:
        name, _, sub = resource.partition("/")
        kind, _, group = name.partition(".")
        asked = {"namespace": namespace, "verb": verb, "group": group, "resource": kind, "subresource": sub}
        return bool(api.create_self_subject_access_review({"spec": {"resourceAttributes": asked}}).status.allowed)

    here = {resource: tuple(verb for verb in VERBS if may(verb, resource, kubectl.namespace)) for resource in RESOURCES}
    assert {resource: set(verbs) for resource, verbs in here.items() if verbs} == {resource: set(verbs) for resource, verbs in allowed.items()}
    elsewhere = {(verb, resource) for resource in RESOURCES for verb in VERBS if may(verb, resource, "default")}
    assert elsewhere == (ELSEWHERE if account == "launcher" else set()), "in other namespaces it may see what there is, and touch nothing"


def test_the_launchers_calls_with_its_own_token(kubectl: Kubectl) -> None:
    own = Kubectl(kubectl.namespace, service_account_kubeconfig(kubectl.namespace, "launcher"))
    api = Kubernetes(kubectl.namespace, service_account_kubeconfig(kubectl.namespace, "launcher"))
    job = rayjob(read_manifest(DEPLOY / "rayjobs" / "small.yaml"), attempt(), Settings(**next(deployed.documents("flywheel.yaml"))).store_config(), "s3://x/y")
    job["spec"]["suspend"] = True  # it never starts
    name = job["metadata"]["name"]
    made = api.create(job)
    assert api.create(job)["metadata"]["uid"] == made["metadata"]["uid"], "a name that is taken is read"
    assert [each["metadata"]["name"] for each in api.jobs("robot-flywheel/deployment=dry")] == [name]
    assert api.nodes() and isinstance(api.pods_of_all(), list), "whose pods they are: test_placement.py"
    assert own("get", "rayjobs", name, "--watch", "-o", "name", "--request-timeout=1s").strip().endswith(name)
    assert api.pods(f"robot-flywheel/name={name}") == [] and api.events(name) is not None
    for refused in (
        ("patch", "rayjob", name, "--type=merge", "-p", '{"spec":{"suspend":false}}'),
        ("get", "secrets"),
        ("get", "rayclusters"),
        ("get", "node", "node-1"),
        ("create", "configmap", "x"),
        ("get", "rayjobs", "-n", "default"),
    ):
        with pytest.raises(Refused, match="orbidden"):
            own(*refused)
    api.delete(name, made["metadata"]["uid"])
    until(lambda: not kubectl.items("rayjobs"), "the RayJob's end", 30)


@pytest.mark.parametrize("token_kind", ["wrong", "expired"])
def test_a_token_that_is_not_right_is_refused_with_one_line(token_kind: Any, kubectl: Kubectl) -> None:
    api = Kubernetes(kubectl.namespace, service_account_kubeconfig(kubectl.namespace, "launcher", token_kind))
    with pytest.raises(Denied, match=r"refuses the credentials \(401\)"):
        api.jobs("robot-flywheel/deployment=dry")


# -- Dagster from the chart's values: webserver and daemon, the code location, run workers as pods, jobs as RayJobs


@dataclass
class Running:
    kubectl: Kubectl
    graphql: GraphQL
    settings: Settings
    secrets: tuple[str, ...]  # values that must stand nowhere

    def pointer(self, asset: str, day: str) -> Pointer | None:
        return read_pointer(Store(self.settings.store_config()), asset, day)

    def workers(self, run_id: str) -> list[Object]:
        return self.kubectl.items("pods", f"dagster/run-id={run_id}")

    def rayjobs(self) -> list[Object]:
        return self.kubectl.items("rayjobs")

    def succeeded(self, run_id: str) -> None:
        status = self.graphql.await_run(run_id, BUDGET_S)
        assert status == "SUCCESS", f"{status}\n{self.why(run_id)}"

    def why(self, run_id: str) -> str:
        query = "query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { ... on MessageEvent { message } } } } }"
        return "\n".join(str(event.get("message")) for event in self.graphql.ask(query, id=run_id)["events"])[-4000:]


@pytest.fixture(scope="module")
def dagster(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, name, state = tmp_path_factory.mktemp("deploy"), kubectl.namespace, testbed.state()
    keys = state.s3.accounts["dagster"]
    pair = {"ACCESS_KEY_ID": keys.access_key, "SECRET_ACCESS_KEY": keys.secret_key}
    stores = {f"{prefix}_{part}": value for prefix in ("STORE", "RAW", "COMPUTE") for part, value in pair.items()}
    os.environ |= stores  # for this process, which looks into the same stores
    document = deployed.settings(name, name)
    queues = list(deployed.queues(name))
    for target in document["targets"].values():
        if "priority" in target:
            target["priority"] = f"{name}-{target['priority']}"
    values = deployed.for_testbed(deployed.values(), name)
    deployed.database("CREATE", name)
    try:
        given = [deployed.secret("stores", stores), deployed.secret("dagster-postgresql-secret", {"postgresql-password": "dagster"})]
        for each in [*queues, *given, deployed.settings_map(document), *deployed.code_location(values, name)]:
            kubectl.create(each)
        settings = Settings(**document)
        _record(folder, Store(settings.raw_config()))
        kubectl("wait", "--for=condition=Ready", "pod/flywheel", "--timeout=90s")  # a webserver that finds no code location waits to be told
        for each in deployed.control_plane(values, name):
            kubectl.create(each)
        kubectl("wait", "--for=condition=Ready", "pod/dagster", "--timeout=90s")
        address = json.loads(kubectl("get", "pod", "dagster", "-o", "json"))["status"]["podIP"]
        graphql = GraphQL(f"http://{address}:{values['dagsterWebserver']['service']['port']}")
        until(lambda: _loaded(graphql), "the code location")
        yield Running(kubectl, graphql, settings, (keys.secret_key,))
    finally:
        kubectl("delete", "pod", "dagster", "flywheel", "--ignore-not-found", "--wait=false")
        for each in queues:
            kubectl("delete", each["kind"], each["metadata"]["name"], "--ignore-not-found", "--wait=false")
        deployed.database("DROP", name)


def _record(folder: Path, raw: Store) -> None:
    options = ["--raw", str(folder / "raw"), "--truth", str(folder / "truth"), "--robots", "arm-1", "--episodes", "1", "--damaged", "0", "--workers", "1"]
    subprocess.run([sys.executable, "-m", "fleet", "record", "--days", *DAYS, *options], cwd=DEPLOY.parent, check=True, capture_output=True)
    for path in sorted(path for path in (folder / "raw").rglob("*") if path.is_file()):
        raw.put_file(str(path.relative_to(folder / "raw")), path)


def _loaded(graphql: GraphQL) -> bool:
    query = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus
      locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
    (entry,) = graphql.ask(query)["locationEntries"]
    return bool(entry["name"] == "flywheel" and entry["loadStatus"] == "LOADED" and entry["locationOrLoadError"]["__typename"] != "PythonError")


def test_a_day_is_published_by_run_workers_of_which_one_is_lost(dagster: Running) -> None:
    """uploads in the run worker itself, episodes as a RayJob through the queue. Its first worker is evicted: the retry adopts the job."""
    dagster.succeeded(dagster.graphql.launch("index_uploads"))
    run_id = dagster.graphql.launch("curate", DAYS[0], assets=["episodes"])
    (job,) = until(dagster.rayjobs, "the RayJob")
    (worker,) = dagster.workers(run_id)
    _environment_comes_from_secrets(dagster, worker)
    workload = until(lambda: dagster.kubectl.items(WORKLOADS), "the job's place in the queue", 30)[0]
    assert workload["spec"]["priority"] == 1000
    dagster.kubectl("delete", "pod", worker["metadata"]["name"], "--wait=false")
    retry = until(lambda: [each["runId"] for each in dagster.graphql.runs({"tags": [{"key": "dagster/root_run_id", "value": run_id}]})][:1], "the retry")[0]
    assert dagster.graphql.status(run_id) == "FAILURE"
    assert {each["metadata"]["uid"] for each in dagster.rayjobs()} == {job["metadata"]["uid"]}, "the job outlives its run worker, and stays the only one"
    dagster.succeeded(retry)
    assert "adopted episodes" in dagster.why(retry)
    pointer = dagster.pointer("episodes", DAYS[0])
    assert pointer is not None and pointer.run_id == retry and pointer.counts["ok"] == 1
    until(lambda: not dagster.rayjobs(), "the RayJob's end", 30)


def _environment_comes_from_secrets(dagster: Running, worker: Object) -> None:
    (container,) = worker["spec"]["containers"]
    assert worker["spec"]["serviceAccountName"] == "launcher" and worker["spec"]["terminationGracePeriodSeconds"] == 90
    assert {"secretRef": {"name": "stores"}} in container["envFrom"]
    variables = {each["name"]: each for each in container["env"]}
    assert variables["DAGSTER_PG_PASSWORD"]["valueFrom"]["secretKeyRef"]["name"] == "dagster-postgresql-secret"
    assert variables["FLYWHEEL_SETTINGS"]["value"] == "/etc/flywheel/flywheel.yaml"
    everything = json.dumps([dagster.kubectl.items(kind) for kind in ("pods", "jobs", "configmaps", "rayjobs", "rayclusters", "events")])
    assert not [value for value in dagster.secrets if value in everything], "no secret stands in any object but Secrets"


def test_a_terminated_run_leaves_neither_worker_nor_job(dagster: Running) -> None:
    run_id = dagster.graphql.launch("curate", DAYS[1], assets=["episodes"])
    until(dagster.rayjobs, "the RayJob")
    dagster.graphql.stop(run_id)
    assert dagster.graphql.await_run(run_id, 60) == "CANCELED"
    until(lambda: not dagster.rayjobs() and not dagster.workers(run_id), "an end of job and worker", 60)
    assert dagster.pointer("episodes", DAYS[1]) is None


def test_the_instance_is_what_the_values_say(dagster: Running) -> None:
    code = """import json, dagster
found = dagster.DagsterInstance.get()
told = [found.run_monitoring_max_resume_run_attempts, found.run_retries_max_retries, found.run_retries_retry_on_asset_or_op_failure]
print(json.dumps([type(found.run_launcher).__name__, type(found.run_storage).__name__, *told]))"""
    said = dagster.kubectl("exec", "dagster", "-c", "daemon", "--", "python", "-c", code)
    assert json.loads(said.strip().splitlines()[-1]) == ["K8sRunLauncher", "PostgresRunStorage", 0, 3, False]
