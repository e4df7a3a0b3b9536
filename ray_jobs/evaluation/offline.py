"""Offline action error: what a policy says at recorded moments of episodes it never saw, against what was done there.

By joint and by horizon: horizon h is the h-th action of one prediction, alone: no temporal ensembling, no consequences.
Moments of one episode are alike, so an episode is the unit that counts, and every episode counts the same; never the frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.store import Store
from ray_jobs.training.features import find_extractor
from ray_jobs.training.ingest import Part, read_parts
from ray_jobs.training.plan import SHARD_MOMENTS
from ray_jobs.training.samples import Moments

if TYPE_CHECKING:
    from ray_jobs.training.policy import Policy

ROWS_AT_ONCE = 256  # asked of a policy in one go
DAYS_FOR_INTERVAL = 5  # from so many on, days are the unit of the interval: episodes of one day are alike, too


@dataclass(frozen=True)
class Errors:
    """Of one episode. count: moments [h]; absolute, squared: mean errors [h, a]; action, square: mean of what was done and of its square [a]."""

    episode_id: str
    day: str
    count: np.ndarray
    absolute: np.ndarray
    squared: np.ndarray
    action: np.ndarray
    square: np.ndarray


def errors_of(store: Store, policies: Sequence["Policy"], episode: PackedEpisode) -> list[Errors | None]:
    """One per policy, None without any moment; an episode is decoded once for policies that see the same. Raises DataError where it cannot be read."""
    sums: list[list[np.ndarray]] = [[] for _ in policies]
    for piece in range(0, episode.length, SHARD_MOMENTS):
        part = Part(episode=episode, start=piece, stop=min(episode.length, piece + SHARD_MOMENTS))
        seen: dict[tuple[str, tuple[str, ...]], Moments] = {}
        for number, policy in enumerate(policies):
            view = (policy.config.policy, policy.config.cameras)
            if view not in seen:
                seen[view] = read_parts(store, [part], find_extractor(policy.config.policy), policy.config.cameras)
            added = _sums(policy, seen[view])
            sums[number] = [one + other for one, other in zip(sums[number], added, strict=True)] if sums[number] else added
    return [_errors(found, episode) for found in sums]


def errors_in(policy: "Policy", whole: Moments, episode: PackedEpisode) -> Errors | None:
    """The same of an episode whose moments are in memory."""
    return _errors(_sums(policy, whole), episode)


def _sums(policy: "Policy", part: Moments) -> list[np.ndarray]:
    """Over the part's rows: how many, absolute and squared errors by horizon, what was done and its square."""
    count, chunk = len(part.rows), policy.chunk
    total = [np.zeros(chunk, np.int64), *np.zeros((2, chunk, policy.config.action_width)), *np.zeros((2, policy.config.action_width))]
    for start in range(0, count, ROWS_AT_ONCE):
        batch = part.batch(part.rows[start : start + ROWS_AT_ONCE], policy.window, chunk)
        done, now = batch.actions.astype(np.float64), batch.valid[:, :1]
        wrong = (policy.predict(batch.seen) - done) * batch.valid[..., None]
        action = done[:, 0] * now
        added = [batch.valid.sum(axis=0).astype(np.int64), np.abs(wrong).sum(axis=0), (wrong**2).sum(axis=0), action.sum(axis=0), (action**2).sum(axis=0)]
        total = [one + other for one, other in zip(total, added, strict=True)]
    return total


def _errors(sums: list[np.ndarray], episode: PackedEpisode) -> Errors | None:
    if not sums or not sums[0][0]:
        return None
    count, absolute, squared, action, square = sums
    moments = np.maximum(count, 1)[:, None]  # an episode shorter than the chunk has horizons without any moment
    return Errors(episode.episode_id, episode.day, count, absolute / moments, squared / moments, action / count[0], square / count[0])


def fits(policy_shape: tuple[int, int, tuple[str, ...]], episode: PackedEpisode) -> bool:
    """Whether a policy of (state width, action width, cameras) can be asked about the episode."""
    states, actions, cameras = policy_shape
    return (len(episode.state_names), len(episode.action_names)) == (states, actions) and set(cameras) <= episode.cameras.keys()


def summary(model: str, names: tuple[str, ...], told: Sequence[Errors]) -> dict[str, Any] | None:
    """None without any episode. The `error` of an episode is its root mean squared error over the spread of what was done, mean over dimensions.

    The spread is the standard deviation over all episodes here, so that 1 is what always predicting the mean action gets; dimensions in which
    nothing was done are left out. `error` is the mean over episodes at horizon 1, low and high its 95 % interval (Student's t) over `interval_over`.
    joints: mean absolute error in the action's own unit, per dimension one value per horizon.
    """
    if not told:
        return None
    action, square = (np.mean([getattr(part, name) for part in told], axis=0) for name in ("action", "square"))
    deviation = np.sqrt(np.maximum(square - action**2, 0))
    moves = deviation > 1e-6 * np.maximum(1, np.abs(action))
    unit, chosen = (deviation[moves], moves) if moves.any() else (np.ones(1), np.ones(len(moves), bool))
    counted = np.stack([part.count for part in told]) > 0
    each = np.stack([(np.sqrt(part.squared[:, chosen]) / unit).mean(axis=1) for part in told])
    absolute = _mean(np.stack([part.absolute for part in told]), counted[..., None])
    by_horizon = _mean(each, counted)
    first = each[:, 0]
    days = {day: first[[part.day == day for part in told]] for day in sorted({part.day for part in told})}
    over = "days" if len(days) >= DAYS_FOR_INTERVAL else "episodes"
    low, high = _interval(np.array([errors.mean() for errors in days.values()]) if over == "days" else first)
    order = np.argsort(-first, kind="stable")
    return {
        "model": model,
        "episodes": len(told),
        "frames": int(sum(part.count[0] for part in told)),
        "error": round(float(first.mean()), 6),
        "low": low,
        "high": high,
        "interval_over": over,
        "by_horizon": [round(float(value), 6) for value in by_horizon],
        "by_day": {day: {"episodes": len(errors), "error": round(float(errors.mean()), 6)} for day, errors in days.items()},
        "joints": {name: [round(float(value), 6) for value in column] for name, column in zip(names, absolute.T, strict=True)},
        "by_episode": {told[place].episode_id: round(float(first[place]), 6) for place in order},
    }


def _mean(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Over episodes (the first axis), of those that have the horizon."""
    mean: np.ndarray = (values * counted).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return mean


def _interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """Student's t, two-sided 95 %; nothing from one value."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return None, None
    half = float(stdtrit(len(values) - 1, 0.975)) * float(values.std(ddof=1)) / float(np.sqrt(len(values)))
    return round(float(values.mean()) - half, 6), round(float(values.mean()) + half, 6)
