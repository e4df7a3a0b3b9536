"""Checks that know the demo's task, "put the red block on the green target". Switched on by settings.task; never run on other data."""

import numpy as np

from ray_jobs.curation.rows import Rows
from ray_jobs.curation.stage import Measured, Partial, Resources, Segment, Stage
from ray_jobs.episode import EpisodeMeta

LAST_FRAMES = 5
MIN_PIXELS = 3


class PickPlace(Stage):
    """Where the block ends up, from colours alone: an unlabelled failure shows as a block that is not on the target."""

    name = "task"
    version = "1"
    reads = ("decode",)
    writes = ("task",)
    settings = ("task",)
    resources = Resources()

    def measure(self, segment: Segment) -> Partial:
        if not segment.views:
            return {}
        view = segment.views[min(segment.views)]
        red, green = blobs(view.frames)
        return {"red": red, "green": green}

    def merge(self, partials: list[Partial]) -> Partial:
        return super().merge([part for part in partials if part] or [{}])

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        return Measured({f"task.{name}": value for name, value in outcome(merged["red"], merged["green"]).items()} if merged else {})


def blobs(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Red and green blob of each frame [n, h, w, 3]: [n, 3] of x, y (share of the width) and area (share of the picture)."""
    channels = frames.astype(np.int16)
    red, green, blue = channels[..., 0], channels[..., 1], channels[..., 2]
    return _centre((red - np.maximum(green, blue)) > 45), _centre((green - np.maximum(red, blue)) > 35)


def _centre(mask: np.ndarray) -> np.ndarray:
    count, _, width = mask.shape
    pixels = mask.sum(axis=(1, 2))
    rows, columns = mask.sum(axis=2), mask.sum(axis=1)
    x = (columns * np.arange(columns.shape[1])).sum(axis=1) / np.maximum(pixels, 1) / width
    y = (rows * np.arange(rows.shape[1])).sum(axis=1) / np.maximum(pixels, 1) / width
    found = np.stack([x, y, pixels / mask[0].size if count else pixels], axis=1).astype(np.float32)
    found[pixels < MIN_PIXELS, :2] = np.nan
    return found


def outcome(red: np.ndarray, green: np.ndarray) -> dict[str, float]:
    """distance: block to target at the end, in block sides; seen: share of the frames in which the block is seen.

    The target never moves: its place is its median over the frames in which it is seen whole (the block covers it at the end).
    """
    seen = np.isfinite(red[:, 0])
    scores = {"seen": float(seen.mean()) if len(red) else 0.0}
    whole = np.isfinite(green[:, 0]) & (green[:, 2] >= 0.8 * np.max(green[:, 2], initial=0.0))
    last = np.flatnonzero(seen)[-LAST_FRAMES:]
    if not seen.any() or not whole.any():
        return scores
    side = float(np.sqrt(np.median(red[seen, 2])))
    apart = np.median(red[last, :2], axis=0) - np.median(green[whole, :2], axis=0)
    return {
        **scores,
        "distance": float(np.hypot(*apart)) / max(side, 1e-6),
        "moved": float(np.hypot(*(np.median(red[last, :2], axis=0) - red[seen][0, :2]))) / max(side, 1e-6),
    }
