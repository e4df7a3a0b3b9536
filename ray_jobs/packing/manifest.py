"""manifest.json: every file of a dataset with its size and SHA-256. Written last, it is the mark of a whole dataset."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.model import Strict, canonical
from ray_jobs.seam.store import Store

NAME = "manifest.json"
_CHUNK = 1 << 20


class ManifestFile(Strict):
    """One file: path below the dataset's folder, bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


class Manifest(Strict):
    """Files sorted by path. The SHA-256 of the canonical JSON names the dataset."""

    day: str
    episodes: int
    frames: int
    total_files: int
    total_bytes: int
    files: tuple[ManifestFile, ...]

    def to_bytes(self) -> bytes:
        return canonical(self).encode()


def file_sha256(path: Path) -> str:
    """SHA-256 in hex, read in chunks of 1 MiB."""
    seen = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            seen.update(chunk)
    return seen.hexdigest()


def manifest_of(root: Path, day: str, episodes: int, frames: int) -> Manifest:
    """Hash every file below root."""
    paths = sorted((path for path in root.rglob("*") if path.is_file()), key=lambda path: path.relative_to(root).as_posix())
    files = tuple(ManifestFile(path=path.relative_to(root).as_posix(), size=path.stat().st_size, sha256=file_sha256(path)) for path in paths)
    total = sum(file.size for file in files)
    return Manifest(day=day, episodes=episodes, frames=frames, total_files=len(files), total_bytes=total, files=files)


def read_manifest(store: Store, dataset: DayDataset) -> tuple[Manifest, bytes]:
    """The manifest and its bytes. Raises NotFound where there is none, DataError where it is not the one that was packed."""
    data = store.get(f"{dataset.prefix}/{NAME}")
    if hashlib.sha256(data).hexdigest() != dataset.manifest_sha256:
        raise DataError(f"{store.config.url}/{dataset.prefix}/{NAME} is not the manifest that was packed: delete it and pack {dataset.day} again")
    try:
        return Manifest.model_validate_json(data), data
    except ValidationError as error:
        raise DataError(f"{store.config.url}/{dataset.prefix}/{NAME} is not a manifest of this version: delete it and pack {dataset.day} again") from error
