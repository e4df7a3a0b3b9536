"""The cluster under test, and who may disturb it: most tests share it, those that break it for all have it alone."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ray_jobs.seam.store import StoreConfig
from tests.cluster.bench import Bench, token
from tests.cluster.cluster import CREDENTIALS, SECRET, Cluster
from tests.cluster.manifests import for_testbed

REPOSITORY = Path(__file__).parents[2]
NAMESPACE = "robots"
LOCK = Path(tempfile.gettempdir()) / "flywheel-cluster-tests.lock"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(autouse=True)
def turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests in other processes go on beside this one unless it is marked `exclusive`: it breaks what they stand on."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if request.node.get_closest_marker("exclusive") else fcntl.LOCK_SH)
        yield


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The project's own testbed; `make test-cluster` has started it."""
    import testbed
    from testbed.service_accounts import service_account_kubeconfig

    state = testbed.state()
    keys = state.s3.accounts
    os.environ[f"{CREDENTIALS}_ACCESS_KEY_ID"] = keys["dagster"].access_key
    os.environ[f"{CREDENTIALS}_SECRET_ACCESS_KEY"] = keys["dagster"].secret_key

    def bucket(name: str) -> StoreConfig:
        return StoreConfig(url=f"s3://{name}", endpoint=state.s3.endpoint, region=state.s3.region, credentials=CREDENTIALS)

    made = Cluster(state.kubectl, state.kubeconfig, Path(), NAMESPACE, bucket("flywheel-store"), bucket("flywheel-raw"), bucket("flywheel-compute"))
    with LOCK.with_suffix(".setup").open("w") as lock:  # one of several test processes makes it
        fcntl.flock(lock, fcntl.LOCK_EX)
        made("apply", "-f", str(REPOSITORY / "deploy" / "rbac.yaml"))
        secret = {f"{CREDENTIALS}_ACCESS_KEY_ID": keys["jobs"].access_key, f"{CREDENTIALS}_SECRET_ACCESS_KEY": keys["jobs"].secret_key}
        made.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": secret})
        launcher = service_account_kubeconfig(NAMESPACE, "launcher")
    return Cluster(made.kubectl, made.kubeconfig, launcher, NAMESPACE, made.store, made.raw, made.compute)


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """deploy/rayjobs/*.yaml as they run on the testbed, by name; `worker` is the training gang with one worker."""
    folder = tmp_path_factory.mktemp("rayjobs")
    made = {}
    for path in sorted((REPOSITORY / "deploy" / "rayjobs").glob("*.yaml")):
        made[path.stem] = folder / path.name
        made[path.stem].write_text(yaml.safe_dump(for_testbed(path)))
    one = for_testbed(REPOSITORY / "deploy" / "rayjobs" / "training.yaml")
    one["spec"]["rayClusterSpec"]["workerGroupSpecs"][0] |= {"replicas": 1, "minReplicas": 1, "maxReplicas": 1}
    made["worker"] = folder / "worker.yaml"
    made["worker"].write_text(yaml.safe_dump(one))
    return made


@pytest.fixture
def bench(cluster: Cluster, manifests: dict[str, Path]) -> Bench:
    return Bench(cluster, token(), manifests["small"])
