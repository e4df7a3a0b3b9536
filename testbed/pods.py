"""What a pod's manifest needs to run Python here: pods see this machine's interpreter and environment, read-only, at the same paths."""

import os
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.layout import IMAGE, REPOSITORY


@dataclass(frozen=True)
class Mounts:
    volumes: list[dict[str, Any]]
    volume_mounts: list[dict[str, Any]]
    path: str  # for the variable PATH
    image: str = IMAGE
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> list[dict[str, str]]:
        """For a container's `env`."""
        return [{"name": name, "value": value} for name, value in self.environment.items()]

    def container(self, **more: Any) -> dict[str, Any]:
        """A container of this image with these mounts and this environment; `env` in `more` is added."""
        env = [*self.env, *more.pop("env", [])]
        return {"image": self.image, "imagePullPolicy": "IfNotPresent", "volumeMounts": self.volume_mounts, "env": env, **more}


def mounts(repository: bool = False) -> Mounts:
    """Of the environment that calls this: nothing is built between an edit and a test. With the repository, PYTHONPATH names it too."""
    paths = {**_interpreter(), "venv": sys.prefix, **({"repository": str(REPOSITORY)} if repository else {})}
    volumes = [{"name": name, "hostPath": {"path": path, "type": "Directory" if Path(path).is_dir() else "File"}} for name, path in paths.items()]
    volume_mounts = [{"name": name, "mountPath": path, "readOnly": True} for name, path in paths.items()]
    path = f"{sys.prefix}/bin:/usr/bin:/bin"
    environment = {
        "PATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # KubeRay's start command would raise the limit to more than a container may have
        "RAY_START_ULIMIT_OPEN_FILES": "20000",
        # A lost node's packets vanish without a reset: with Ray's defaults its task resumed after 442 s, with these after 61 s
        "RAY_grpc_client_keepalive_time_ms": "10000",
        "RAY_grpc_client_keepalive_timeout_ms": "10000",
        # Another kernel of it adds up in another order, and tests compare numbers of pods with their own to the last bit
        **{name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")},
        **({"PYTHONPATH": str(REPOSITORY)} if repository else {}),
    }
    return Mounts(volumes, volume_mounts, path, environment=environment)


def _interpreter() -> dict[str, str]:
    """Where this interpreter lies: in a prefix of its own or, a distribution's, below /usr, which the image has one of itself."""
    if sys.base_prefix != "/usr":
        return {"python": sys.base_prefix}
    return {"python": str(Path(sys.executable).resolve()), "stdlib": sysconfig.get_path("stdlib")}
