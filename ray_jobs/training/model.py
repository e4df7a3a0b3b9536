"""A model at rest: models/<content hash>/, immutable.

weights.safetensors   the network
config.json           PolicyConfig
normalisation.json    Statistics
lineage.json          Lineage, written last: a model without it is not whole
"""

import hashlib
from typing import Any

from pydantic import ValidationError

from ray_jobs.seam.configs import Tuned
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.layout import model_prefix
from ray_jobs.seam.model import Strict, canonical
from ray_jobs.seam.store import Store
from ray_jobs.training import weights
from ray_jobs.training.policy import Policy, build_policy
from ray_jobs.training.selection import Selected
from ray_jobs.training.spec import PolicyConfig, Statistics

HASH_LENGTH = 32


class LineageDataset(Strict):
    """One day of the view, and which of its episodes were learned from or held out. Uploads are keys below the raw store."""

    day: str
    prefix: str
    manifest_sha256: str
    trained_on: tuple[str, ...]
    held_out: tuple[str, ...]
    uploads: tuple[str, ...]


class Lineage(Strict):
    """Where a model comes from: view -> day datasets -> episodes -> uploads, with what made it and how it went."""

    model: str
    datasets: tuple[LineageDataset, ...]
    settings: dict[str, Any]  # TrainSettings, seed among them
    code: str | None
    versions: dict[str, str]
    metrics: dict[str, float]
    steps: int
    resumed_from_step: int
    seconds: float
    selection: Selected | None = None  # what the conditions and the mixture in `settings` came to
    started_from: str | None = None  # the model whose weights and statistics it went on from
    tuned: Tuned | None = None  # the search that learning_rate, batch and policy in `settings` come from


def content_hash(policy: Policy) -> str:
    """Of weights, config and statistics: the same result is the same model."""
    parts = (weights.to_bytes(policy.tensors()), canonical(policy.config).encode(), canonical(policy.statistics).encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:HASH_LENGTH]


def write_model(store: Store, policy: Policy, lineage: Lineage) -> str:
    """The prefix. `lineage.model` is filled in; a model that is already there keeps its first lineage."""
    prefix = model_prefix(content_hash(policy))
    if not store.exists(f"{prefix}/lineage.json"):
        store.put(f"{prefix}/weights.safetensors", weights.to_bytes(policy.tensors()))
        store.put(f"{prefix}/config.json", canonical(policy.config).encode())
        store.put(f"{prefix}/normalisation.json", canonical(policy.statistics).encode())
        store.put(f"{prefix}/lineage.json", lineage.model_copy(update={"model": prefix}).model_dump_json(indent=1).encode())
    return prefix


def read_model(store: Store, prefix: str) -> Policy:
    """Raises NotFound where there is none, DataError where it is not what its name says."""
    try:
        config = PolicyConfig.model_validate_json(store.get(f"{prefix}/config.json"))
        statistics = Statistics.model_validate_json(store.get(f"{prefix}/normalisation.json"))
    except ValidationError as error:
        raise DataError(f"{prefix} was made by another version of this code ({error.error_count()} fields differ): train a new one") from error
    tensors, _ = weights.from_bytes(store.get(f"{prefix}/weights.safetensors"), f"{prefix}/weights.safetensors")
    policy = build_policy(config, statistics).load(tensors)
    if model_prefix(content_hash(policy)) != prefix:
        raise DataError(f"the content of {prefix} has changed since it was written: train again, or restore it")
    return policy
