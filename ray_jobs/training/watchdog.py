"""A training process that makes no step any more says where each of its threads stands, and ends, so that its group begins again.

What hangs may be a collective whose other side is gone, a stream that brings nothing, or a native call that never lets go of the interpreter:
for the last there is faulthandler's own thread, which needs no interpreter; it prints the stacks to stderr and ends the process.
"""

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType

FIRST = 4  # a process's first step, with all that starts and is decoded before it, may take so many times as long
TELLING_S = 10.0  # for `tell`, which may stand on what hangs
EXIT_CODE = 86


class Watchdog:
    """Around a training loop that calls `beat` after every step.

    No beat for limit_s (the first: FIRST times that): `tell` gets the last finished step and the stacks of all threads, and the process ends with
    EXIT_CODE.
    """

    def __init__(self, limit_s: float, step: int, tell: Callable[[int, str], None]):
        self._limit_s, self._tell = limit_s, tell
        self._step, self._ends = step, time.monotonic() + FIRST * limit_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, step: int) -> None:
        self._step, self._ends = step, time.monotonic() + self._limit_s

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = min(1.0, self._limit_s / 4)
        try:
            while not self._over.wait(pause):
                faulthandler.dump_traceback_later(2 * self._limit_s + TELLING_S, exit=True)  # unless this thread comes by again
                if time.monotonic() > self._ends:
                    self._end()
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _end(self) -> None:
        found = stacks()
        print(f"no step after {self._step} for so long that it hangs; this process ends, and its group begins again\n{found}", file=sys.stderr, flush=True)
        teller = threading.Thread(target=self._tell, args=(self._step, found), daemon=True)
        teller.start()
        teller.join(TELLING_S)
        os._exit(EXIT_CODE)


def stacks() -> str:
    """Where each thread of this process stands, by name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in sys._current_frames().items())
