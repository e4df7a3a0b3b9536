"""Programs that want other versions than ours, in environments of their own: .venv-<name> beside .venv, made on first use with uv."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(name: str, lock: Path) -> Path:
    """The interpreter of .venv-<name>, which holds what the lock (requirements with hashes) says and nothing else; made anew where the lock has changed.

    Raises CalledProcessError where uv cannot install it; ends the process where there is no uv.
    """
    folder = ROOT / f".venv-{name}"
    stamp, wanted = folder / ".lock-sha256", hashlib.sha256(lock.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if not uv:
        sys.exit(f"{folder.name} is made with uv, and there is none: install it, or run `make setup`")
    print(f"making {folder.name} from {lock.relative_to(ROOT)} (once)", flush=True)
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
    # sync and not install: a lock that was resolved with overrides contradicts what its packages ask for. What is imported, a quarter, is compiled then
    install = [uv, "pip", "sync", "--quiet", "--require-hashes", str(lock)]
    subprocess.run(install, check=True, env={**os.environ, "VIRTUAL_ENV": str(folder)})
    stamp.write_text(wanted)
    return python
