"""What starts runs: arrivals, changed days, the daily schedule; the reconciler that ends what nobody owns; and the sweeper."""

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from orchestration.curation import overrides
from orchestration.dataset.sweep import sweep_datasets
from orchestration.dataset.verify import stores
from orchestration.ingest.assets import raw_listing
from orchestration.launching.code import code
from orchestration.launching.effects import Unreachable
from orchestration.launching.reconcile import reconcile
from orchestration.launching.sweep import sweep
from orchestration.partitions import DAILY
from orchestration.settings import current
from orchestration.steps import Flywheel, run_is_alive
from orchestration.triggers.decide import changed_days, days_behind
from orchestration.triggers.jobs import curate, index_uploads, learn
from ray_jobs.seam import ledger
from ray_jobs.seam.layout import UNPARTITIONED
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store

UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
STATUS = dg.DefaultSensorStatus.RUNNING if current().triggers.enabled else dg.DefaultSensorStatus.STOPPED
POLL_S = current().triggers.poll_s
COMPACT_S = 10.0  # with the attempts and the datasets within the minute that a sensor may take


@dg.sensor(job=index_uploads, minimum_interval_seconds=POLL_S, default_status=STATUS, description="Something arrived or changed below the raw store: index it.")
def arrivals(context: dg.SensorEvaluationContext, flywheel: Flywheel) -> dg.SensorResult | dg.SkipReason:
    index = read_pointer(flywheel.store, "uploads", UNPARTITIONED)
    indexed = index.inputs.get("listing") if index else None
    found = {UNPARTITIONED: raw_listing(flywheel.settings)}
    active = frozenset({UNPARTITIONED}) if _active(context.instance, index_uploads.name) else frozenset()
    decision = changed_days(found, {UNPARTITIONED: indexed}, active, context.cursor)
    if decision.given_up:
        context.log.error("asked for the index too often without a result: read the failed runs of index_uploads, then launch it by hand")
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=each.run_key) for each in decision.requests], cursor=decision.cursor)


@dg.sensor(
    job=curate,
    minimum_interval_seconds=POLL_S,
    default_status=STATUS,
    description="Exactly the days whose uploads or overrides changed: ingest, measure, judge.",
)
def changed(context: dg.SensorEvaluationContext, flywheel: Flywheel) -> dg.SensorResult | dg.SkipReason:
    index = read_pointer(flywheel.store, "uploads", UNPARTITIONED)
    if index is None:
        return dg.SkipReason("nothing is indexed yet")
    in_days = set(DAILY.get_partition_keys())
    people = overrides.state(flywheel.store)
    wanted = {day: made_of(value, people.get(day)) for day, value in index.output["days"].items() if day in in_days}
    decision = changed_days(wanted, {day: judged(flywheel.store, day) for day in wanted}, _active(context.instance, curate.name), context.cursor)
    if decision.given_up:
        context.log.error(f"asked {', '.join(decision.given_up)} too often without a result: read the failed runs, then backfill these days by hand")
    requests = [dg.RunRequest(run_key=each.run_key, partition_key=each.day) for each in decision.requests]
    return dg.SensorResult(run_requests=requests, cursor=decision.cursor)


@dg.schedule(
    job=learn,
    cron_schedule=current().triggers.daily_at,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING if current().triggers.enabled else dg.DefaultScheduleStatus.STOPPED,
    description="Every recent day that did not get through with its current verdicts: late and failed days too.",
)
def daily(context: dg.ScheduleEvaluationContext, flywheel: Flywheel) -> list[dg.RunRequest] | dg.SkipReason:
    store = flywheel.store
    recent = DAILY.get_partition_keys()[-flywheel.settings.triggers.recent_days :]
    judged = {day: pointer.output_digest for day in recent if (pointer := read_pointer(store, "verdicts", day))}
    packed = {day: pointer.inputs.get("verdicts") for day in judged if (pointer := read_pointer(store, "curated_dataset", day))}
    through = frozenset(day for day in judged if read_pointer(store, "champion", day))
    days = days_behind(judged, packed, through, _active(context.instance, learn.name))
    tick = context.scheduled_execution_time.strftime("%Y-%m-%d")
    return [dg.RunRequest(run_key=f"{day}:{judged[day]}:{tick}", partition_key=day) for day in days] or dg.SkipReason("every recent day is through")


@dg.sensor(minimum_interval_seconds=POLL_S, default_status=STATUS, description="Ends the Ray jobs whose Dagster run is over, cancelled or gone.")
def reconciler(context: dg.SensorEvaluationContext, flywheel: Flywheel) -> dg.SkipReason:
    told: list[str] = []
    targets = flywheel.existing_targets(lambda name, why: told.append(f"{name} cannot be used: {why}"))
    if not targets and not told:
        return dg.SkipReason("no Ray is running")
    for name, target in targets.items():
        try:
            told += reconcile(flywheel.store, target, flywheel.settings.deployment, lambda run_id: run_is_alive(context.instance, run_id))
        except Unreachable as error:  # the others are looked after all the same
            told.append(f"{name} could not be asked: {error}")
    return dg.SkipReason("; ".join(told) or "every job has a live owner")


@dg.sensor(
    minimum_interval_seconds=86400,
    default_status=STATUS,
    description="Removes old attempts, code and datasets that nothing names, uploads that never ended; merges the ledger's small files.",
)
def sweeper(context: dg.SensorEvaluationContext, flywheel: Flywheel) -> dg.SkipReason:
    settings = flywheel.settings
    told = sweep(flywheel.store, settings.deployment, lambda run_id: run_is_alive(context.instance, run_id), settings.triggers.keep_days, code().sha256)
    told += sweep_datasets(flywheel.store, [Store(config) for config in stores(settings)], settings.triggers.keep_days)
    told += ledger.compact(flywheel.store, COMPACT_S)
    return dg.SkipReason("\n".join(told) or "nothing is old enough to go")


def made_of(uploads: str, people: str | None) -> str:
    """What verdicts are made of, in one word: the digest of the day's uploads, and that of its overrides where there are any."""
    return f"{uploads}+{people}" if people else uploads


def judged(store: Store, day: str) -> str | None:
    """What the day's published verdicts were made of, or None where the chain is not whole."""
    table, verdicts = read_pointer(store, "episodes", day), read_pointer(store, "verdicts", day)
    if table is None or verdicts is None or verdicts.inputs.get("episodes") != table.output_digest:
        return None
    uploads = table.inputs.get("uploads")
    return made_of(uploads, verdicts.inputs.get("overrides")) if uploads else None


def _active(instance: dg.DagsterInstance, job: str) -> frozenset[str]:
    """The days that unfinished runs of a job are working on, ranges and backfills included ("" for no partition)."""
    days: set[str] = set()
    for run in instance.get_runs(RunsFilter(statuses=UNFINISHED)):
        if run.job_name != job and not run.job_name.startswith("__"):  # backfills and the UI's "materialize" run a nameless job
            continue
        first, last = run.tags.get("dagster/asset_partition_range_start"), run.tags.get("dagster/asset_partition_range_end")
        if first and last:
            days.update(DAILY.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)))
        else:
            days.add(run.tags.get("dagster/partition", ""))
    return frozenset(days)
