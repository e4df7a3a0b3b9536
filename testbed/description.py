"""What a running testbed tells to those who use it, in one file that only its owner reads."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.layout import HOME, RUN
from testbed.shell import TestbedError, read, write_secret

_PATH = RUN / "state.json"


@dataclass(frozen=True)
class Account:
    access_key: str
    secret_key: str


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    region: str
    buckets: tuple[str, ...]
    accounts: dict[str, Account]  # owner, dagster, jobs: each may read and write every bucket


@dataclass(frozen=True)
class State:
    kubeconfig: Path  # context `testbed`, user `admin`
    kubectl: Path
    api_server: str
    certificate_authority: Path
    image: str  # what pods are made of; see testbed.pods
    bridge: str  # an address of this machine that pods and host both reach
    postgres: str  # URL; whoever uses SQLAlchemy says postgresql+psycopg2
    s3: S3Server
    s3_elsewhere: S3Server  # the other cloud: other keys, and one of the buckets
    audit_log: Path


def state() -> State:
    """Raises TestbedError where no testbed is up."""
    text = read(_PATH)
    if not text:
        raise TestbedError(f"no testbed is up in {HOME}: run `make cluster-up`")
    document = json.loads(text)
    for name in ("kubeconfig", "kubectl", "certificate_authority", "audit_log"):
        document[name] = Path(document[name])
    for name in ("s3", "s3_elsewhere"):
        accounts = {kind: Account(**keys) for kind, keys in document[name]["accounts"].items()}
        document[name] = S3Server(document[name]["endpoint"], document[name]["region"], tuple(document[name]["buckets"]), accounts)
    return State(**document)


def write(current: State) -> None:
    write_secret(_PATH, json.dumps(asdict(current), default=str, indent=1))
