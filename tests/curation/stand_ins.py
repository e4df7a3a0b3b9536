"""Stages that stand in for a model on a GPU. In a module of their own: Ray's workers import them by name."""

import os
import time

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


class Served(Stage):
    """Takes `service_s` for each segment, whatever is in it, like a GPU that nobody else uses; needs no CPU for that."""

    name, version, reads, picks = "served", "1", ("decode",), Picks(px=32, fps=1)

    def __init__(self, service_s: float, workers: int = 1) -> None:
        self.service_s = service_s
        self.resources = Resources(num_cpus=0, pool=workers, memory=64 * 1024 * 1024)

    def setup(self) -> None:
        pass

    def measure(self, segment: Segment) -> Partial:
        time.sleep(self.service_s)
        return {"seen": np.ones(1)}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        return Measured({"served.segments": float(len(merged["seen"]))})
