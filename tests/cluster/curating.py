"""A recorded day in the cluster's store, and the project's own curation of it as a step of the protocol."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fleet.record import record_day
from orchestration.launching.work import Outcome, Work
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.driver import Execution
from ray_jobs.ingest.index import index
from ray_jobs.ingest.job import read_upload
from ray_jobs.ingest.job import run as ingest
from ray_jobs.seam.configs import IngestConfig, IngestSettings, MeasureConfig, MeasureSettings, UploadsConfig
from ray_jobs.seam.layout import ledger_prefix
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import from_bytes
from tests.cluster.bench import DAY, Bench

SETTINGS = MeasureSettings(task="pick_place")
Fact = tuple[str, str]  # stage, episode


@dataclass
class Curating:
    """One day of a small fleet, recorded and read for this test alone. Other days of other tests lie in the same ledger."""

    bench: Bench
    episodes: tuple[str, ...]
    key: str

    @classmethod
    def recorded(cls, bench: Bench, folder: Path, episodes_per_robot: int) -> "Curating":
        robots = ("arm-1", "arm-2")
        record_day(folder / "raw", folder / "truth", DAY, robots, episodes_per_robot, seed=int(bench.token, 16), damaged=0.0, workers=2)
        raw, home = StoreConfig.local(folder / "raw"), bench.cluster.store
        rows = index(UploadsConfig(store=home, raw=raw))
        for row in from_bytes(bench.store.get(rows.key)):
            read_upload(bench.store, Store(raw), row, IngestSettings())
        quiet = Execution(bench.store, f"attempts/{bench.prefix}/a1/x", report=lambda message: None)
        table = ingest(IngestConfig(store=home, raw=raw, days=(DAY,), uploads=rows.key), quiet)[DAY].output["episodes"]
        return cls(bench, tuple(row["episode_id"] for row in from_bytes(bench.store.get(table)) if row["status"] == "ok"), table)

    def work(self) -> Work:
        def config(days: tuple[str, ...]) -> dict[str, object]:
            return MeasureConfig(store=self.bench.cluster.store, days=days, episodes={DAY: self.key}, settings=SETTINGS).model_dump(mode="json")

        return replace(self.bench.work(), module="ray_jobs.curation", config_for=config, settings=SETTINGS.model_dump())

    def facts(self) -> list[tuple[Fact, dict[str, Any]]]:
        """Every row of these episodes that lies in the ledger, each as often as it was written."""
        found = []
        for stage, version in Plan.of(SETTINGS).versions.items():
            for entry in self.bench.store.list(ledger_prefix(stage, version, DAY) + "/"):
                rows = from_bytes(self.bench.store.get(entry.key))
                found += [((stage, row["episode_id"]), row) for row in rows if row["episode_id"] in self.episodes]
        return found

    def measured(self) -> dict[Fact, int]:
        """When each fact was measured, in ns. Where one was measured twice, that is an error."""
        facts = self.facts()
        times = {fact: int(row["measured_ns"]) for fact, row in facts}
        twice = [fact for fact, count in Counter(fact for fact, _ in facts).items() if count > 1]
        assert not twice, f"measured twice: {twice[:5]}"
        return times

    def assert_as_if_nothing_had_happened(self, outcome: Outcome) -> None:
        """Counts of the whole day, and every tenth episode's numbers as this process measures them."""
        assert outcome.error is None
        published = outcome.days[DAY].pointer
        assert published is not None and published.counts["episodes"] == len(self.episodes) and published.counts["errors"] == 0
        found = dict(self.facts())
        plan = Plan.of(SETTINGS)
        assert set(found) == {(stage, episode) for stage in plan.stages for episode in self.episodes}
        for episode in self.episodes[::10]:
            for row in measure_here(self.bench.store, episode, plan):
                held = found[row["stage"], episode]
                told, here = dict(held["scores"]), row["scores"]
                other = {name: (told.get(name), here.get(name)) for name in told.keys() | here.keys() if told.get(name) != here.get(name)}
                assert held["error"] is None and not other, other
                assert all(np.array_equal(np.float32(value), np.float32(row["vectors"][name])) for name, value in dict(held["vectors"]).items())
