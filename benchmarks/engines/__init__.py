"""Other engines that measure the same step, each in a process and an environment of its own: they want other versions than we do.

<name>.lock (`uv pip compile --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --python-version 3.11` of <name>.txt)
is what an environment holds, <name>_step.py what runs in it: a line {"names": [...], "target": folder} on its input, a line on
its output when all is measured and written. `.venv-<name>` is made once.

Not here: NeMo Curator. It resolves beside us (ray 2.60, torch 2.15), but its step would be the same function in a stage of its
own on the same Ray, at 5 GB of torch; that was not tried.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray_jobs.seam.store import StoreConfig
from tests.environments import environment

HERE = Path(__file__).parent
NAMES = ("daft",)


class Peer:
    """A running engine."""

    def __init__(self, name: str, home: StoreConfig, cores: int) -> None:
        root = HERE.parents[1]
        environ = {**os.environ, "PYTHONPATH": str(root), "STORE": home.model_dump_json(), "CORES": str(cores), "DO_NOT_TRACK": "1", "DAFT_PROGRESS_BAR": "0"}
        command = [str(environment(name, HERE / f"{name}.lock")), str(HERE / f"{name}_step.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, cwd=root)

    def measure(self, names: list[str], target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"names": names, "target": str(target)}) + "\n")
        self.process.stdin.flush()
        while (line := self.process.stdout.readline()) and not line.startswith("measured "):
            continue
        if line != f"measured {len(names)}\n":
            raise RuntimeError(f"the peer answered {line!r}")


@contextmanager
def peers(home: StoreConfig, cores: int) -> Iterator[tuple[dict[str, Peer], dict[str, str]]]:
    """The engines that could be installed, and why the others could not."""
    running: dict[str, Peer] = {}
    left_out = {"nemo-curator": "not tried: its step would be the same function on the same Ray, at 5 GB of torch"}
    try:
        for name in NAMES:
            try:
                running[name] = Peer(name, home, cores)
            except (OSError, subprocess.CalledProcessError) as error:
                left_out[name] = str(error).splitlines()[0]
        yield running, left_out
    finally:
        for peer in running.values():
            peer.process.kill()
            peer.process.wait()
