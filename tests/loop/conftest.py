from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loop.deployment import DEMO, Deployment


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("deployment")
    with Deployment(folder, DEMO).running() as running:
        yield running
