"""Checkpoints of a training run, in the folder of the execution that wrote them, read by whoever continues.

They go through the store, so any URL works, and a restarted worker, a restarted driver and a later attempt resume alike.
A checkpoint is one object: weights, momentum, variance, the step (schedule, data position and random state follow from it), the curve,
the subject, and a SHA-256 of all that. What was written is read back before an older one is removed; what is read is checked.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable

import numpy as np
import torch

from ray_jobs.seam.errors import DataError, StoreError
from ray_jobs.seam.store import Store
from ray_jobs.training import weights
from ray_jobs.training.loop import State

KEPT = 2  # of one execution: the newest, and one before it should the newest be damaged
FAILURES = 3  # checkpoints in a row that the store does not take, each after the store's own two minutes of retries
VECTORS = ("weights", "momentum", "variance")


def folder(execution: str) -> str:
    return f"{execution}/checkpoints"


def _key(execution: str, step: int) -> str:
    return f"{folder(execution)}/{step:09d}.safetensors"


def _digest(vectors: dict[str, np.ndarray], note: dict[str, str]) -> str:
    """SHA-256 of everything that a checkpoint says, but for this digest itself."""
    found = hashlib.sha256(json.dumps([note.get("subject"), note.get("step"), note.get("curve")]).encode())
    for name in sorted(vectors):
        found.update(f"{name} {vectors[name].dtype.str} {vectors[name].shape} ".encode())
        found.update(np.ascontiguousarray(vectors[name]).data)
    return found.hexdigest()


def save(store: Store, execution: str, state: State, subject: str) -> None:
    """Write it, read it back, then remove all but the newest KEPT of this execution up to this one.

    `subject` is a digest of what is being trained on what: only the same may continue from here. Raises StoreError where the store did not
    take it, or took something else.
    """
    vectors = {name: getattr(state, name).numpy() for name in VECTORS}
    note = {"subject": subject, "step": str(state.step), "curve": json.dumps(state.curve)}
    data = weights.to_bytes(vectors, {**note, "sha256": _digest(vectors, note)})
    key = _key(execution, state.step)
    store.put(key, data)
    if store.get(key) != data:
        raise StoreError(f"{store.config.url}/{key} is not what was written there: check the store's disks and what lies between")
    for step in [step for step in steps(store, execution) if step <= state.step][:-KEPT]:
        store.delete(_key(execution, step))


def steps(store: Store, execution: str) -> list[int]:
    """The steps that this execution has saved, in order."""
    names = (entry.key.rsplit("/", 1)[1] for entry in store.list(folder(execution) + "/"))
    return sorted(int(name.removesuffix(".safetensors")) for name in names if name.endswith(".safetensors"))


def newest(store: Store, executions: Iterable[str], subject: str, say: Callable[[str], None] = print) -> State | None:
    """The furthest whole checkpoint of this subject, or None. A damaged one is passed over, and `say` hears of it."""
    found = sorted(((step, execution) for execution in executions for step in steps(store, execution)), reverse=True)
    for step, execution in found:
        try:
            held = _read(store, _key(execution, step))
        except DataError as error:
            say(f"{error}; the checkpoint before it is used")
            continue
        if held and held[0] == subject:
            return held[1]
    return None


def _read(store: Store, key: str) -> tuple[str, State] | None:
    """Subject and state; None where it was pruned since it was listed. Raises DataError for what is not whole."""
    if (data := store.find(key)) is None:
        return None
    vectors, note = weights.from_bytes(data, key)
    if note.get("sha256") != _digest(vectors, note) or not vectors.keys() >= set(VECTORS):
        raise DataError(f"{key} is damaged: its content does not have its SHA-256")
    parts = {name: torch.from_numpy(vectors[name]) for name in VECTORS}
    return note["subject"], State(int(note["step"]), **parts, curve=[(int(at), float(loss)) for at, loss in json.loads(note["curve"])])


class Writer:
    """Writes checkpoints from a thread while training goes on: one at a time, each from a copy of the state."""

    def __init__(self, store: Store, execution: str, subject: str):
        self._place = (store, execution, subject)
        self._thread: threading.Thread | None = None
        self._error: StoreError | None = None
        self._failed = 0  # in a row
        self.saved = -1  # the last step that is known to lie in the store

    def offer(self, state: State) -> bool:
        """Begin to write this state, unless the one before is still being written. -> whether it was begun.

        Raises the store's error after FAILURES failures in a row.
        """
        if self._thread is not None and self._thread.is_alive():
            return False
        if self._error and self._failed >= FAILURES:
            raise self._error
        copy = State(state.step, curve=list(state.curve), **{name: getattr(state, name).detach().cpu().clone() for name in VECTORS})
        self._thread = threading.Thread(target=self._write, args=(copy,), name="checkpoint", daemon=True)
        self._thread.start()
        return True

    def finish(self, state: State, alive: Callable[[], None] = lambda: None) -> None:
        """Return when this very state lies in the store; until then `alive` is called every second. Raises as `offer` does."""
        while self.saved != state.step:
            if not self.offer(state):
                assert self._thread is not None
                self._thread.join(1.0)
                alive()

    def _write(self, state: State) -> None:
        store, execution, subject = self._place
        try:
            save(store, execution, state, subject)
            self.saved, self._failed = state.step, 0
        except StoreError as error:
            self._error, self._failed = error, self._failed + 1
            print(f"the checkpoint of step {state.step} was not written, training goes on: {error}", flush=True)
