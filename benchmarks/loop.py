"""`make loop` as a newcomer runs it, in a home of its own: wall seconds, and the peak memory of all its processes."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.results import figure, write

ROOT = Path(__file__).parents[1]
GOAL_S, GOAL_GB = 360.0, 6.0


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="fw-bench-"))
    started = time.monotonic()
    mark = f"FLYWHEEL_BENCH_MARK={home.name}"
    environ = {**os.environ, "FLYWHEEL_HOME": str(home), "FLYWHEEL_BENCH_MARK": home.name}
    loop = subprocess.Popen([sys.executable, "-m", "orchestration.cli", "loop"], cwd=ROOT, env=environ)
    peak = [0]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(2.0):
            peak[0] = max(peak[0], proportional_bytes(mark))

    watcher = threading.Thread(target=sample)
    watcher.start()
    code = loop.wait()
    done.set()
    watcher.join()
    seconds, gigabytes = time.monotonic() - started, peak[0] / 1e9
    shutil.rmtree(home, ignore_errors=True)
    if code:
        sys.exit(f"the loop ended with {code}")
    write(
        "loop",
        [
            figure("wall", seconds, "s", None, None, f"< {GOAL_S:.0f}", seconds < GOAL_S),
            figure("peak_memory", gigabytes, "GB (PSS of all processes, every 2 s)", None, None, f"< {GOAL_GB:.0f}", gigabytes < GOAL_GB),
        ],
    )


def proportional_bytes(mark: str) -> int:
    """Sum of the proportional set sizes of every process whose environment carries the mark (Linux, proc(5))."""
    total = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                rollup = (process / "smaps_rollup").read_text()
                total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return total
