"""Everything that is made once: Debian's packages, the Go programs and the pods' image. Kept by a hash of what it is made of."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from testbed import images
from testbed.layout import CACHE, HERE, KUBERNETES, MODULES
from testbed.shell import TestbedError, run

PACKAGES = [
    *("containerd", "runc", "containernetworking-plugins", "nftables", "iproute2", "kmod", "procps"),
    *("etcd-server", "etcd-client", "postgresql", "debootstrap", "openssl", "ca-certificates", "faketime"),
]


@dataclass(frozen=True)
class Recipe:
    """What one Go module gives: programs by package, other names a program goes by, and folders or files of its sources."""

    programs: dict[str, str]
    links: dict[str, str] | None = None
    source: str = ""
    files: dict[str, str] | None = None


RECIPES = {
    "kubernetes": Recipe(
        {"kube": ".", "kubectl": "./kubectl"},
        links={name: "kube" for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet")},
    ),
    "kuberay": Recipe(
        {"ray-operator": "github.com/ray-project/kuberay/ray-operator"},
        source="github.com/ray-project/kuberay/ray-operator",
        files={"crds": "config/crd/bases"},
    ),
    "kueue": Recipe(
        {"kueue": "sigs.k8s.io/kueue/cmd/kueue"},
        source="sigs.k8s.io/kueue",
        files={"crds": "config/components/crd/bases", "webhooks.yaml": "config/components/webhook/manifests.yaml"},
    ),
    "kwok": Recipe({"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    "versitygw": Recipe({"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    "pause": Recipe({"pause": "."}),
}
_FLAGS = f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES}"


@functools.cache
def folder(module: str) -> Path:
    """Where the programs of this module, as it is now, are kept."""
    digest = hashlib.sha256(repr((RECIPES[module], _FLAGS)).encode())
    for path in sorted(path for path in (MODULES / module).rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(MODULES)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return CACHE / f"{module}-{digest.hexdigest()[:12]}"


def program(module: str, name: str) -> Path:
    path = folder(module) / name
    if not path.exists():
        raise TestbedError(f"{module}/{name} is not built as {HERE.name}/modules has it now: run `make cluster-up`")
    return path


def build() -> None:
    """Make what is missing. Costs well under a second when nothing is."""
    _install_packages()
    CACHE.mkdir(parents=True, exist_ok=True)
    for module in RECIPES:
        _build_module(module)
    images.build(program("pause", "pause"))
    current = {folder(module) for module in RECIPES} | set(images.archives())
    for old in set(CACHE.iterdir()) - current:  # of other versions of the recipe, or of a build that was interrupted
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def _install_packages() -> None:
    if not shutil.which("apt-get"):
        raise TestbedError("the testbed needs Debian's packages (apt-get): use a Debian machine, or another cluster by KUBECONFIG (docs/testbed.md)")
    known = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *PACKAGES], check=False, capture_output=True, text=True).stdout
    missing = sorted(set(PACKAGES) - {line.split()[0] for line in known.splitlines() if line.endswith(" installed")})
    if not missing:
        return
    _say(f"installing {', '.join(missing)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "--no-upgrade", *missing)
    try:
        run(*install, env=quiet)
    except TestbedError:  # a fresh machine has no package lists, an old one stale ones
        run("apt-get", "update", "-qq", env=quiet)
        run(*install, env=quiet)


def _build_module(module: str) -> None:
    target, recipe = folder(module), RECIPES[module]
    if target.exists():
        return
    if not shutil.which("go"):
        raise TestbedError("the testbed is compiled from Go modules: install Go 1.26 or later (https://go.dev/dl) and put it on PATH")
    _say(f"compiling {module}")
    here = MODULES / module
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    made = target.with_suffix(".part")
    shutil.rmtree(made, ignore_errors=True)
    for name, package in recipe.programs.items():
        run("go", "build", "-o", made / name, "-ldflags", _FLAGS, package, cwd=here, env=environment)
    for name, of in (recipe.links or {}).items():
        (made / name).symlink_to(of)
    if recipe.files:
        source = Path(json.loads(run("go", "list", "-m", "-json", recipe.source, cwd=here, env=environment))["Dir"])
        for name, origin in recipe.files.items():
            run("cp", "-rL", "--no-preserve=mode", source / origin, made / name)  # Go's module cache is read-only
    made.rename(target)


def _say(what: str) -> None:
    print(f"testbed: {what}", file=sys.stderr, flush=True)
