"""Commands, waiting, and the one kind of error that reaches the user."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class TestbedError(Exception):
    """One line that says what is wrong and what to do."""

    __test__ = False  # its name would make pytest collect it


class Ended(TestbedError):
    """A process died that was waited for: it makes no sense to wait on."""


def run(*command: object, **options: Any) -> str:
    """Run to the end and return what it printed. Raises TestbedError with the last line of what it complained about."""
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(arguments, check=False, text=True, capture_output=True, **options)
    except FileNotFoundError as error:
        raise TestbedError(f"the program {arguments[0]} is missing: run `make cluster-up`") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise TestbedError(f"`{' '.join(arguments)[:200]}` failed with {done.returncode}: {lines[-1]}")
    return done.stdout


def succeeds(*command: object) -> bool:
    try:
        run(*command)
    except TestbedError:
        return False
    return True


def wait_until(what: str, seconds: float, check: Callable[[], bool]) -> None:
    """Ask until it is so. An error of the check counts as no: whoever is asked may not be up yet."""
    deadline = time.monotonic() + seconds
    last = ""
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except Ended:
            raise
        except (TestbedError, OSError) as error:
            last = f" ({error})"
        time.sleep(0.1)
    from testbed.layout import LOGS

    raise TestbedError(f"{what}: not after {seconds:.0f} s{last}; see {LOGS}")


def read(path: Path) -> bytes:
    """A file of /proc or /sys, empty where it has just gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def write_secret(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
