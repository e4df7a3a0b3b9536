"""Two S3 servers of a test's own (versitygw over folders), which stand for two clouds: other keys, free ports, nothing of the cluster.

Only the program comes from the testbed, which `make cluster-up` compiles.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.client

from ray_jobs.seam.store import Store, StoreConfig
from testbed.build import program
from testbed.proxy import FaultProxy

BUCKET, REGION = "bucket", "us-east-1"
START_S = 20.0


@dataclass(frozen=True)
class Cloud:
    """One server. `name` is the prefix of the variables that hold the keys of its user: ROBOTS_ACCESS_KEY_ID, …"""

    name: str
    port: int
    folder: Path
    owner: tuple[str, str]
    user: tuple[str, str]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self, front: FaultProxy | None = None) -> StoreConfig:
        """The bucket, as its user sees it, through the proxy if one is given."""
        return StoreConfig(url=f"s3://{BUCKET}", endpoint=front.url if front else self.endpoint, region=REGION, credentials=self.name)

    def store(self, front: FaultProxy | None = None) -> Store:
        return Store(self.config(front))

    def front(self, latency_s: float = 0.0) -> FaultProxy:
        return FaultProxy(("127.0.0.1", self.port), "127.0.0.1", latency_s=latency_s)

    def environment(self) -> dict[str, str]:
        return {f"{self.name}_ACCESS_KEY_ID": self.user[0], f"{self.name}_SECRET_ACCESS_KEY": self.user[1]}

    def client(self) -> Any:
        """boto3, as the owner."""
        options = botocore.client.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        keys = {"aws_access_key_id": self.owner[0], "aws_secret_access_key": self.owner[1]}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name=REGION, config=options, **keys)

    def dismiss(self) -> None:
        """The user's keys are good for nothing from now on."""
        command = [program("versitygw", "versitygw"), "admin", "--access", self.owner[0], "--secret", self.owner[1], "--endpoint-url", self.endpoint]
        subprocess.run([*command, "delete-user", "--access", self.user[0]], check=True, capture_output=True, timeout=30)


@contextlib.contextmanager
def cloud(name: str, folder: Path, before: Sequence[str] = ()) -> Iterator[Cloud]:
    """A server with one bucket, which ends with the block. `before`: a command that is to start it, as `unshare …`."""
    for part in ("objects", "attributes", "accounts"):
        (folder / part).mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Cloud(name, port, folder, (f"owner-{name}", secrets.token_hex(20)), (f"user-{name}", secrets.token_hex(20)))
    user = {"access": made.user[0], "secret": made.user[1], "role": "user"}
    (folder / "accounts" / "users.json").write_text(json.dumps({"accessAccounts": {made.user[0]: user}}))
    command = [str(program("versitygw", "versitygw")), "--port", f"127.0.0.1:{port}", "--iam-dir", str(folder / "accounts"), "--iam-cache-disable"]
    command += ["--health", "/healthy", "--keep-alive", "--quiet", "--region", REGION]
    command += ["posix", "--sidecar", str(folder / "attributes"), str(folder / "objects")]
    keys = {"ROOT_ACCESS_KEY": made.owner[0], "ROOT_SECRET_KEY": made.owner[1]}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*before, *command], env={**os.environ, **keys}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(made, process)
        owner = made.client()
        owner.create_bucket(Bucket=BUCKET)
        resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
        statement = {"Effect": "Allow", "Principal": {"AWS": [made.user[0]]}, "Action": "s3:*", "Resource": resources}
        owner.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
        yield made
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(made: Cloud, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"{made.name} ended: {(made.folder / 'log').read_text()[-500:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{made.endpoint}/healthy", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"{made.name} does not answer after {START_S:.0f} s")
