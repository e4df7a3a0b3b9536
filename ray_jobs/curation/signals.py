"""Checks of states, actions and times alone: no picture is decoded for them."""

import numpy as np

from ray_jobs.curation.agreement import agreement
from ray_jobs.curation.stage import Measured, Partial, Resources, Segment, Stage
from ray_jobs.episode import EpisodeMeta

IDLE_SHARE = 0.05  # slower than this share of the episode's own fast pace is standing still
PAUSE_MIN_S = 0.3


class Signal(Stage):
    """Rates, gaps, clocks, ranges, idleness, smoothness, and whether the arm does what it is told."""

    name = "signal"
    version = "1"
    writes = ("time", "state", "action", "command", "idle", "duration_s")
    resources = Resources()

    def measure(self, segment: Segment) -> Partial:
        """The rows themselves are the partial: some tens of bytes a sample, a hundredth of the frames."""
        partial: Partial = {}
        for name, stream in segment.streams.items():
            partial[f"{name}/t"], partial[f"{name}/log"] = stream.t_ns, stream.log_ns
            if name in ("state", "action"):
                partial[f"{name}/values"] = stream.values
        return partial

    def scores(self, merged: Partial, meta: EpisodeMeta) -> Measured:
        scores: dict[str, float] = {}
        vectors: dict[str, np.ndarray] = {}
        names = sorted({name.rsplit("/", 1)[0] for name in merged})
        starts, ends = [], []
        for name in names:
            t_ns, log_ns = merged[f"{name}/t"], merged[f"{name}/log"]
            if len(t_ns) >= 2:
                scores.update({f"time.{key}:{name}": value for key, value in timing(t_ns, log_ns).items()})
                starts.append(log_ns.min())
                ends.append(log_ns.max())
        scores["duration_s"] = float(max(ends) - min(starts)) / 1e9 if starts else 0.0
        table: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name in ("state", "action"):
            if f"{name}/values" not in merged or merged[f"{name}/values"].shape[1] == 0:
                continue
            values = merged[f"{name}/values"].astype(np.float64)
            finite = np.isfinite(values).all(axis=1)
            scores[f"{name}.nonfinite"] = float(1 - finite.mean()) if len(values) else 0.0
            scores[f"{name}.samples"] = float(len(values))
            times, kept = in_order(merged[f"{name}/t"][finite], values[finite])
            if len(times) >= 3:
                table[name] = (times, kept)
                more, shapes = ranges(kept)
                scores.update({f"{name}.{key}": value for key, value in more.items()})
                vectors.update({f"{name}.{key}": value for key, value in shapes.items()})
        if "state" in table:
            scores.update(idleness(*table["state"]))
        if len(table) == 2:
            origin = min(table["state"][0][0], table["action"][0][0])
            found = agreement((table["state"][0] - origin) / 1e9, table["state"][1], (table["action"][0] - origin) / 1e9, table["action"][1])
            if found:
                scores.update({"command.r2": found.r2, "command.lag_s": found.lag_s, "command.r2_now": found.r2_now})
                if len(found.sums):
                    vectors["command.sums"] = found.sums
        return Measured(scores, vectors)


def in_order(t_ns: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples by time, one per instant."""
    times, first = np.unique(t_ns, return_index=True)
    return times, values[first]


def timing(t_ns: np.ndarray, log_ns: np.ndarray) -> dict[str, float]:
    """rate (Hz); gap_s, the longest silence; lost, the share of samples missing at that rate; jitter, the interquartile range
    of periods over their median; backward, steps back in time; clock_s, the largest change of publish time against log time."""
    steps = np.diff(t_ns) / 1e9
    forward = steps[steps > 0]
    period = float(np.median(forward)) if len(forward) else 0.0
    if period <= 0:
        return {"backward": float((steps < 0).sum()), "standing": 1.0}
    logged = np.diff(log_ns) / 1e9
    beats = np.maximum(np.rint(np.clip(steps, 0, 60) / period), 0)
    low, high = np.percentile(forward, [25, 75])
    return {
        "rate_hz": 1 / period,
        "gap_s": float(steps.max()),
        "lost": float(1 - len(t_ns) / max(len(t_ns), beats.sum() + 1)),
        "jitter": float((high - low) / period),
        "backward": float((steps < 0).sum()),
        "clock_s": float(np.abs(steps - logged).max()),
    }


def ranges(values: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Spread, still axes, saturation, roughness; and per axis the extremes, the first value and the largest step."""
    span = np.ptp(values, axis=0)
    steps = np.diff(values, axis=0)
    bends = np.diff(steps, axis=0)
    moving = span > 1e-6
    rough = np.sqrt((bends[:, moving] ** 2).mean() / max((steps[:, moving] ** 2).mean(), 1e-18)) if moving.any() and len(bends) else 0.0
    many = [axis for axis in np.flatnonzero(moving) if len(np.unique(values[:, axis])) > 4]
    stuck = [
        np.mean((values[:, axis] >= values[:, axis].max() - 1e-6 * span[axis]) | (values[:, axis] <= values[:, axis].min() + 1e-6 * span[axis]))
        for axis in many
    ]
    scores = {
        "span": float(span.max()),
        "still_axes": float(np.mean(~moving)),
        "roughness": float(rough),
        "saturated": float(max(stuck, default=0.0)),
    }
    vectors = {"low": values.min(axis=0), "high": values.max(axis=0), "first": values[0], "step": np.abs(steps).max(axis=0)}
    return scores, vectors


def idleness(t_ns: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """fraction: share of the time standing still; longest_s: longest such stretch."""
    seconds = np.diff(t_ns) / 1e9
    scale = np.maximum(np.ptp(values, axis=0), 1e-9)
    moving_axes = np.ptp(values, axis=0) > 1e-6
    if not moving_axes.any():
        return {"idle.fraction": 1.0, "idle.longest_s": float(seconds.sum())}
    speed = np.linalg.norm(np.diff(values, axis=0)[:, moving_axes] / scale[moving_axes], axis=1) / seconds
    still = speed < IDLE_SHARE * np.percentile(speed, 90)
    lengths = [float(seconds[first:last].sum()) for first, last in runs(still)]
    return {
        "idle.fraction": sum(length for length in lengths if length >= PAUSE_MIN_S) / max(float(seconds.sum()), 1e-9),
        "idle.longest_s": max(lengths, default=0.0),
    }


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """[first, last) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
