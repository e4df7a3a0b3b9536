"""The other clients that `bench copy` measures, each in a process of its own: `python -m benchmarks.copy_clients <client> <document>`.

The document (JSON) says where the two servers are and which keys they want. rclone and s5cmd are programs, and are started by copy.py itself.
"""

import json
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

THREADS = 16
PART = 8 * 1024 * 1024


def obstore_raw(told: dict[str, Any]) -> None:
    """The library that ours is built on, with nothing proven: the floor."""
    import obstore
    from obstore.store import S3Store

    def store(side: dict[str, str]) -> Any:
        keys = {"access_key_id": side["access"], "secret_access_key": side["secret"], "checksum_algorithm": "SHA256"}
        return S3Store(side["bucket"], endpoint=side["endpoint"], region=side["region"], client_options={"allow_http": True}, **keys)

    source, destination = store(told["source"]), store(told["destination"])

    def one(meta: Any) -> None:
        got = obstore.get(source, meta["path"])
        if meta["size"] <= PART:
            obstore.put(destination, meta["path"], got.bytes(), use_multipart=False)
            return
        with obstore.open_writer(destination, meta["path"], buffer_size=PART, max_concurrency=2) as writer:
            for chunk in got.stream(min_chunk_size=PART):
                writer.write(chunk)

    _all(one, (meta for batch in obstore.list(source, prefix=told["prefix"]) for meta in batch))


def listing(told: dict[str, Any]) -> None:
    """No copy: what a rerun must ask the destination for, whoever reruns."""
    import obstore
    from obstore.store import S3Store

    side = told["destination"]
    keys = {"access_key_id": side["access"], "secret_access_key": side["secret"]}
    store = S3Store(side["bucket"], endpoint=side["endpoint"], region=side["region"], client_options={"allow_http": True}, **keys)
    assert sum(len(batch) for batch in obstore.list(store, prefix=told["prefix"]))


def boto3(told: dict[str, Any]) -> None:
    import boto3 as aws
    import botocore.client
    from boto3.s3.transfer import TransferConfig

    def client(side: dict[str, str]) -> Any:
        config = botocore.client.Config(s3={"addressing_style": "path"}, max_pool_connections=4 * THREADS)
        keys = {"aws_access_key_id": side["access"], "aws_secret_access_key": side["secret"]}
        return aws.client("s3", endpoint_url=side["endpoint"], region_name=side["region"], config=config, **keys)

    source, destination = client(told["source"]), client(told["destination"])
    parts = TransferConfig(multipart_threshold=PART + 1, multipart_chunksize=PART, max_concurrency=2)

    def one(item: dict[str, Any]) -> None:
        body = source.get_object(Bucket=told["source"]["bucket"], Key=item["Key"])["Body"]
        if item["Size"] <= PART:
            destination.put_object(Bucket=told["destination"]["bucket"], Key=item["Key"], Body=body.read(), ChecksumAlgorithm="SHA256")
        else:
            destination.upload_fileobj(body, told["destination"]["bucket"], item["Key"], ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=parts)

    pages = source.get_paginator("list_objects_v2").paginate(Bucket=told["source"]["bucket"], Prefix=told["prefix"])
    _all(one, (item for page in pages for item in page.get("Contents", [])))


def s3fs(told: dict[str, Any]) -> None:
    import s3fs as files

    def system(side: dict[str, str]) -> Any:
        options = {"endpoint_url": side["endpoint"], "region_name": side["region"]}
        return files.S3FileSystem(key=side["access"], secret=side["secret"], client_kwargs=options, skip_instance_cache=True)

    source, destination = system(told["source"]), system(told["destination"])

    def one(path: str) -> None:
        key = path.split("/", 1)[1]
        with source.open(path, "rb", block_size=PART) as read, destination.open(f"{told['destination']['bucket']}/{key}", "wb", block_size=PART) as write:
            while data := read.read(PART):
                write.write(data)

    _all(one, source.find(f"{told['source']['bucket']}/{told['prefix']}"))


def _all(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, item) for item in items]:
            done.result()


if __name__ == "__main__":
    {"obstore": obstore_raw, "listing": listing, "boto3": boto3, "s3fs": s3fs}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
