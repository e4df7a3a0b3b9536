"""What was evaluated, day by day: read back from the publications, for pictures, for calibration, and for whoever asks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ray_jobs.seam.layout import pointer_prefix
from ray_jobs.seam.results import Pointer, read_pointer
from ray_jobs.seam.store import Store

DAYS = 30  # that a picture shows
ENOUGH = 5  # models, before a correlation is told


@dataclass(frozen=True)
class Point:
    """One day's candidate. error: offline, None where there was no held-out episode; rate, low, high: None where nothing was rolled out."""

    day: str
    model: str
    promoted: bool
    rollouts: int
    rate: float | None
    low: float | None
    high: float | None
    error: float | None


def days_of(store: Store, asset: str) -> list[str]:
    """Days with a publication, oldest first."""
    prefix = pointer_prefix(asset, "")
    return sorted({entry.key.removeprefix(prefix).split("/")[0] for entry in store.list(prefix)})


def read_points(store: Store, last: int = DAYS, but: str | None = None) -> list[Point]:
    """The candidates of the last days that evaluated one; the day `but` is left out."""
    found = (read_pointer(store, "evaluation", day) for day in days_of(store, "evaluation")[-last:] if day != but)
    return [point for pointer in found if pointer and (point := point_of(pointer.day, pointer))]


def point_of(day: str, published: Pointer) -> Point | None:
    """None where nothing was evaluated."""
    scores = published.output.get("scores")
    if not scores:
        return None
    told, offline = scores["candidate"], (scores.get("offline") or {}).get("candidate")
    shares = (told["rate"], told["low"], told["high"])
    return Point(day, told["model"], bool(published.output.get("promote")), told["rollouts"], *shares, offline["error"] if offline else None)


@dataclass(frozen=True)
class Calibration:
    """Does a low offline error go with success, over models? rank: Spearman's correlation of error and success, -1 if it does perfectly.

    chance: two-sided p-value by permutation, exact for few models. Both None for fewer than ENOUGH models, or where all are alike.
    """

    models: int
    rank: float | None
    chance: float | None


def calibration(points: Sequence[Point]) -> Calibration:
    """One point per model, its newest: a model that was evaluated on several days counts once."""
    told = {point.model: (point.error, point.rate) for point in points if point.error is not None and point.rate is not None}
    errors, rates = (np.array([pair[column] for pair in told.values()], float) for column in (0, 1))
    good = np.isfinite(errors)
    errors, rates = errors[good], rates[good]
    if len(errors) < ENOUGH or np.ptp(errors) == 0 or np.ptp(rates) == 0:
        return Calibration(len(errors), None, None)
    from scipy.stats import permutation_test, rankdata

    one, other = (_standard(rankdata(values)) for values in (errors, rates))  # Spearman's is Pearson's correlation of the ranks

    def rank(order: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray((order * other).sum(axis=axis))

    tested = permutation_test((one,), rank, permutation_type="pairings", vectorized=True, n_resamples=2000, rng=np.random.default_rng(0))
    return Calibration(len(errors), float(tested.statistic), float(tested.pvalue))


def _standard(values: np.ndarray) -> np.ndarray:
    """Of mean 0 and length 1."""
    centred = values - values.mean()
    length: np.ndarray = centred / np.linalg.norm(centred)
    return length
