"""What the threads of a copy ask before they read, and tell after they wrote."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ray_jobs.transfer.budget import Allowance

Take = Callable[[int, int], float]  # bytes, requests -> seconds to wait; raises budget.Spent


class Stopped(Exception):
    """Another thread or node has failed, or somebody asked for the end: what is under way is given up."""


class Totals(NamedTuple):
    """Objects proven and their bytes, those of them that were copied and theirs; and the bytes read from the source, twice where they were read twice."""

    objects: int = 0
    bytes: int = 0
    copied: int = 0
    copied_bytes: int = 0
    read_bytes: int = 0

    def plus(self, other: "Totals") -> "Totals":
        return Totals(*(one + more for one, more in zip(self, other, strict=True)))


def clocked(allowance: Allowance) -> Take:
    """The allowance for the threads of one process, by its clock."""
    lock = threading.Lock()

    def take(size: int, requests: int) -> float:
        with lock:
            return allowance.take(size, requests, time.monotonic())

    return take


class Meter:
    """Counts under a lock; `stopped` ends all threads between two requests."""

    def __init__(self, take: Take):
        self.stopped = threading.Event()
        self._take, self._lock, self._totals = take, threading.Lock(), Totals()

    def lease(self, size: int, requests: int) -> None:
        """Wait until `size` bytes may be read from the source. Raises budget.Spent, Stopped."""
        seconds = self._take(size, requests)
        if self.stopped.wait(seconds) if seconds else self.stopped.is_set():
            raise Stopped
        with self._lock:
            self._totals = self._totals.plus(Totals(read_bytes=size))

    def proven(self, size: int, copied: bool) -> None:
        """One more object; not copied where it was there already."""
        with self._lock:
            self._totals = self._totals.plus(Totals(1, size, int(copied), size if copied else 0))

    @property
    def totals(self) -> Totals:
        with self._lock:
            return self._totals
