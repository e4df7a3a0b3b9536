"""The cluster under test. Most tests share it; those marked `exclusive` break it for all, and `make test-cluster` runs them first, by themselves."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import testbed
from ray_jobs.seam.store import StoreConfig
from testbed import audit
from tests.cluster import elsewhere
from tests.cluster.bench import Bench, token
from tests.cluster.cluster import COMPUTE_CREDENTIALS, CREDENTIALS, NAMESPACE, SECRET, Cluster
from tests.cluster.manifests import for_testbed

REPOSITORY = Path(__file__).parents[2]
LOCK = Path(tempfile.gettempdir()) / "flywheel-cluster-tests.lock"


# By `--durations`: all processes end at about the same time. A process is given its next module while it has two tests left, so behind a
# single long test stands a short module; and no two gangs begin beside one another. What is not named comes last, and is many short tests
IN_ORDER = (
    "test_faults_of_the_cluster",  # exclusive, and so is a part of test_faults_of_runs
    "test_faults_of_pods",
    "test_dagster",
    "test_faults_of_queues",
    "test_placement",
    "test_copy_kills",
    "test_training",
    "test_copy_listing",
    "test_faults_of_runs",
    "test_faults_on_the_way",
    "test_faults_of_jobs",
    "test_shapes",
    "test_deploy",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(1500))
    items.sort(key=lambda item: IN_ORDER.index(item.path.stem) if item.path.stem in IN_ORDER else len(IN_ORDER))


@pytest.fixture(autouse=True)
def skipped_elsewhere(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("testbed") and elsewhere.asked():
        pytest.skip("it breaks the cluster itself, or looks into it: for the project's own testbed only")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The project's own testbed, which `make test-cluster` has started; or what KUBECONFIG names."""
    found = elsewhere.cluster() if elsewhere.asked() else own()
    with LOCK.open("w") as lock:  # one of several test processes makes it
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(found)
    with found.access() as ready:
        yield ready


def prepare(cluster: Cluster) -> None:
    """The namespace with its accounts and roles, as deploy/ describes them, and the jobs' keys."""
    cluster("apply", "-f", "-", stdin=(REPOSITORY / "deploy" / "rbac.yaml").read_text().replace("robots", cluster.namespace))
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": cluster.keys_of_jobs})


def own() -> Cluster:
    state = testbed.state()
    for name, server in ((CREDENTIALS, state.s3), (COMPUTE_CREDENTIALS, state.s3_elsewhere)):
        os.environ[f"{name}_ACCESS_KEY_ID"] = server.accounts["dagster"].access_key
        os.environ[f"{name}_SECRET_ACCESS_KEY"] = server.accounts["dagster"].secret_key

    def bucket(name: str, server: testbed.S3Server, credentials: str) -> StoreConfig:
        return StoreConfig(url=f"s3://{name}", endpoint=server.endpoint, region=server.region, credentials=credentials)

    return Cluster(
        kubectl=str(state.kubectl),
        kubeconfig=state.kubeconfig,
        namespace=NAMESPACE,
        store=bucket("flywheel-store", state.s3, CREDENTIALS),
        raw=bucket("flywheel-raw", state.s3, CREDENTIALS),
        compute=bucket("flywheel-compute", state.s3_elsewhere, COMPUTE_CREDENTIALS),
        keys_of_jobs={
            f"{name}_{part}": getattr(server.accounts["jobs"], key)
            for name, server in ((CREDENTIALS, state.s3), (COMPUTE_CREDENTIALS, state.s3_elsewhere))
            for part, key in (("ACCESS_KEY_ID", "access_key"), ("SECRET_ACCESS_KEY", "secret_key"))
        },
        created=audit.created_rayjobs,
    )


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """deploy/rayjobs/*.yaml as they run on the testbed, by name; `worker` is the training gang with one worker."""
    folder = tmp_path_factory.mktemp("rayjobs")
    made: dict[str, Path] = {}
    small = elsewhere.manifest if elsewhere.asked() else for_testbed
    for path in sorted((REPOSITORY / "deploy" / "rayjobs").glob("*.yaml")):
        made[path.stem] = folder / path.name
        made[path.stem].write_text(yaml.safe_dump(small(path)))
    one = small(REPOSITORY / "deploy" / "rayjobs" / "training.yaml")
    one["spec"]["rayClusterSpec"]["workerGroupSpecs"][0] |= {"replicas": 1, "minReplicas": 1, "maxReplicas": 1}
    made["worker"] = folder / "worker.yaml"
    made["worker"].write_text(yaml.safe_dump(one))
    return made


@pytest.fixture
def bench(cluster: Cluster, manifests: dict[str, Path]) -> Bench:
    return Bench(cluster, token(), manifests["small"])
