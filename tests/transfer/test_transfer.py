"""The copy: whole or not at all, proven, resumable, only what is new. Local folders and S3 alike."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

import ray_jobs.transfer.carry as carrying
from ray_jobs.packing.manifest import NAME, manifest_of, read_manifest
from ray_jobs.seam.errors import DataError, StoreError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.transfer.meter import Meter
from ray_jobs.transfer.plan import Item, freeze, named
from tests.transfer.made import LARGE, PREFIX, content, flip, transfer, upload

FILES = 14


def test_everything_arrives_and_a_rerun_copies_nothing(stores: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = stores
    dataset = upload(dataset_folder, source)
    first = transfer(source, destination, dataset)
    assert first.status == "ok"
    assert first.counts == {
        "objects": FILES,
        "copied": FILES,
        "skipped": 0,
        "bytes": sum(p.stat().st_size for p in dataset_folder.rglob("*") if p.is_file() and p.name != NAME),
    }
    assert content(destination) == content(source)
    assert first.output["dataset"]["prefix"] == PREFIX and first.output_digest == dataset.manifest_sha256

    before = {entry.key: entry.etag for entry in destination.list()}
    again = transfer(source, destination, dataset)
    assert again.counts == {"objects": FILES, "copied": 0, "skipped": FILES, "bytes": 0}
    assert {entry.key: entry.etag for entry in destination.list()} == before, "a rerun writes nothing, not even receipts"
    assert again.output_digest == first.output_digest


@pytest.mark.parametrize("path", [LARGE, "meta/05.json"])
def test_a_flipped_bit_at_the_source_is_never_published(stores: tuple[Store, Store], dataset_folder: Path, path: str) -> None:
    source, destination = stores
    dataset = upload(dataset_folder, source)
    flip(source, path)
    failed = transfer(source, destination, dataset)
    assert failed.status == "failed" and path in (failed.reason or "") and "pack the day again" in (failed.reason or "")
    assert not destination.exists(f"{PREFIX}/{path}") and not destination.exists(f"{PREFIX}/{NAME}")

    source.put_file(f"{PREFIX}/{path}", dataset_folder / path)
    repaired = transfer(source, destination, dataset)
    assert repaired.status == "ok" and content(destination) == content(source)
    assert repaired.counts["skipped"] + repaired.counts["copied"] == FILES


def test_killed_in_the_middle_and_resumed(stores: tuple[Store, Store], dataset_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, destination = stores
    dataset = upload(dataset_folder, source)
    whole, made = carrying.copy, []

    def fails_after_five(origin: Store, target: Store, item: Item, meter: Meter) -> str:
        if len(made) >= 5:
            raise KeyboardInterrupt
        etag = whole(origin, target, item, meter)
        made.append(item.key)  # only now: the large one, beside the others, may be stopped halfway
        return etag

    monkeypatch.setattr(carrying, "copy", fails_after_five)
    with pytest.raises(KeyboardInterrupt):
        transfer(source, destination, dataset, workers=1)
    assert not destination.exists(f"{PREFIX}/{NAME}")
    monkeypatch.setattr(carrying, "copy", whole)
    resumed = transfer(source, destination, dataset)
    assert 5 <= resumed.counts["skipped"] == len(made) < FILES and resumed.counts["copied"] == FILES - len(made)
    assert content(destination) == content(source)


def test_a_missing_source_object_is_named(stores: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = stores
    dataset = upload(dataset_folder, source)
    source.delete(f"{PREFIX}/meta/03.json")
    failed = transfer(source, destination, dataset)
    assert failed.status == "failed" and "meta/03.json" in (failed.reason or "")
    assert not list(destination.list(PREFIX))


def test_a_foreign_object_of_that_name_is_replaced_and_an_equal_one_is_kept(stores: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = stores
    dataset = upload(dataset_folder, source)
    destination.put(f"{PREFIX}/meta/01.json", b"x" * (dataset_folder / "meta/01.json").stat().st_size)  # same size, other bytes
    destination.put(f"{PREFIX}/meta/02.json", b"shorter")
    destination.put_file(f"{PREFIX}/meta/04.json", dataset_folder / "meta/04.json")
    result = transfer(source, destination, dataset)
    assert result.counts["skipped"] == 1 and result.counts["copied"] == FILES - 1
    assert content(destination) == content(source)


def test_an_object_changed_after_its_receipt_is_copied_again(stores: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = stores
    dataset = upload(dataset_folder, source)
    transfer(source, destination, dataset)
    flip(destination, LARGE)
    assert transfer(source, destination, dataset).counts["copied"] == 1
    assert content(destination) == content(source)


def test_a_manifest_that_is_not_the_packed_one(stores: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = stores
    dataset = upload(dataset_folder, source)
    source.put(f"{PREFIX}/{NAME}", b"{}")
    failed = transfer(source, destination, dataset)
    assert failed.status == "failed" and NAME in (failed.reason or "")
    assert not list(destination.list())


def test_a_source_that_changes_under_the_copy_is_an_error(stores: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = stores
    dataset = upload(dataset_folder, source)
    manifest, _ = read_manifest(source, dataset)
    (item,) = [item for item in freeze(source, PREFIX, named(PREFIX, manifest.files)) if item.path == LARGE]
    flip(source, LARGE)
    with pytest.raises(DataError, match="changed while"):
        carrying.copy(source, destination, item, Meter(lambda size, requests: 0.0))
    assert not list(destination.list(PREFIX))


def test_a_day_without_a_dataset(store: Store, tmp_path: Path) -> None:
    result = transfer(store, Store(StoreConfig.local(tmp_path / "there")), None)
    assert (result.status, result.reason, result.output) == ("ok", "no data", {"dataset": None})


def test_a_vanished_dataset_fails_its_day(stores: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = stores
    dataset = upload(dataset_folder, source)
    source.delete(f"{PREFIX}/{NAME}")
    assert transfer(source, destination, dataset).status == "failed"


def test_no_upload_is_left_open_after_a_mismatch(buckets: Callable[[str], Store], dataset_folder: Path, moto_server: str) -> None:
    source, destination = buckets("ROBOTS"), buckets("COMPUTE")
    dataset = upload(dataset_folder, source)
    flip(source, LARGE)
    assert transfer(source, destination, dataset).status == "failed"
    client = boto3.client("s3", endpoint_url=moto_server, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="a")
    assert not client.list_multipart_uploads(Bucket=destination.config.url.removeprefix("s3://")).get("Uploads")


def test_an_unwritable_destination_is_one_line(store: Store, dataset_folder: Path, tmp_path: Path) -> None:
    dataset = upload(dataset_folder, store)
    destination = Store(StoreConfig.local(tmp_path / "there"))
    (tmp_path / "there" / "datasets").write_text("a file stands in the way")
    with pytest.raises(StoreError) as caught:
        transfer(store, destination, dataset)
    assert "\n" not in str(caught.value) and PREFIX in str(caught.value)


FULL = """
import resource, sys
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.store import Store, StoreConfig
from tests.transfer.made import transfer
resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, resource.RLIM_INFINITY))
source, destination = (Store(StoreConfig.local(path)) for path in sys.argv[1:3])
try:
    transfer(source, destination, DayDataset.model_validate_json(sys.argv[3]))
except StoreError as error:
    print(error)
    sys.exit(3)
"""


def test_a_full_destination_publishes_nothing_half(tmp_path: Path, dataset_folder: Path) -> None:
    """A process that may not write files of more than 10 MiB, as on a full disk; then the space is there again."""
    source, destination = Store(StoreConfig.local(tmp_path / "robots")), Store(StoreConfig.local(tmp_path / "compute"))
    dataset = upload(dataset_folder, source)
    arguments = [str(tmp_path / "robots"), str(tmp_path / "compute"), dataset.model_dump_json()]
    ended = subprocess.run([sys.executable, "-c", FULL, *arguments], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ended.returncode == 3, ended.stderr
    assert len(ended.stdout.strip().splitlines()) == 1 and LARGE in ended.stdout
    assert not destination.exists(f"{PREFIX}/{LARGE}") and not destination.exists(f"{PREFIX}/{NAME}")
    result = transfer(source, destination, dataset)
    assert result.status == "ok" and content(destination) == content(source)


MEMORY = """
import resource, sys
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.store import Store, StoreConfig
from tests.transfer.made import transfer
source, destination = (Store(StoreConfig.local(path)) for path in sys.argv[1:3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert transfer(source, destination, DayDataset.model_validate_json(sys.argv[3]), workers=1).status == "ok"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A file of 400 MiB (sparse) is copied by one worker with less than 100 MiB of growth."""
    root = tmp_path / "dataset"
    (root / "videos").mkdir(parents=True)
    with (root / "videos" / "large.mp4").open("wb") as large:
        large.truncate(400 << 20)
    (root / NAME).write_bytes(manifest_of(root, "2026-09-21", 1, 1).to_bytes())
    source = Store(StoreConfig.local(tmp_path / "robots"))
    dataset = upload(root, source)
    arguments = [str(tmp_path / "robots"), str(tmp_path / "compute"), dataset.model_dump_json()]
    ended = subprocess.run([sys.executable, "-c", MEMORY, *arguments], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 100 * 1024, ended.stdout  # KiB
