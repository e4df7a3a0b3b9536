"""vLLM for real, inside Ray Data, by the measuring job: `python -m tests.captioning.run`.

Makes an environment of its own on first use (.venv-captioning from requirements.lock: vLLM for CPUs, some 6 GB on disk, because it
shares no torch with ours), and runs in_ray.py there. Skips with a reason only on machines for which no such vLLM is built.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

from tests.environments import environment

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BUILT_FOR = {("Linux", "x86_64"), ("Linux", "aarch64")}


def main() -> None:
    machine = platform.system(), platform.machine()
    if machine not in BUILT_FOR:
        print(f"skipped: vLLM for CPUs is not built for {' '.join(machine)}")
        return
    python = environment("captioning", HERE / "requirements.lock")
    # --noconftest: what the other tests share imports packages that are not in this environment
    command = [str(python), "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-W", "ignore", "--timeout=900", str(HERE / "in_ray.py")]
    settings = {"RAY_worker_niceness": "0"}  # at Ray's own 15 the engine starves beside whatever else the machine does
    settings |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "RAY_USAGE_STATS_ENABLED": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, **settings, "PYTHONPATH": str(ROOT)}).returncode)


if __name__ == "__main__":
    main()
