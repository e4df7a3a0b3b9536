"""The copy to and from gs://, by obstore's own client of GCS. No emulator of GCS's XML interface is to be had (fake-gcs-server knows the JSON one alone);
that interface is the one of S3 with another authentication, so moto's S3 answers here, which sees its own kind of it.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from ray_jobs.packing.manifest import NAME
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.transfer.verify import verify
from tests.transfer.made import LARGE, PREFIX, SMALL, content, flip, transfer, upload

BUCKET = "robots"


class Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    moto = DomainDispatcherApplication(create_backend_app)

    def answer(request: dict[str, Any], start: Any) -> Any:
        if not request.get("HTTP_AUTHORIZATION", "").startswith("AWS4"):
            request["HTTP_AUTHORIZATION"] = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        return moto(request, start)

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b").create_bucket(Bucket=BUCKET)
    yield url
    server.shutdown()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    key = {"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": True, "gcs_base_url": endpoint}
    monkeypatch.setenv("ROBOTS_SERVICE_ACCOUNT_KEY", json.dumps(key))
    return Store(StoreConfig(url=f"gs://{BUCKET}/{request.node.name}", endpoint=endpoint, credentials="ROBOTS"))


def test_there_and_back_and_again(bucket: Store, dataset_folder: Path, store: Store, tmp_path: Path) -> None:
    """Small objects, an empty one, and one of several parts."""
    dataset = upload(dataset_folder, store)
    assert transfer(store, bucket, dataset).status == "ok"
    assert content(bucket) == content(store)
    again = transfer(store, bucket, dataset)
    assert (again.status, again.counts["copied"]) == ("ok", 0), "what is proven is not copied again"
    home = Store(StoreConfig.local(tmp_path / "home"))
    assert transfer(bucket, home, dataset).status == "ok"
    assert content(home) == content(store)


def test_a_flipped_bit_at_the_source_fails_the_day_by_name(bucket: Store, dataset_folder: Path, store: Store) -> None:
    dataset = upload(dataset_folder, bucket)
    flip(bucket, SMALL)
    failed = transfer(bucket, store, dataset)
    assert failed.status == "failed" and SMALL in str(failed.reason) and not store.exists(f"{PREFIX}/{NAME}")


def test_what_is_wrong_there_is_named_and_copied_again(bucket: Store, dataset_folder: Path, store: Store) -> None:
    dataset = upload(dataset_folder, store)
    assert transfer(store, bucket, dataset).status == "ok"
    flip(bucket, LARGE)
    bucket.delete(f"{PREFIX}/{SMALL}")
    told = sorted(verify(bucket, PREFIX, dataset.manifest_sha256)[1])
    assert len(told) == 2 and f"{SMALL} is missing" in told[0] and f"{LARGE} has other bytes" in told[1]
    bucket.delete(f"{PREFIX}/{LARGE}")
    bucket.delete(f"{PREFIX}/{NAME}")
    assert transfer(store, bucket, dataset).status == "ok"
    assert list(verify(bucket, PREFIX, dataset.manifest_sha256)[1]) == []


def test_a_bucket_that_is_not_there_is_one_line(bucket: Store, dataset_folder: Path, store: Store) -> None:
    nowhere = Store(bucket.config.model_copy(update={"url": "gs://nowhere/x"}))
    with pytest.raises(StoreError, match=r"gs://nowhere/x.*there is no such bucket") as caught:
        transfer(store, nowhere, upload(dataset_folder, store))
    assert "\n" not in str(caught.value)
