"""Stages that stand in for a model on a GPU. In a module of their own: Ray's workers import them by name."""

import os
import time
from pathlib import Path

import numpy as np

from ray_jobs.curation.rows import Rows
from ray_jobs.curation.stage import Measured, Partial, Picks, Resources, Segment, Stage
from ray_jobs.episode import EpisodeMeta
from ray_jobs.seam.errors import DataError


class Held(Stage):
    """Loaded by `setup`, asked in batches, some frames in a size of its own. Dislikes an episode whose id ends with 3."""

    name, version, reads, picks = "held", "1", ("decode",), Picks(px=32, fps=5)
    resources = Resources(num_cpus=0.5, pool=1, batch=4)

    def __init__(self, loaded: str) -> None:
        self.loaded = loaded

    def setup(self) -> None:
        self.model = np.arange(3) + 1.0
        with open(self.loaded, "a") as file:
            file.write(f"{os.getpid()}\n")

    def measure_batch(self, segments: list[Segment]) -> list[Partial]:
        if any(segment.meta.episode_id.endswith("3") for segment in segments):
            raise DataError("this one I do not like")
        return [{"seen": segment.views["front"].frames.mean(axis=(1, 2)) @ self.model} for segment in segments]

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        return Measured({"held.mean": float(merged["seen"].mean()), "held.frames": float(len(merged["seen"]))})


class Tally(Stage):
    """Shares the decoding worker, and writes a line for each segment that it has decoded."""

    name, version, reads, picks = "tally", "1", ("decode",), Picks(px=32, fps=1)

    def __init__(self, path: str) -> None:
        self.path = path

    def measure(self, segment: Segment) -> Partial:
        with open(self.path, "a") as file:
            file.write(f"{segment.meta.episode_id}\n")
        return {"seen": np.ones(1)}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        return Measured({"tally.segments": float(len(merged["seen"]))})


class Behind(Stage):
    """Is busy with each segment until `ahead` more than it has had, or all `total`, are in the tally; dislikes it after a minute."""

    name, version, reads, picks = "behind", "1", ("decode",), Picks(px=32, fps=1)
    resources = Resources(num_cpus=0, pool=1, memory=64 * 1024 * 1024)

    def __init__(self, path: str, ahead: int, total: int) -> None:
        self.path, self.ahead, self.total = path, ahead, total

    def setup(self) -> None:
        self.had = 0

    def measure(self, segment: Segment) -> Partial:
        self.had += 1
        wanted, until = min(self.total, self.had + self.ahead), time.monotonic() + 60
        while len(Path(self.path).read_text().splitlines()) < wanted:
            if time.monotonic() > until:
                raise DataError(f"decoding does not run ahead: {wanted} segments were not decoded while this one, number {self.had}, was measured")
            time.sleep(0.02)
        return {"seen": np.ones(1)}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        return Measured({"behind.segments": float(len(merged["seen"]))})
