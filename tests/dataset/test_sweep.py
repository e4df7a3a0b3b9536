"""Superseded datasets and uploads that never ended: the decision by tables and properties, the sweep on local stores and S3."""

import os
import time
from pathlib import Path

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from orchestration.dataset.sweep import Named, superseded, sweep_datasets
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store, StoreConfig
from tests.transfer.made import DAY, transfer, upload

CUTOFF, OLD, YOUNG = 1000.0, 900.0, 1100.0
MINE = f"datasets/{DAY}-aa"


@pytest.mark.parametrize(
    ("newest", "named", "decided", "goes"),
    [
        (OLD, frozenset(), {}, True),  # packed and never published
        (OLD, frozenset(), {DAY: OLD}, True),
        (OLD, frozenset(), {DAY: YOUNG}, False),  # superseded a moment ago: a job may still read it
        (YOUNG, frozenset(), {DAY: OLD}, False),
        (OLD, frozenset({MINE}), {DAY: OLD}, False),
        (OLD, frozenset({f"datasets/{DAY}-bb"}), {DAY: OLD}, True),
    ],
)
def test_which_dataset_goes(newest: float, named: frozenset[str], decided: dict[str, float], goes: bool) -> None:
    assert superseded({MINE: newest}, Named(named, decided), CUTOFF) == ([MINE] if goes else [])


PREFIXES = st.sampled_from([f"datasets/2026-01-0{day}-{name}" for day in range(1, 4) for name in ("aa", "bb")])


@given(
    st.dictionaries(PREFIXES, st.floats(0, 2000)), st.frozensets(PREFIXES), st.dictionaries(st.sampled_from(["2026-01-01", "2026-01-02"]), st.floats(0, 2000))
)
def test_what_is_named_or_young_never_goes(folders: dict[str, float], named: frozenset[str], decided: dict[str, float]) -> None:
    gone = set(superseded(folders, Named(named, decided), CUTOFF))
    assert not gone & named
    assert all(folders[prefix] < CUTOFF for prefix in gone)
    assert set(superseded(folders, Named(frozenset(), {}), CUTOFF)) == {prefix for prefix, newest in folders.items() if newest < CUTOFF}


def age(store: Store, days: float) -> None:
    assert store.root is not None
    for path in store.root.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - days * 86400,) * 2)


def publish(store: Store, asset: str, generation: str, prefix: str) -> None:
    made = Pointer(asset=asset, day=DAY, generation=generation, run_id="r", output={"dataset": {"prefix": prefix}})
    store.put(pointer(asset, DAY, generation), made.model_dump_json().encode())


@pytest.fixture
def stores(tmp_path: Path, dataset_folder: Path) -> tuple[Store, Store]:
    """A day that was packed four times and copied; all is a month old. `old` was superseded, a model learned from `learned`."""
    home, compute = Store(StoreConfig.local(tmp_path / "store")), Store(StoreConfig.local(tmp_path / "compute"))
    dataset = upload(dataset_folder, home)
    assert transfer(home, compute, dataset).status == "ok"
    for store in (home, compute):
        for name in ("old", "learned", "now"):
            store.put(f"datasets/{DAY}-{name}/manifest.json", b"{}")
            store.put(f"datasets/{DAY}-{name}/data/file", b"x")
    publish(home, "curated_dataset", "g1", f"datasets/{DAY}-old")
    publish(home, "curated_dataset", "g2", f"datasets/{DAY}-now")
    publish(home, "dataset_at_compute@elsewhere", "g1", f"datasets/{DAY}-now")
    home.put("models/m/lineage.json", f'{{"datasets": [{{"prefix": "datasets/{DAY}-learned"}}]}}'.encode())
    for store in (home, compute):
        age(store, 30)
    return home, compute


def days(store: Store) -> set[str]:
    return {entry.key.split("/")[1].removeprefix(f"{DAY}-") for entry in store.list("datasets")}


def test_a_superseded_dataset_goes_with_its_receipts(stores: tuple[Store, Store]) -> None:
    home, compute = stores
    assert list(compute.list("receipts"))
    told = sweep_datasets(home, stores, 14)
    assert days(home) == days(compute) == {"learned", "now"}
    assert not list(compute.list("receipts"))
    assert len(told) == 4 and f"swept {home.config.url}/datasets/{DAY}-abc: 15 objects, superseded before" in told[0]
    assert sweep_datasets(home, stores, 14) == []


def test_a_dataset_that_was_superseded_yesterday_stays(stores: tuple[Store, Store]) -> None:
    home, compute = stores
    publish(home, "curated_dataset", "g3", f"datasets/{DAY}-abc")
    assert sweep_datasets(home, stores, 14) == []
    assert days(home) == days(compute) == {"abc", "old", "learned", "now"}


def test_what_the_copies_point_to_stays_until_they_are_copied_again(stores: tuple[Store, Store]) -> None:
    home, compute = stores
    publish(home, "dataset_at_compute", "g1", f"datasets/{DAY}-old")
    age(home, 30)
    sweep_datasets(home, stores, 14)
    assert "old" in days(home) and "old" in days(compute)


@pytest.mark.parametrize("key", ["models/m/lineage.json", f"partitions/curated_dataset/{DAY}/g3.json"])
def test_what_cannot_be_read_keeps_everything(stores: tuple[Store, Store], key: str) -> None:
    home, compute = stores
    home.put(key, b"no JSON")
    told = sweep_datasets(home, stores, 14)
    assert len(told) == 2 and all(line.startswith("kept every dataset") for line in told)
    assert "old" in days(home) and "old" in days(compute)


def test_staged_files_of_a_killed_copy_go(stores: tuple[Store, Store]) -> None:
    _, compute = stores
    assert compute.root is not None
    folder = compute.root / "datasets" / f"{DAY}-now"
    for name, written in (("old.mp4#1", 30), ("young.mp4#2", 1)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - written * 86400,) * 2)
    told = sweep_datasets(*[stores[0], [compute]], 14)
    assert "old.mp4#1" in told[0] and {path.name for path in folder.iterdir() if path.is_file()} == {"manifest.json", "young.mp4#2"}


def test_multipart_uploads_are_aborted_by_age(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Below the store's own prefix alone, and only datasets, episodes and models: the rest of the bucket is not ours."""
    monkeypatch.setenv("ROBOTS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("ROBOTS_SECRET_ACCESS_KEY", "secret")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret")
        client.create_bucket(Bucket="swept")
        for key in ("ours/datasets/d/a", "ours/other/b", "datasets/d/c"):
            client.create_multipart_upload(Bucket="swept", Key=key)
        remote = Store(StoreConfig(url="s3://swept/ours", endpoint=f"http://{host}:{port}", region="us-east-1", credentials="ROBOTS"))
        assert sweep_datasets(store, [remote], 365 * 30) == []  # moto began them in 2010
        told = sweep_datasets(store, [remote], 14)
        assert len(told) == 1 and "s3://swept/ours/datasets/d/a" in told[0]
        left = {each["Key"] for each in client.list_multipart_uploads(Bucket="swept")["Uploads"]}
        assert left == {"ours/other/b", "datasets/d/c"}
    finally:
        server.stop()
