"""The closest peer, dagster-ray, in an environment of its own (.venv-dagster-ray, some 0.5 GB): never a part of the project's lock.

requirements.lock: `uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 requirements.txt`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parents[1] / ".venv-dagster-ray"
NAME = "dagster-ray 0.4.8"


def environment(lock: Path = HERE / "requirements.lock", folder: Path = ENVIRONMENT) -> Path:
    """The peer's interpreter, installed where the lock changed since the last time."""
    stamp, wanted = folder / ".lock-sha256", hashlib.sha256(lock.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if not uv:
        sys.exit("the peer's environment is made with uv, and there is none: install it, or run `make setup`")
    print(f"making {folder.name} (once)", flush=True)
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--require-hashes", "-r", str(lock)]
    subprocess.run(install, check=True, env={**os.environ, "VIRTUAL_ENV": str(folder)})
    stamp.write_text(wanted)
    return python
