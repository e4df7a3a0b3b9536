"""uploads: the index of everything that arrived. episodes: one row per recorded episode of a day."""

import time
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from orchestration.partitions import DAILY
from orchestration.settings import Settings
from orchestration.steps import Flywheel, Planned, heavy, light, needed, subprocess_json
from ray_jobs.seam.configs import IngestConfig, UploadsConfig
from ray_jobs.seam.layout import UNPARTITIONED
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown, read_pointer
from ray_jobs.seam.store import Store

GROUP = "ingest"


def raw_listing(settings: Settings) -> str:
    """Digest of what lies below the raw store, without what is too young to be complete: it changes when that is."""
    quiet_since = time.time_ns() - int(settings.ingest.quiet_s * 1e9)
    return digest(sorted((entry.key, entry.size, entry.etag) for entry in Store(settings.raw_config()).list() if entry.modified_ns <= quiet_since))


@dg.asset(
    group_name=GROUP,
    kinds={"python"},
    owners=["team:robot-data"],
    output_required=False,
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=2), warn_window=timedelta(days=1)),  # robots record every day
    description="Every upload that has arrived: path, digest, robot, days, and why it was set aside. Read from summaries, heads and tails.",
)
def uploads(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store
    previous = read_pointer(store, "uploads", UNPARTITIONED)
    listing = raw_listing(settings)  # before the index: what arrives meanwhile is found by the next one
    config = UploadsConfig(
        store=settings.store_config(),
        raw=settings.raw_config(),
        previous=previous.output["key"] if previous else None,
        settings=settings.ingest,
    )
    found = subprocess_json(context, "ray_jobs.ingest.index", config)
    in_days = set(DAILY.get_partition_keys())
    outside = sorted(day for day in found["days"] if day not in in_days)
    shown = {"days": Shown(type="json", value=sorted(found["days"]))}
    if outside:
        advice = f"{len(outside)} days have no partition (first {outside[0]}): set first_day to the earliest day that is to be processed"
        shown["days without a partition"] = Shown(type="text", value=advice)
        context.log.warning(advice)
    result = DayResult(counts=found["counts"], output={"key": found["key"], "days": found["days"]}, output_digest=found["digest"], shown=shown)
    yield from light(context, flywheel, "uploads", UNPARTITIONED, inputs={"listing": listing}, result=result)


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[dg.AssetDep(uploads)],
    group_name=GROUP,
    kinds={"ray"},
    owners=["team:robot-data"],
    output_required=False,
    description="One row per episode recorded on the day, or per upload that could not be read, with the reason; the episodes themselves are extracted once.",
)
def episodes(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store
    index = needed(read_pointer(store, "uploads", UNPARTITIONED), "there is no index of uploads yet: materialize `uploads` first")

    def config(days: tuple[str, ...]) -> IngestConfig:
        return IngestConfig(store=settings.store_config(), days=days, raw=settings.raw_config(), uploads=index.output["key"], settings=settings.ingest)

    yield from heavy(
        context,
        flywheel,
        Planned(
            asset="episodes",
            module="ray_jobs.ingest",
            settings=settings.ingest,
            day_inputs={day: {"uploads": index.output["days"].get(day, "absent")} for day in context.partition_keys},
            config_for=config,
        ),
    )
