"""A dataset in one cloud and an empty bucket in another, a fault proxy before each, and the copy between them."""

import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import ray_jobs.seam.store as client
from ray_jobs.driver import Execution
from ray_jobs.packing.manifest import NAME
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.results import DayResult
from ray_jobs.seam.store import Store, StoreConfig
from testbed.proxy import FaultProxy
from tests.cluster.clouds import Cloud
from tests.transfer.made import PREFIX, content, transfer, upload

BACKOFF = {"init_backoff": client.timedelta(milliseconds=20), "max_backoff": client.timedelta(milliseconds=200), "base": 2}


def below(config: StoreConfig, folder: str) -> StoreConfig:
    return config.model_copy(update={"url": f"{config.url}/{folder}"})


@dataclass
class Pair:
    """`source` and `destination` go straight to the servers; the copy itself goes through `front` and `back`."""

    here: Cloud
    there: Cloud
    folder: Path  # of the dataset
    front: FaultProxy
    back: FaultProxy
    token: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        self.source, self.destination = Store(below(self.here.config(), self.token)), Store(below(self.there.config(), self.token))
        self.dataset: DayDataset = upload(self.folder, self.source)

    def configs(self) -> tuple[StoreConfig, StoreConfig]:
        """As the copy sees them."""
        return below(self.here.config(self.front), self.token), below(self.there.config(self.back), self.token)

    def copy(self, execution: Execution | None = None, **settings: Any) -> DayResult:
        source, destination = self.configs()
        return transfer(Store(source), Store(destination), self.dataset, execution, **settings)

    def published(self) -> bool:
        return self.destination.exists(f"{PREFIX}/{NAME}")

    def nothing_wrong(self) -> None:
        """Whatever is visible at the destination is right, and there is a manifest only above what is whole."""
        wanted = {f"{PREFIX}/{path.relative_to(self.folder).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files(self.folder)}
        found = content(self.destination)
        assert found.items() <= wanted.items()
        assert f"{PREFIX}/{NAME}" not in found or found == wanted

    def whole(self) -> None:
        self.nothing_wrong()
        assert self.published()

    def quiet(self) -> None:
        self.front.set(None)
        self.back.set(None)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def hurried(monkeypatch: pytest.MonkeyPatch, retries: int = 10, request_s: float = 2.0) -> None:
    """The client waits less between its tries, and less for an answer, than in production: nobody wants to wait for a test."""
    monkeypatch.setattr(client, "RETRY", {"max_retries": retries, "retry_timeout": client.timedelta(seconds=20), "backoff": BACKOFF})
    monkeypatch.setattr(client, "REQUEST_S", request_s)


@contextlib.contextmanager
def pair(here: Cloud, there: Cloud, folder: Path) -> Iterator[Pair]:
    with here.front() as front, there.front() as back:
        yield Pair(here, there, folder, front, back)


def of(path: str, method: str = "GET") -> Callable[[str, str], bool]:
    """Requests for the object of that path below the dataset."""
    return lambda verb, url: verb == method and url.split("?")[0].endswith(f"{PREFIX}/{path}")


def once(happens: Callable[[str, str], bool], act: Callable[[], object], after: int = 1) -> Callable[[str, str], bool]:
    """A fault's `only` that disturbs nothing itself, but acts when such a request has come for the n-th time."""
    left = [after]

    def watch(method: str, path: str) -> bool:
        if happens(method, path):
            left[0] -= 1
            if left[0] == 0:
                act()
        return False

    return watch


def document(pair: Pair) -> str:
    """For another process: the two stores and the dataset."""
    source, destination = pair.configs()
    return json.dumps([source.model_dump(), destination.model_dump(), pair.dataset.model_dump()])


def transfer_of(text: str) -> None:
    """In that process."""
    source, destination, dataset = json.loads(text)
    assert transfer(Store(StoreConfig(**source)), Store(StoreConfig(**destination)), DayDataset(**dataset)).status == "ok"
