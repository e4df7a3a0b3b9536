"""The two images that pods are made of. They are small because pods mount the interpreter and the environment of this machine (pods.py)."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

from testbed.layout import CACHE, IMAGE, PAUSE_IMAGE
from testbed.shell import run

_SUITE = "bookworm"
_PACKAGES = "ca-certificates,wget,libgl1,libglib2.0-0,libssl3,libffi8,zlib1g,libbz2-1.0,liblzma5,libsqlite3-0,libreadline8,libexpat1,libuuid1"
_UNUSED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")
_OCI = "application/vnd.oci.image"


def archives() -> list[Path]:
    """The base image's archive and the pause image's, as they would be made now."""
    recipe = hashlib.sha256(repr((_SUITE, _PACKAGES, _UNUSED, IMAGE, PAUSE_IMAGE)).encode()).hexdigest()[:12]
    return [CACHE / f"base-{recipe}.tar", CACHE / f"pause-image-{recipe}.tar"]


def build(pause: Path) -> None:
    base, pause_archive = archives()
    root = CACHE / "rootfs"
    if not base.exists():
        print("testbed: making the pods' image", flush=True)
        shutil.rmtree(root, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, root, *_mirror())
        for part in _UNUSED:
            shutil.rmtree(root / part, ignore_errors=True)
        _write(base, IMAGE, ["/bin/bash"], root)
        shutil.rmtree(root)
    if not pause_archive.exists():
        root.mkdir(parents=True)
        shutil.copy2(pause, root / "pause")
        _write(pause_archive, PAUSE_IMAGE, ["/pause"], root)
        shutil.rmtree(root)


def _mirror() -> list[str]:
    """Where this machine's own apt gets the same suite from; debootstrap has a default."""
    for line in run("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages").splitlines():
        release, _, address = line.partition(" ")
        if release == _SUITE:
            return [address]
    return []


def _write(out: Path, reference: str, command: list[str], root: Path) -> None:
    """An OCI archive of one layer, the folder `root`."""
    work = out.with_suffix(".part")
    shutil.rmtree(work, ignore_errors=True)
    blobs = work / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = work / "layer.tar"
    with tarfile.open(layer, "w") as archive:
        archive.add(root, arcname=".")
    with layer.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    size = layer.stat().st_size
    layer.rename(blobs / digest)

    def put(document: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(document).encode()
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"digest": f"sha256:{name}", "size": len(data)}

    platform = {"architecture": run("dpkg", "--print-architecture").strip(), "os": "linux"}
    config = put({**platform, "config": {"Cmd": command}, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}})
    layers = [{"mediaType": f"{_OCI}.layer.v1.tar", "digest": f"sha256:{digest}", "size": size}]
    manifest = put({"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", "config": {"mediaType": f"{_OCI}.config.v1+json", **config}, "layers": layers})
    named = {"annotations": {"io.containerd.image.name": reference}}
    index = {"schemaVersion": 2, "manifests": [{"mediaType": f"{_OCI}.manifest.v1+json", **manifest, "platform": platform, **named}]}
    (work / "index.json").write_text(json.dumps(index))
    (work / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    made = out.with_suffix(".tmp")
    run("tar", "-C", work, "-cf", made, "oci-layout", "index.json", "blobs")
    shutil.rmtree(work)
    made.rename(out)
