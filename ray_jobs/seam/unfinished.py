"""Uploads that were begun and never ended: parts that nobody can read, and that S3 bills until they are aborted.

S3 and compatibles keep them as multipart uploads, a local folder as files named `<name>#<number>`. Azure drops uncommitted blocks after
a week by itself, and on GCS a lifecycle rule (AbortIncompleteMultipartUpload) does it: nothing is done there.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlparse

from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.store import Store, StoreConfig

_STAGED = re.compile(r"#\d+$")  # how object_store names what it has not renamed yet


def abort_unfinished(store: Store, folder: str, cutoff: float) -> list[str]:
    """End every upload below the folder that was begun before the cutoff (s since 1970). Returns their keys. Raises StoreError."""
    if store.root is not None:
        return list(_local(store, folder, cutoff))
    if urlparse(store.config.url).scheme != "s3":
        return []
    import botocore.exceptions

    try:
        return list(_s3(store.config, folder, cutoff))
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise StoreError(f"cannot look for unfinished uploads below {store.config.url}/{folder}: {' '.join(str(error).split())[:300]}") from error


def _local(store: Store, folder: str, cutoff: float) -> Iterator[str]:
    assert store.root is not None
    for path in sorted((store.root / folder).rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # its upload has ended meanwhile
            if _STAGED.search(path.name) and path.is_file() and path.stat().st_mtime < cutoff:
                path.unlink()
                yield path.relative_to(store.root).as_posix()


def _s3(config: StoreConfig, folder: str, cutoff: float) -> Iterator[str]:
    client, parsed = _client(config), urlparse(config.url)
    root = f"{parsed.path.strip('/')}/".lstrip("/")
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=parsed.netloc, Prefix=f"{root}{folder}/"):
        for upload in page.get("Uploads", []):
            if upload["Initiated"].timestamp() < cutoff:
                client.abort_multipart_upload(Bucket=parsed.netloc, Key=upload["Key"], UploadId=upload["UploadId"])
                yield upload["Key"].removeprefix(root)


def _client(config: StoreConfig) -> Any:
    import boto3
    from botocore.client import Config

    keys = {}
    if config.credentials:  # that they are there was checked when the store was opened
        names = {"aws_access_key_id": "ACCESS_KEY_ID", "aws_secret_access_key": "SECRET_ACCESS_KEY", "aws_session_token": "SESSION_TOKEN"}
        keys = {option: os.environ.get(f"{config.credentials}_{name}") for option, name in names.items()}
    style = Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=20) if config.endpoint else Config(connect_timeout=5, read_timeout=20)
    return boto3.client("s3", endpoint_url=config.endpoint, region_name=config.region, config=style, **keys)
