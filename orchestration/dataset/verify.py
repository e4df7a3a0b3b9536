"""`flywheel verify MANIFEST`: which store a manifest lies in, what its own hash should be, and the process that reads the dataset back."""

import re
import subprocess
import sys
from pathlib import Path

from orchestration.settings import REPOSITORY, Settings
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store, StoreConfig


def verify(settings: Settings, manifest: str) -> int:
    """-> exit code: 0 where every byte is right. `manifest`: a URL, a local file, or a key below the compute store."""
    config, key = locate(settings, manifest)
    sha256 = hash_in_pointer(settings, key)
    command = [sys.executable, "-m", "ray_jobs.transfer.verify", "--store", config.model_dump_json(), "--manifest", key]
    return subprocess.run([*command, *(["--sha256", sha256] if sha256 else [])], cwd=REPOSITORY, check=False).returncode


def locate(settings: Settings, manifest: str) -> tuple[StoreConfig, str]:
    """The store and the key. A URL below one of the deployment's stores is read with that store's credentials, any other with the client's own."""
    url = manifest
    if "://" not in manifest:
        path = Path(manifest).resolve()
        if not path.is_file():
            return settings.compute_config(), manifest
        url = path.as_uri()
    for config in stores(settings):
        if url.startswith(config.url.rstrip("/") + "/"):
            return config, url.removeprefix(config.url.rstrip("/") + "/")
    parts = url.rsplit("/", 2)
    return StoreConfig(url=parts[0]), "/".join(parts[1:])


def stores(settings: Settings) -> list[StoreConfig]:
    """Every store that datasets are packed in or copied to, each once."""
    placed = settings.placement.stores.values() if settings.placement else ()
    return list(dict.fromkeys([settings.compute_config(), settings.store_config(), *placed]))


def hash_in_pointer(settings: Settings, key: str) -> str | None:
    """The manifest's SHA-256 as the pointer of its packed day says, None where no pointer that counts names this dataset."""
    prefix = key.rpartition("/")[0]
    day = prefix.rpartition("/")[2][:10]
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
        return None
    try:
        pointer = read_pointer(Store(settings.store_config()), "curated_dataset", day)
    except FlywheelError:
        return None  # said in the last line: its own hash was not compared
    dataset = (pointer.output.get("dataset") if pointer else None) or {}
    return str(dataset["manifest_sha256"]) if dataset.get("prefix") == prefix else None
