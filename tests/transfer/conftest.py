"""The small dataset, and two S3 stores of moto's server with different credentials."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ray_jobs.seam.store import Store, StoreConfig
from tests.transfer.made import make


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def buckets(moto_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], Store]:
    """Opens a bucket under credentials of its own: ROBOTS_* and COMPUTE_* in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    client = boto3.client("s3", endpoint_url=moto_server, region_name="us-east-1", aws_access_key_id="admin", aws_secret_access_key="admin")

    def bucket(owner: str) -> Store:
        monkeypatch.setenv(f"{owner}_ACCESS_KEY_ID", f"key-of-{owner.lower()}")
        monkeypatch.setenv(f"{owner}_SECRET_ACCESS_KEY", f"secret-of-{owner.lower()}")
        name = f"{owner.lower()}-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]}"
        client.create_bucket(Bucket=name)
        return Store(StoreConfig(url=f"s3://{name}", endpoint=moto_server, region="us-east-1", credentials=owner))

    return bucket


@pytest.fixture(params=["local", "s3"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    if request.param == "s3":
        open_bucket = request.getfixturevalue("buckets")
        return open_bucket("ROBOTS"), open_bucket("COMPUTE")
    return Store(StoreConfig.local(tmp_path / "robots")), Store(StoreConfig.local(tmp_path / "compute"))
