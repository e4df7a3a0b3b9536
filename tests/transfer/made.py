"""A small dataset with a manifest, and the copy of it between any two stores."""

import hashlib
from pathlib import Path

from ray_jobs.driver import Execution
from ray_jobs.packing.manifest import NAME, manifest_of
from ray_jobs.seam.configs import CopyConfig, CopySettings, DayDataset
from ray_jobs.seam.results import DayResult
from ray_jobs.seam.store import PART_BYTES, Store
from ray_jobs.transfer.job import run

DAY = "2026-09-21"
PREFIX = f"datasets/{DAY}-abc"
LARGE = "videos/large.mp4"
SMALL = "meta/05.json"


def make(root: Path, small: int = 12, large: int = 1) -> Path:
    """Small files, an empty one, and large ones of several parts, with the manifest beside them. -> root"""
    (root / "meta").mkdir()
    (root / "videos").mkdir()
    for number in range(small):
        (root / "meta" / f"{number:02d}.json").write_bytes(hashlib.sha256(bytes([number])).digest() * (number + 1))
    (root / "meta" / "empty").write_bytes(b"")
    for number in range(large):
        path = root / (LARGE if number == 0 else f"videos/{number}.mp4")
        pieces = (2 * PART_BYTES + PART_BYTES // 2) // 32
        path.write_bytes(b"".join(hashlib.sha256(b"%d %d" % (number, piece)).digest() for piece in range(pieces)))  # no part equals another
    (root / NAME).write_bytes(manifest_of(root, DAY, 3, 300).to_bytes())
    return root


def upload(root: Path, store: Store) -> DayDataset:
    for path in root.rglob("*"):
        if path.is_file():
            store.put_file(f"{PREFIX}/{path.relative_to(root).as_posix()}", path)
    return described(root)


def described(root: Path) -> DayDataset:
    return DayDataset(day=DAY, prefix=PREFIX, manifest_sha256=hashlib.sha256((root / NAME).read_bytes()).hexdigest(), episodes=3, frames=300)


def transfer(source: Store, destination: Store, dataset: DayDataset | None, execution: Execution | None = None, **settings: object) -> DayResult:
    datasets = {DAY: dataset} if dataset else {}
    chosen = CopySettings.model_validate({"workers": 4, **settings})
    config = CopyConfig(store=source.config, destination=destination.config, days=(DAY,), datasets=datasets, settings=chosen)
    return run(config, execution or Execution(source, "attempts/b/a1/x", report=lambda message: None))[DAY]


def content(store: Store) -> dict[str, str]:
    """Key -> SHA-256 of everything below the dataset's folder."""
    return {entry.key: hashlib.sha256(store.get(entry.key)).hexdigest() for entry in store.list(PREFIX + "/")}


def flip(store: Store, path: str) -> None:
    """One flipped bit, same size."""
    data = bytearray(store.get(f"{PREFIX}/{path}"))
    data[len(data) // 2] ^= 1
    store.put(f"{PREFIX}/{path}", bytes(data))
