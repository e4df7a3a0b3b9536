"""Checkpoints of a training run, in the folder of the execution that wrote them, read by whoever continues.

They go through the store, so any URL works, and a restarted worker, a restarted driver and a later attempt resume alike.
"""

import json
from collections.abc import Iterable

import torch

from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store
from ray_jobs.training import weights
from ray_jobs.training.loop import State


def folder(execution: str) -> str:
    return f"{execution}/checkpoints"


def save(store: Store, execution: str, state: State, subject: str) -> None:
    """`subject` is a digest of what is being trained on what: only the same may continue from here."""
    note = {"subject": subject, "step": str(state.step), "curve": json.dumps(state.curve)}
    vectors = {"weights": state.weights.numpy(), "momentum": state.momentum.numpy(), "variance": state.variance.numpy()}
    store.put(f"{folder(execution)}/{state.step:09d}.safetensors", weights.to_bytes(vectors, note))


def steps(store: Store, execution: str) -> list[int]:
    """The steps that this execution has saved, in order."""
    names = (entry.key.rsplit("/", 1)[1] for entry in store.list(folder(execution) + "/"))
    return sorted(int(name.removesuffix(".safetensors")) for name in names if name.endswith(".safetensors"))


def newest(store: Store, executions: Iterable[str], subject: str) -> State | None:
    """The furthest whole checkpoint of this subject, or None. A damaged one is passed over."""
    found = sorted(((step, execution) for execution in executions for step in steps(store, execution)), reverse=True)
    for step, execution in found:
        key = f"{folder(execution)}/{step:09d}.safetensors"
        try:
            vectors, note = weights.from_bytes(store.get(key), key)
        except DataError:
            continue
        if note.get("subject") == subject:
            parts = {name: torch.from_numpy(vectors[name]) for name in ("weights", "momentum", "variance")}
            return State(step, **parts, curve=[(int(at), float(loss)) for at, loss in json.loads(note["curve"])])
    return None
