"""A measuring stage of fixed service time. In a module of its own: Ray's workers import it by name."""

import time

import numpy as np

from ray_jobs.curation.rows import Rows
from ray_jobs.curation.stage import Measured, Partial, Picks, Resources, Segment, Stage
from ray_jobs.episode import EpisodeMeta


class Served(Stage):
    """Takes `service_s` for each segment, whatever is in it, like a GPU that nobody else uses; needs no CPU for that."""

    name, version, reads, picks = "served", "1", ("decode",), Picks(px=32, fps=1)
    resources = Resources(num_cpus=0, pool=1, memory=64 * 1024 * 1024)

    def __init__(self, service_s: float) -> None:
        self.service_s = service_s

    def setup(self) -> None:
        """In an actor, as a model would be."""

    def measure(self, segment: Segment) -> Partial:
        time.sleep(self.service_s)
        return {"seen": np.ones(1)}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        return Measured({"served.segments": float(len(merged["seen"]))})
