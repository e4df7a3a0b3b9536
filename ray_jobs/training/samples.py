"""From one aligned episode to training rows, and from all rows to their statistics."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ray_jobs.training.spec import Statistics

SMALLEST_STD = 1e-4  # below, a feature or action is constant and stays 0 when normalised


@dataclass(frozen=True)
class Samples:
    """features f32 [n, f], actions f32 [n, chunk, a], valid f32 [n, chunk]: 0 beyond the episode's end."""

    features: np.ndarray
    actions: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    def columns(self) -> dict[str, np.ndarray]:
        return {"features": self.features, "actions": self.actions, "valid": self.valid}


def episode_samples(chunk: int, features: np.ndarray, actions: np.ndarray) -> Samples:
    """One row per moment of the episode; rows in which any number is NaN or infinite are left out.

    features [n, f], actions [n, a].
    """
    count, width = actions.shape
    later = np.arange(count)[:, None] + np.arange(chunk)[None]
    valid = (later < count).astype(np.float32)
    chunks = actions.astype(np.float32)[np.minimum(later, count - 1)] if count else np.zeros((0, chunk, width), np.float32)
    good = np.isfinite(features).all(axis=1) & np.isfinite(chunks).all(axis=(1, 2))
    return Samples(features[good].astype(np.float32), chunks[good], valid[good])


def join(parts: Iterable[Samples]) -> Samples:
    """Raises ValueError where there is nothing to join."""
    kept = [part for part in parts if len(part)]
    return Samples(*(np.concatenate([getattr(part, name) for part in kept]) for name in ("features", "actions", "valid")))


def statistics(parts: Iterable[Samples]) -> Statistics:
    """Mean and standard deviation of every column, in one pass over the parts. Raises ValueError without any row."""
    rows = 0
    sums: list[np.ndarray] = []
    binary: np.ndarray | None = None
    for part in parts:
        if not len(part):
            continue
        now = part.actions[:, 0].astype(np.float64)
        seen = part.features.astype(np.float64)
        added = [seen.sum(axis=0), (seen**2).sum(axis=0), now.sum(axis=0), (now**2).sum(axis=0)]
        sums = [one + other for one, other in zip(sums, added, strict=True)] if sums else added
        flags = ((part.actions == 0) | (part.actions == 1)).all(axis=(0, 1))
        binary = flags if binary is None else binary & flags
        rows += len(part)
    if binary is None:
        raise ValueError("statistics of no samples")
    feature_mean, feature_square, action_mean, action_square = (total / rows for total in sums)
    action_std = _deviation(action_mean, action_square)
    return Statistics(
        rows=rows,
        feature_mean=tuple(feature_mean.tolist()),
        feature_std=tuple(_deviation(feature_mean, feature_square).tolist()),
        action_mean=tuple(action_mean.tolist()),
        action_std=tuple(action_std.tolist()),
        binary=tuple(bool(flag) and std != 1.0 for flag, std in zip(binary, action_std, strict=True)),
    )


def _deviation(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    """1 where the column is constant."""
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return np.where(std > SMALLEST_STD * np.maximum(1, np.abs(mean)), std, 1.0)
