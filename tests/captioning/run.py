"""vLLM for real, inside Ray Data, by the measuring job: `python -m tests.captioning.run`.

Makes an environment of its own on first use (.venv-captioning from requirements.lock: vLLM for CPUs, some 6 GB on disk, because it
shares no torch with ours), and runs in_ray.py there. Skips with a reason only on machines for which no such vLLM is built.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ENVIRONMENT = ROOT / ".venv-captioning"
BUILT_FOR = {("Linux", "x86_64"), ("Linux", "aarch64")}


def environment() -> Path:
    """The interpreter, installed where the lock changed since the last time."""
    lock = HERE / "requirements.lock"
    stamp, wanted = ENVIRONMENT / ".lock-sha256", hashlib.sha256(lock.read_bytes()).hexdigest()
    python = ENVIRONMENT / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if not uv:
        sys.exit("this environment is made with uv, and there is none: install it, or run `make setup`")
    print(f"making {ENVIRONMENT.name} from {lock.relative_to(ROOT)} (once; some 6 GB)", flush=True)
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)], check=True)
    # sync, because the lock was resolved with overrides that an install would not know of
    subprocess.run([uv, "pip", "sync", "--quiet", "--require-hashes", str(lock)], check=True, env={**os.environ, "VIRTUAL_ENV": str(ENVIRONMENT)})
    stamp.write_text(wanted)
    return python


def main() -> None:
    machine = platform.system(), platform.machine()
    if machine not in BUILT_FOR:
        print(f"skipped: vLLM for CPUs is not built for {' '.join(machine)}")
        return
    command = [str(environment()), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--timeout=900", str(HERE / "in_ray.py")]
    settings = {"RAY_worker_niceness": "0"}  # at Ray's own 15 the engine starves beside whatever else the machine does
    settings |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "RAY_USAGE_STATS_ENABLED": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, **settings, "PYTHONPATH": str(ROOT)}).returncode)


if __name__ == "__main__":
    main()
