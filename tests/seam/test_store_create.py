"""An object that one writer alone may make: in a folder, and in S3."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ray_jobs.seam.store import Store, StoreConfig

WRITERS = 4


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "folder":
        yield Store(StoreConfig.local(tmp_path))
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b").create_bucket(Bucket="robots")
    monkeypatch.setenv("ROBOTS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("ROBOTS_SECRET_ACCESS_KEY", "b")
    yield Store(StoreConfig(url="s3://robots", endpoint=endpoint, region="us-east-1", credentials="ROBOTS"))
    server.stop()


def test_the_first_writer_gets_the_place_and_may_ask_again(store: Store) -> None:
    assert store.create("chain/000001.json", b"first")
    assert not store.create("chain/000001.json", b"second")
    assert store.create("chain/000001.json", b"first"), "its reply was lost"
    assert store.get("chain/000001.json") == b"first"


def test_of_writers_at_the_same_moment_one_gets_the_place(store: Store) -> None:
    together = Barrier(WRITERS, timeout=60)

    def write(writer: int) -> list[bool]:
        got = []
        for place in range(10):
            together.wait()
            got.append(store.create(f"chain/{place}.json", b"%d" % writer))
        return got

    with ThreadPoolExecutor(WRITERS) as pool:
        got = list(pool.map(write, range(WRITERS)))
    for place, winners in enumerate(zip(*got, strict=True)):
        assert sum(winners) == 1
        assert store.get(f"chain/{place}.json") == b"%d" % winners.index(True)
