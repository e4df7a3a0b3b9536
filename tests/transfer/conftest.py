"""A small dataset with a manifest, local stores, and two S3 stores of moto's server with different credentials."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ray_jobs.driver import Execution
from ray_jobs.packing.manifest import NAME, manifest_of
from ray_jobs.seam.configs import CopyConfig, CopySettings, DayDataset
from ray_jobs.seam.results import DayResult
from ray_jobs.seam.store import PART_BYTES, Store, StoreConfig
from ray_jobs.transfer.job import run

DAY = "2026-09-21"
PREFIX = f"datasets/{DAY}-abc"
LARGE = "videos/large.mp4"


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small files, an empty one, and one of several parts, with the manifest beside them."""
    root = tmp_path_factory.mktemp("dataset")
    (root / "meta").mkdir()
    (root / "videos").mkdir()
    for number in range(12):
        (root / "meta" / f"{number:02d}.json").write_bytes(hashlib.sha256(bytes([number])).digest() * (number + 1))
    (root / "meta" / "empty").write_bytes(b"")
    block = hashlib.sha256(b"large").digest() * 1024
    (root / LARGE).write_bytes(block * ((2 * PART_BYTES + PART_BYTES // 2) // len(block)))
    data = manifest_of(root, DAY, 3, 300).to_bytes()
    (root / NAME).write_bytes(data)
    return root


def upload(root: Path, store: Store) -> DayDataset:
    for path in root.rglob("*"):
        if path.is_file():
            store.put_file(f"{PREFIX}/{path.relative_to(root).as_posix()}", path)
    return DayDataset(day=DAY, prefix=PREFIX, manifest_sha256=hashlib.sha256((root / NAME).read_bytes()).hexdigest(), episodes=3, frames=300)


def transfer(source: Store, destination: Store, dataset: DayDataset | None, workers: int = 4) -> DayResult:
    datasets = {DAY: dataset} if dataset else {}
    config = CopyConfig(store=source.config, destination=destination.config, days=(DAY,), datasets=datasets, settings=CopySettings(workers=workers))
    return run(config, Execution(source, "attempts/b/a1/x", report=lambda message: None))[DAY]


def content(store: Store) -> dict[str, str]:
    """Key -> SHA-256 of everything below the dataset's folder."""
    return {entry.key: hashlib.sha256(store.get(entry.key)).hexdigest() for entry in store.list(PREFIX + "/")}


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
