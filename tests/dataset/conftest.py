"""The same small dataset as for the copy."""

from pathlib import Path

import pytest

from tests.transfer.made import make


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("dataset"))
