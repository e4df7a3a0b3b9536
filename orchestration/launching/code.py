"""The project's own code as jobs run it: its hash, and the archive by which it travels to clusters without an image build."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchestration.launching.effects import InvalidSpec
from ray_jobs.seam import layout
from ray_jobs.seam.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = ("ray_jobs", "fleet", "requirements.lock")
SUFFIXES = frozenset({".py", ".xml", ".yaml", ".lock"})
FOLDER = "flywheel"  # Ray unpacks what lies in the archive's one top folder


@dataclass(frozen=True)
class Code:
    """`sha256` of the files' paths and bytes; `files`: path below the repository -> bytes. Both of the same moment."""

    sha256: str
    files: dict[str, bytes]


@cache
def code() -> Code:
    """What this process found when it first looked: a run does not change under its own feet."""
    total, files = hashlib.sha256(), {}
    for name in ROOTS:
        root = REPOSITORY / name
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file() and path.suffix in SUFFIXES:
                relative, data = str(path.relative_to(REPOSITORY)), path.read_bytes()
                total.update(relative.encode() + b"\0" + data + b"\0")
                files[relative] = data
    return Code(total.hexdigest(), files)


def archive(files: dict[str, bytes]) -> bytes:
    """A zip of the files: the same files give the same bytes."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(f"{FOLDER}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, data)
    return sink.getvalue()


def publish_code(store: Store, sha256: str) -> str:
    """The URI of the archive of this code in the store, written unless it is there. Raises InvalidSpec where the code is no longer at hand."""
    key = layout.code(sha256)
    if not any(entry.key == key for entry in store.list(key.rsplit("/", 1)[0] + "/")):
        if sha256 != code().sha256:
            raise InvalidSpec(f"the code {sha256[:12]} that this attempt wants is neither in the store nor in this checkout; re-execute from the start")
        store.put(key, archive(code().files))
    return f"{store.config.url.rstrip('/')}/{key}"
