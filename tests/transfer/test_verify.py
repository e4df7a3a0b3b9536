"""`flywheel verify`: the destination is read back whatever receipts say, by the real command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ray_jobs.packing.manifest import NAME
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store, StoreConfig
from tests.transfer.made import DAY, LARGE, PREFIX, flip, transfer, upload

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copied(tmp_path: Path, dataset_folder: Path) -> Store:
    """A deployment below tmp_path whose day is packed, published and copied."""
    source, destination = Store(StoreConfig.local(tmp_path / "home" / "store")), Store(StoreConfig.local(tmp_path / "home" / "compute"))
    dataset = upload(dataset_folder, source)
    assert transfer(source, destination, dataset).status == "ok"
    named = Pointer(asset="curated_dataset", day=DAY, generation="g", run_id="r", output={"dataset": dataset.model_dump(mode="json")})
    source.put(pointer("curated_dataset", DAY, "g"), named.model_dump_json().encode())
    (tmp_path / "flywheel.yaml").write_text(yaml.safe_dump({"deployment": "local", "home": str(tmp_path / "home")}))
    return destination


def flywheel(tmp_path: Path, manifest: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "orchestration.cli", "verify", manifest]
    environment = {"FLYWHEEL_SETTINGS": str(tmp_path / "flywheel.yaml"), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("way", ["key", "url", "file"])
def test_a_whole_dataset(copied: Store, tmp_path: Path, way: str) -> None:
    names = {"key": f"{PREFIX}/{NAME}", "url": f"{copied.config.url}/{PREFIX}/{NAME}", "file": str(tmp_path / "home" / "compute" / PREFIX / NAME)}
    code, text = flywheel(tmp_path, names[way])
    assert code == 0 and "14 objects" in text and "the manifest's own hash is that of its pointer" in text


def test_what_is_wrong_is_named(copied: Store, tmp_path: Path) -> None:
    flip(copied, LARGE)
    copied.delete(f"{PREFIX}/meta/03.json")
    copied.put(f"{PREFIX}/meta/04.json", b"short")
    copied.put(f"{PREFIX}/meta/more", b"")
    code, text = flywheel(tmp_path, f"{PREFIX}/{NAME}")
    assert code == 1 and "4 objects of" in text and "copy 2026-09-21 again" in text
    for told in (f"{LARGE} has other bytes", "03.json is missing", "04.json has 5 bytes", "meta/more is not in the manifest"):
        assert told in text


def test_a_manifest_that_is_not_the_packed_one(copied: Store, tmp_path: Path) -> None:
    document = json.loads(copied.get(f"{PREFIX}/{NAME}"))
    document["files"] = document["files"][1:]
    copied.put(f"{PREFIX}/{NAME}", json.dumps(document).encode())
    code, text = flywheel(tmp_path, f"{PREFIX}/{NAME}")
    assert code == 1 and "is not the manifest that was packed" in text and "Traceback" not in text


@pytest.mark.parametrize(("name", "told"), [("datasets/none/manifest.json", "no such object"), ("readme.md", "is not a dataset's manifest.json")])
def test_no_manifest(copied: Store, tmp_path: Path, name: str, told: str) -> None:
    code, text = flywheel(tmp_path, name)
    assert code == 1 and told in text and "Traceback" not in text
