"""What the workers of one group agree on at every step: all go on, all leave after this step, or one of them cannot go on.

A worker that is told to stop, or that fails where the others do not, says so in the last place of the vector that every step adds up over all
workers. So all leave at the same step, and none is left waiting in a collective for one that is gone.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

import torch
import torch.distributed as dist

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import DataError, FailureClass, FlywheelError, StoreError, UserError
from ray_jobs.seam.results import JobError
from ray_jobs.seam.store import Store
from ray_jobs.training import checkpoint
from ray_jobs.training.loop import State

LEAVE, FAILED = 1.0, 4096.0  # what a worker adds to the last place; more workers than the ratio there are not
ASKED_EVERY_S = 0.5


class Leaving(FlywheelError):
    """All workers stopped after the same step, which lies in the store."""

    failure_class: FailureClass = "preempted"


class OtherFailed(Exception):
    """Another worker cannot go on, and has said why in the store."""


def failure_key(execution: str) -> str:
    return f"{checkpoint.folder(execution)}/failed.json"


def stop_key(execution: str) -> str:
    """Written by who wants the training stopped; removed when it has stopped and the last step lies in the store."""
    return f"{checkpoint.folder(execution)}/stop"


def fail(store: Store, execution: str, error: FlywheelError) -> None:
    """Raised, it would be retried by Ray Train; so a failure that a retry cannot mend is left in the store."""
    report = JobError(failure_class=error.failure_class, message=str(error))
    store.put(failure_key(execution), report.model_dump_json().encode())


def failure(store: Store, execution: str) -> FlywheelError | None:
    """What a worker of this execution has left there."""
    if (text := store.find(failure_key(execution))) is None:
        return None
    report = JobError.model_validate_json(text)
    return {"data": DataError, "infrastructure": StoreError}.get(report.failure_class, UserError)(report.message)


class Member:
    """One worker of a group. `reduce` and `after` are the training loop's."""

    def __init__(self, store: Store, execution: str, subject: str, settings: TrainSettings, rank: int, world: int, first: int, device: torch.device):
        self._store, self._execution, self._settings = store, execution, settings
        self._rank, self._world, self._device = rank, world, device
        self._first = first
        self._reduced = 0
        self._leaves = False
        self._over = first >= settings.steps  # no other worker waits for this one any more
        self._writer = checkpoint.Writer(store, execution, subject) if rank == 0 else None
        self._asked, self._ended = threading.Event(), threading.Event()
        self._began = time.time()

    def __enter__(self) -> "Member":
        """Rank 0 looks for the driver's word as long as it trains."""
        if self._rank == 0:
            threading.Thread(target=self._listen, name="stop?", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()

    def reduce(self, vector: torch.Tensor) -> None:
        """vector: [gradient..., loss, 0]; becomes the sum over all workers, whose last place only this class understands."""
        vector[-1] = LEAVE if self._asked.is_set() or drained() else 0.0
        if self._world > 1:
            dist.all_reduce(vector)
        self._reduced += 1
        said = float(vector[-1])
        if said >= FAILED:
            self._over = True
            raise OtherFailed
        self._leaves = said >= LEAVE

    def after(self, state: State, alive: Callable[[], None] = lambda: None) -> None:
        """Checkpoints: due ones beside the training, the last one before anything else, with `alive` called while it is written.

        Raises Leaving, and StoreError where the store takes none.
        """
        every = self._settings.checkpoint_every
        if state.step == self._first + 1:
            self._note(state.step)
        ends = state.step == self._settings.steps
        self._over = self._over or ends
        if self._writer and (ends or self._leaves):
            try:
                self._writer.finish(state, alive)
            finally:
                self._meet()
        elif self._writer and state.step // every > max(self._first, self._writer.saved) // every:
            self._writer.offer(state)
        elif self._leaves:
            self._meet()
        if self._leaves and not ends:
            raise Leaving(f"stopped after step {state.step}, which lies in the store")

    def _meet(self) -> None:
        """Until rank 0 has written: a worker that is gone before would end its group, and rank 0 with it."""
        if self._leaves and not self._over and self._world > 1:
            dist.all_reduce(torch.zeros(1, device=self._device))
        self._over = True

    def failed(self, error: FlywheelError, state: State) -> None:
        """Tell the store, and where they wait for this worker the others. Raises StoreError where the store does not listen."""
        try:
            fail(self._store, self._execution, error)
        finally:
            if not self._over and self._world > 1 and self._reduced == state.step - self._first:
                vector = torch.zeros(len(state.weights) + 2, device=self._device)
                vector[-1] = FAILED
                dist.all_reduce(vector)

    def hangs(self, step: int, stacks: str) -> None:
        """The watchdog's last word. Twice after the same step, it is the step's fault, and is not tried again."""
        key = f"{self._execution}/hangs/{step:09d}-rank{self._rank}.txt"
        again = self._store.exists(key)
        self._store.put(key, stacks.encode())
        if again:
            fail(self._store, self._execution, UserError(f"training hung twice after step {step}: where its threads stood is in {key}"))

    def stopped(self) -> None:
        """Answer the driver, if it asked."""
        if self._rank == 0:
            self._store.delete(stop_key(self._execution))

    def _listen(self) -> None:
        while not self._asked.is_set() and not self._ended.wait(ASKED_EVERY_S):
            try:
                if self._store.exists(stop_key(self._execution)):
                    self._asked.set()
            except StoreError:
                continue  # the checkpoints will say so

    def _note(self, step: int) -> None:
        """Who trained where, and since when: one small object for each worker of each group."""
        said = {"rank": self._rank, "world": self._world, "host": socket.gethostname(), "pid": os.getpid(), "first_step": step}
        said |= {"began": round(self._began, 3), "first_step_at": round(time.time(), 3)}
        key = f"{self._execution}/workers/{int(self._began * 1000)}-rank{self._rank}.json"
        threading.Thread(target=self._put, args=(key, json.dumps(said).encode()), daemon=True).start()

    def _put(self, key: str, data: bytes) -> None:
        try:
            self._store.put(key, data)
        except StoreError as error:
            print(f"not written, training goes on: {error}", flush=True)


def drained() -> bool:
    """Whether the node of a worker of this group goes: Ray drains it, for somebody asked for that, or it got a SIGTERM and has time left
    (RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S). In a process that is no Ray Train worker never.

    ray.train.get_preemption_info() is a collective of its own, too slow for every step; this is what it broadcasts.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    try:
        return get_train_context().preemption_context.preemption_info is not None
    except RuntimeError:
        return False
