"""A raw store to put recordings into, and the way from its files to what a reader hands over."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import av
import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from ray_jobs.ingest.formats import READERS
from ray_jobs.ingest.gather import gather
from ray_jobs.ingest.reader import Refused, Upload
from ray_jobs.ingest.sidecar import read_with_videos
from ray_jobs.seam.configs import IngestSettings
from ray_jobs.seam.store import Store, StoreConfig
from tests.ingest.recorded import Taken


@pytest.fixture
def raw(tmp_path: Path) -> Store:
    return Store(StoreConfig.local(tmp_path / "raw"))


def upload_of(raw: Store, path: str) -> Upload:
    return gather(raw.list())[path]


@pytest.fixture
def take() -> Callable[..., list[Taken | Refused]]:
    """Read one upload of a store whole, in this process."""

    def read(raw: Store, path: str, settings: IngestSettings | None = None, decode: bool = True) -> list[Taken | Refused]:
        upload = upload_of(raw, path)
        head = raw.get(upload.first.key)[:64]
        reader = next(reader for reader in READERS if reader.recognises(upload, head))
        found: list[Taken | Refused] = []
        for item in read_with_videos(reader, raw, upload, settings or IngestSettings()):
            if isinstance(item, Refused):
                found.append(item)
                continue
            pictures = {}
            for camera, clip in item.clips.items() if decode else ():
                with ExitStack() as stack:
                    container = stack.enter_context(av.open(str(clip)))
                    pictures[camera] = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
            found.append(Taken(item, pictures))
        return found

    return read


@pytest.fixture
def moto_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreConfig]:
    """A bucket of moto's server."""
    for name, value in {"RAW_ACCESS_KEY_ID": "key", "RAW_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret")
    client.create_bucket(Bucket="robots")
    yield StoreConfig(url="s3://robots", endpoint=endpoint, region="us-east-1", credentials="RAW")
    server.stop()
