"""Two S3 servers (versitygw over folders), which stand for two clouds: `s3` has everything, `s3-elsewhere` the compute bucket."""

import json
import secrets
import urllib.request
from functools import partial

import boto3
import botocore.client

from testbed.build import program
from testbed.description import Account, S3Server
from testbed.layout import BRIDGE_ADDRESS, OTHER_S3_PORT, RUN, S3_PORT
from testbed.processes import start, wait_for
from testbed.shell import write_secret

PORTS = {"s3": S3_PORT, "s3-elsewhere": OTHER_S3_PORT}
_BUCKETS = {"s3": ["flywheel-raw", "flywheel-store", "flywheel-compute"], "s3-elsewhere": ["flywheel-compute"]}
_REGION = "us-east-1"


def start_servers() -> None:
    for name, port in PORTS.items():
        server, here = describe(name), RUN / name
        for part in ("objects", "attributes", "accounts"):
            (here / part).mkdir(parents=True, exist_ok=True)
        users = {
            account.access_key: {"access": account.access_key, "secret": account.secret_key, "role": "user"}
            for kind, account in server.accounts.items()
            if kind != "owner"
        }
        write_secret(here / "accounts" / "users.json", json.dumps({"accessAccounts": users}))
        owner = server.accounts["owner"]
        start(
            name,
            program("versitygw", "versitygw"),
            *("--port", f"{BRIDGE_ADDRESS}:{port}", "--iam-dir", here / "accounts", "--health", "/healthy", "--keep-alive", "--region", _REGION),
            # Attributes beside the objects: not every file system has extended attributes
            *("posix", "--sidecar", here / "attributes", here / "objects"),
            environment={"ROOT_ACCESS_KEY": owner.access_key, "ROOT_SECRET_KEY": owner.secret_key},
        )


def wait_ready() -> None:
    for name in PORTS:
        wait_for(name, 30, partial(ready, name))
        if not (RUN / name / "buckets-are-made").exists():
            _make_buckets(describe(name))
            (RUN / name / "buckets-are-made").touch()


def ready(name: str) -> bool:
    with urllib.request.urlopen(f"http://{BRIDGE_ADDRESS}:{PORTS[name]}/healthy", timeout=2) as answer:
        return bool(answer.status == 200)


def describe(name: str) -> S3Server:
    """Keys are made at the first call of a run and kept."""
    path = RUN / f"{name}-accounts.json"
    if not path.exists():
        # The server refuses keys of four characters or fewer
        made = {kind: {"access_key": f"{kind}-{secrets.token_hex(6)}", "secret_key": secrets.token_hex(20)} for kind in ("owner", "dagster", "jobs")}
        write_secret(path, json.dumps(made))
    accounts = {kind: Account(**keys) for kind, keys in json.loads(path.read_text()).items()}
    return S3Server(f"http://{BRIDGE_ADDRESS}:{PORTS[name]}", _REGION, tuple(_BUCKETS[name]), accounts)


def client(server: S3Server, account: Account) -> botocore.client.BaseClient:
    """A plain client that never tries twice."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=account.access_key,
        aws_secret_access_key=account.secret_key,
        config=botocore.client.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20),
    )


def _make_buckets(server: S3Server) -> None:
    owner = client(server, server.accounts["owner"])
    principals = [account.access_key for kind, account in server.accounts.items() if kind != "owner"]
    for bucket in server.buckets:
        owner.create_bucket(Bucket=bucket)
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        statement = {"Effect": "Allow", "Principal": {"AWS": principals}, "Action": "s3:*", "Resource": resources}
        owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
