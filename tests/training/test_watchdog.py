"""A process that hangs ends within its limit and says where; one that goes on, however slowly, does not. Each in a process of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ray_jobs.training.watchdog import EXIT_CODE, FIRST

PROCESS = """
import sys, time, threading
from pathlib import Path
from ray_jobs.training.watchdog import Watchdog
limit, kind, told = float(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

def tell(step, stacks):
    told.write_text(f"{step}\\n{stacks}")
    if kind == "store":
        time.sleep(3600)

def stands_here():
    if kind == "native":
        import ctypes
        ctypes.PyDLL(None).sleep(3600)  # with the interpreter's lock held
    threading.Lock().acquire() and threading.Event().wait(3600)

import ray_jobs.training.watchdog as watchdog
watchdog.TELLING_S = 0.5
with Watchdog(limit, 7, tell) as dog:
    for step in range(8, 12):
        time.sleep(limit * (2.0 if step == 8 else 0.3))
        dog.beat(step)
    if kind != "none":
        stands_here()
print("over")
"""


def run(tmp_path: Path, kind: str, limit_s: float = 1.0) -> tuple[int, str, str, float]:
    """Exit code, what was printed, what was told, and the seconds that it took."""
    repository = Path(__file__).parents[2]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(limit_s), kind, str(tmp_path / "told")],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = (tmp_path / "told").read_text() if (tmp_path / "told").exists() else ""
    return done.returncode, done.stdout + done.stderr, told, time.monotonic() - began


def test_slow_steps_and_a_slower_first_one_are_no_hang(tmp_path: Path) -> None:
    code, printed, told, _ = run(tmp_path, "none")
    assert (code, told) == (0, "") and "over" in printed and FIRST > 2


@pytest.mark.parametrize("kind", ["wait", "store"])
def test_it_ends_and_says_where_every_thread_stands(tmp_path: Path, kind: str) -> None:
    code, printed, told, _ = run(tmp_path, kind)
    assert code == EXIT_CODE and "over" not in printed
    step, _, found = told.partition("\n")
    assert step == "11" and "thread MainThread:" in found and "in stands_here" in found
    assert found in printed


def test_a_native_call_that_holds_the_interpreter_ends_too(tmp_path: Path) -> None:
    code, printed, told, seconds = run(tmp_path, "native")
    assert code == 1 and told == "" and "in stands_here" in printed and seconds < 30
