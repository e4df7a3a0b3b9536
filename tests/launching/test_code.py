"""The code archive: named by what is in it, written once, and usable by a Ray of its own."""

import io
import zipfile

import pytest

from orchestration.launching.code import FOLDER, archive, code, publish_code
from orchestration.launching.effects import InvalidSpec
from ray_jobs.seam.store import Store


def test_the_same_files_give_the_same_bytes_and_another_byte_gives_others() -> None:
    files = {"ray_jobs/a.py": b"1", "fleet/arm.xml": b"<x/>"}
    assert archive(files) == archive(dict(reversed(files.items())))
    assert archive(files) != archive({**files, "ray_jobs/a.py": b"2"})
    with zipfile.ZipFile(io.BytesIO(archive(files))) as read:
        assert sorted(read.namelist()) == [f"{FOLDER}/fleet/arm.xml", f"{FOLDER}/ray_jobs/a.py"]


def test_jobs_get_what_they_import_and_nothing_of_the_orchestrator() -> None:
    names = code().files
    assert "ray_jobs/guard.py" in names and "fleet/arm.xml" in names
    assert not [name for name in names if name.startswith(("orchestration", "tests"))]


def test_it_is_written_once(store: Store) -> None:
    uri = publish_code(store, code().sha256)
    key = uri.removeprefix(store.config.url + "/")
    first = store.head(key)
    assert publish_code(store, code().sha256) == uri and store.head(key) == first
    assert code().sha256 in uri


def test_code_that_is_gone_cannot_be_launched(store: Store) -> None:
    with pytest.raises(InvalidSpec, match="neither in the store nor in this checkout"):
        publish_code(store, "f" * 64)
