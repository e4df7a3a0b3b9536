"""Statistics as LeRobot keeps them: min, max, mean, std, count and five quantiles per feature.

Pictures count in [0, 1] with shape (3, 1, 1). Episodes are merged by LeRobot's own rule (lerobot/datasets/compute_stats.py):
means weighted by count, variances by the parallel formula, quantiles by the weighted mean.
"""

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, np.ndarray]


def of_values(values: np.ndarray) -> Stats:
    """values: [n, d] or [n] (d = 1), n >= 1. Each statistic has shape [d], count [1]."""
    table = values.reshape(len(values), -1).astype(np.float64)
    made = {"min": table.min(0), "max": table.max(0), "mean": table.mean(0), "std": table.std(0), "count": np.array([len(table)])}
    for name, value in zip(QUANTILES, np.quantile(table, list(QUANTILES.values()), axis=0), strict=True):
        made[name] = value
    return made


def sampled_frames(count: int) -> np.ndarray:
    """Which of an episode's frames its picture statistics look at: LeRobot's number, evenly spaced. int [m], rising."""
    wanted = count if count < 100 else int(np.clip(count**0.75, 100, 10_000))
    return np.unique(np.round(np.linspace(0, count - 1, wanted)).astype(np.int64))


class PictureStats:
    """Exact statistics of 8-bit pictures in constant memory: one histogram per channel."""

    def __init__(self) -> None:
        self.histogram = np.zeros((3, 256), np.int64)
        self.pictures = 0

    def add(self, picture: np.ndarray) -> None:
        """picture: uint8 [h, w, 3]; large ones are thinned to some 150 pixels a side."""
        height, width = picture.shape[:2]
        step = 1 if max(height, width) < 300 else max(1, int(min(height, width) / 150))
        for channel in range(3):
            self.histogram[channel] += np.bincount(picture[::step, ::step, channel].ravel(), minlength=256)
        self.pictures += 1

    def result(self) -> Stats:
        """Each statistic has shape [3, 1, 1], count [1] (pictures). Needs at least one picture."""
        levels = np.arange(256) / 255.0
        total = self.histogram.sum(1)
        running = self.histogram.cumsum(1)
        mean = (self.histogram * levels).sum(1) / total
        columns = {
            "min": levels[(self.histogram > 0).argmax(1)],
            "max": levels[255 - (self.histogram[:, ::-1] > 0).argmax(1)],
            "mean": mean,
            "std": np.sqrt((self.histogram * (levels - mean[:, None]) ** 2).sum(1) / total),
        }
        for name, share in QUANTILES.items():
            columns[name] = np.array([_quantile(running[channel], share) for channel in range(3)]) / 255.0
        return {name: value.reshape(3, 1, 1) for name, value in columns.items()} | {"count": np.array([self.pictures])}


def _quantile(running: np.ndarray, share: float) -> float:
    """NumPy's linear quantile of the levels behind a cumulative histogram."""
    position = share * (running[-1] - 1)
    low, high = np.searchsorted(running, [np.floor(position), np.ceil(position)], side="right")
    return float(low + (high - low) * (position - np.floor(position)))


def merge(parts: list[Stats]) -> Stats:
    """One feature's statistics over several episodes."""
    counts = np.array([float(part["count"][0]) for part in parts])
    total = counts.sum()

    def weighted(name: str) -> np.ndarray:
        return sum((part[name] * (count / total) for part, count in zip(parts, counts, strict=True)), np.zeros_like(parts[0][name]))

    mean = weighted("mean")
    spread = [(part["std"] ** 2 + (part["mean"] - mean) ** 2) * (count / total) for part, count in zip(parts, counts, strict=True)]
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(sum(spread, np.zeros_like(mean))),
        "count": np.array([int(total)]),
        **{name: weighted(name) for name in QUANTILES},
    }


def as_json(stats: Stats) -> dict[str, Any]:
    return {name: value.tolist() for name, value in stats.items()}
