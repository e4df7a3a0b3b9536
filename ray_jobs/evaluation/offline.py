"""Offline action error: what a policy says at recorded moments of episodes it never saw, against what was done there.

Horizon 1: the first action of each prediction alone, without temporal ensembling and without consequences.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.store import Store
from ray_jobs.training.features import find_extractor
from ray_jobs.training.ingest import read_samples

if TYPE_CHECKING:
    from ray_jobs.training.policy import Policy


@dataclass(frozen=True)
class Errors:
    """Sums over one episode's moments, each [a]: of the absolute and the squared error, of the action and of its square."""

    count: int
    absolute: np.ndarray
    squared: np.ndarray
    action: np.ndarray
    square: np.ndarray


def errors_of(store: Store, policy: "Policy", episode: PackedEpisode) -> Errors:
    """Raises DataError where the episode cannot be read."""
    camera = policy.config.camera
    samples = read_samples(store, episode, find_extractor(policy.config.policy), camera)
    width = policy.config.action_width
    if not len(samples):
        return Errors(0, *np.zeros((4, width)))
    done = samples.actions[:, 0].astype(np.float64)
    wrong = policy.predict(samples.features)[:, 0] - done
    return Errors(len(done), np.abs(wrong).sum(axis=0), (wrong**2).sum(axis=0), done.sum(axis=0), (done**2).sum(axis=0))


def fits(policy_shape: tuple[int, int, str | None], episode: PackedEpisode) -> bool:
    """Whether a policy of (state width, action width, camera) can be asked about the episode."""
    states, actions, camera = policy_shape
    return (len(episode.state_names), len(episode.action_names)) == (states, actions) and (camera is None or camera in episode.cameras)


def summary(model: str, names: tuple[str, ...], parts: Iterable[Errors]) -> dict[str, Any] | None:
    """`error`: root mean squared error over the standard deviation of what was done, mean over dimensions: 1 is what the mean action gets.

    Dimensions in which nothing was done are left out of it. `per_dimension`: mean absolute error in the action's own unit.
    None without any moment.
    """
    told = [part for part in parts if part.count]
    if not told:
        return None
    count = sum(part.count for part in told)
    absolute, squared, action, square = (np.sum([getattr(part, name) for part in told], axis=0) / count for name in ("absolute", "squared", "action", "square"))
    deviation = np.sqrt(np.maximum(square - action**2, 0))
    moves = deviation > 1e-6 * np.maximum(1, np.abs(action))
    error = float(np.mean(np.sqrt(squared[moves]) / deviation[moves])) if moves.any() else float(np.sqrt(squared.mean()))
    return {
        "model": model,
        "episodes": len(told),
        "frames": count,
        "horizon": 1,
        "error": round(error, 6),
        "per_dimension": {name: round(float(value), 6) for name, value in zip(names, absolute, strict=True)},
    }
