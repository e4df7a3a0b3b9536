"""The sensors and the schedule themselves, on a store and a Dagster instance of their own."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from orchestration import settings
from orchestration.ingest.assets import raw_listing
from orchestration.launching.effects import Job, Unreachable
from orchestration.steps import Flywheel
from orchestration.triggers import sensors
from ray_jobs.seam.layout import UNPARTITIONED, pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import LEDGER, to_bytes

DAY = "2026-01-05"


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flywheel]:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.setenv("FLYWHEEL_TRIGGERS__RECENT_DAYS", "4000")
    settings.current.cache_clear()
    yield Flywheel()
    settings.current.cache_clear()


def publish(deployment: Flywheel, asset: str, day: str, **more: object) -> None:
    made = Pointer.model_validate({"asset": asset, "day": day, "generation": "g1", "run_id": "r", **more})
    deployment.store.put(pointer(asset, day, "g1"), made.model_dump_json().encode())


def requested(result: object) -> list[dg.RunRequest]:
    return list(getattr(result, "run_requests", None) or [])


def test_an_arrival_is_indexed_once(deployment: Flywheel) -> None:
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"flywheel": deployment})
        assert len(requested(sensors.arrivals(context))) == 1, "nothing is indexed yet"
        publish(deployment, "uploads", UNPARTITIONED, inputs={"listing": raw_listing(settings.current())})
        assert not requested(sensors.arrivals(context))
        Store(settings.current().raw_config()).put("arm-1/new.mcap", b"something")
        assert len(requested(sensors.arrivals(context))) == 1


def test_exactly_the_changed_day_is_curated_and_then_learned_from(deployment: Flywheel) -> None:
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"flywheel": deployment})
        publish(deployment, "uploads", UNPARTITIONED, output={"days": {DAY: "u1", "1999-01-01": "no partition"}})
        assert [request.partition_key for request in requested(sensors.changed(context))] == [DAY]
        publish(deployment, "episodes", DAY, inputs={"uploads": "u1"}, output_digest="e1")
        publish(deployment, "verdicts", DAY, inputs={"episodes": "e1"}, output_digest="v1")
        assert not requested(sensors.changed(context))

        tick = dg.build_schedule_context(instance=instance, resources={"flywheel": deployment}, scheduled_execution_time=datetime(2026, 1, 6, 5, tzinfo=UTC))
        (learn,) = sensors.daily(tick)
        assert (learn.partition_key, learn.run_key) == (DAY, f"{DAY}:v1:2026-01-06")
        publish(deployment, "curated_dataset", DAY, inputs={"verdicts": "v1"})
        publish(deployment, "champion", DAY)
        assert isinstance(sensors.daily(tick), dg.SkipReason)


def test_the_reconciler_starts_no_ray_only_to_look(deployment: Flywheel) -> None:
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"flywheel": deployment})
        assert "no Ray" in str(sensors.reconciler(context).skip_message)


class Cluster:
    """A target with one job, whose run is unknown to this Dagster; or one that does not answer."""

    def __init__(self, answers: bool = True):
        self.found = {"x-a1": Job("x-a1", "uid", "succeeded", {"deployment": "demo", "base": "x", "number": "1", "root_run": "gone", "spec": "s"})}
        self.answers = answers

    def jobs(self, deployment: str) -> list[Job]:
        if not self.answers:
            raise Unreachable("it does not answer")
        return list(self.found.values())

    def find(self, name: str) -> Job | None:
        return self.found.get(name)

    def delete(self, name: str, uid: str) -> None:
        del self.found[name]


def test_the_reconciler_looks_after_every_target_whatever_one_of_them_says(deployment: Flywheel, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {"a": Cluster(answers=False), "b": Cluster()}
    monkeypatch.setattr(Flywheel, "existing_targets", lambda self, on_error: targets)
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"flywheel": deployment})
        assert sensors.reconciler(context).skip_message == "a could not be asked: it does not answer; removed x-a1: its run is over"
        assert not targets["b"].found


def test_the_sweeper_tells_what_went(deployment: Flywheel) -> None:
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"flywheel": deployment})
        deployment.store.put("attempts/episodes-1/a1/e1/log/000000.txt", b"a word")
        assert sensors.sweeper(context).skip_message == "nothing is old enough to go"
        month = time.time() - 30 * 86400
        assert deployment.store.root is not None
        os.utime(deployment.store.root / "attempts/episodes-1/a1/e1/log/000000.txt", (month, month))
        assert "swept episodes-1: 1 objects" in str(sensors.sweeper(context).skip_message)
        assert not list(deployment.store.list("attempts/"))
        for number in range(2):
            key = f"ledger/signal@1/2026-03-01/{number}.parquet"
            deployment.store.put(key, to_bytes([], LEDGER))
            os.utime(deployment.store.root / key, (month, month))
        assert "ledger: 2 files became fewer" in str(sensors.sweeper(context).skip_message)
