"""measurements: what the checks measured, once. verdicts: what that means under today's thresholds, without any compute."""

import hashlib
from collections.abc import Iterator

import dagster as dg

from orchestration.curation.decide import decide, enter_history
from orchestration.ingest.assets import episodes
from orchestration.partitions import DAILY
from orchestration.steps import Flywheel, Planned, heavy, light_days, needed
from ray_jobs.seam.configs import MeasureConfig
from ray_jobs.seam.results import DayResult, read_pointer
from ray_jobs.seam.tables import VERDICTS, to_bytes

GROUP = "curation"


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[episodes],
    group_name=GROUP,
    kinds={"ray"},
    owners=["team:robot-data"],
    output_required=False,
    description="Scores of every check for every episode of the day. Facts: measured once per stage version, kept in the ledger.",
)
def measurements(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store
    tables = {day: needed(read_pointer(store, "episodes", day), f"{day} has no episodes yet: materialize `episodes` first") for day in context.partition_keys}

    def config(days: tuple[str, ...]) -> MeasureConfig:
        keys = {day: tables[day].output["episodes"] for day in days}
        return MeasureConfig(store=settings.store_config(), days=days, episodes=keys, settings=settings.measure)

    yield from heavy(
        context,
        flywheel,
        Planned(
            asset="measurements",
            module="ray_jobs.curation",
            settings=settings.measure,
            day_inputs={day: {"episodes": pointer.output_digest} for day, pointer in tables.items()},
            config_for=config,
        ),
    )


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[episodes, measurements],
    group_name=GROUP,
    kinds={"python"},
    owners=["team:robot-data"],
    output_required=False,
    description="Kept, rejected, quarantined or superseded, with reasons: a pure function of scores, thresholds, the fleet's context and people's overrides.",
)
def verdicts(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store

    def judge(day: str) -> tuple[dict[str, str], DayResult]:
        table = needed(read_pointer(store, "episodes", day), f"{day} has no episodes yet: materialize `episodes` first")
        measured = needed(read_pointer(store, "measurements", day), f"{day} is not measured yet: materialize `measurements` first")
        decided = decide(store, day, table.output["episodes"], measured.output["stages"], settings.thresholds)
        data = to_bytes(decided.rows, VERDICTS)
        content = hashlib.sha256(data).hexdigest()
        key = f"verdicts/{day}/{content}.parquet"
        store.put(key, data)
        enter_history(store, day, table.output["episodes"], measured.output["stages"])
        inputs = {"episodes": table.output_digest, "measurements": measured.output_digest, "context": decided.context_digest, "overrides": decided.overrides}
        output = {"verdicts": key, "episodes": table.output["episodes"], "context": decided.context_digest}
        return inputs, DayResult(counts=decided.counts, output=output, output_digest=content, shown=decided.shown)

    yield from light_days(context, flywheel, "verdicts", settings.thresholds, judge)
