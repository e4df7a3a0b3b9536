"""curated_dataset: the kept episodes of a day as one LeRobot dataset. dataset_at_compute: the same bytes beside the GPUs."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import dagster as dg

from orchestration.curation.assets import verdicts
from orchestration.dataset.sweep import MANIFEST
from orchestration.launching.work import Outcome
from orchestration.partitions import DAILY, window
from orchestration.placement.asset import decision_for, placement
from orchestration.placement.decision import COPIES, Decision
from orchestration.settings import Settings
from orchestration.steps import Flywheel, Planned, heavy, launch, metadata, needed, told
from ray_jobs.seam.configs import CopyConfig, CopySettings, DayDataset, PackConfig
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.results import Pointer, read_pointer
from ray_jobs.seam.store import Store, StoreConfig

GROUP = "dataset"


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[verdicts],
    group_name=GROUP,
    kinds={"ray", "parquet"},
    owners=["team:robot-data"],
    output_required=False,
    description="The kept episodes of the day as a LeRobot v3.0 dataset: immutable, named by its content, with a manifest of hashes.",
)
def curated_dataset(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store
    judged = {day: needed(read_pointer(store, "verdicts", day), f"{day} is not judged yet: materialize `verdicts` first") for day in context.partition_keys}

    def config(days: tuple[str, ...]) -> PackConfig:
        return PackConfig(
            store=settings.store_config(),
            days=days,
            episodes={day: judged[day].output["episodes"] for day in days},
            verdicts={day: judged[day].output["verdicts"] for day in days},
            augment=settings.augment,
        )

    yield from heavy(
        context,
        flywheel,
        Planned(
            asset="curated_dataset",
            module="ray_jobs.packing",
            settings={"keep": ["kept"], **({"augment": settings.augment.model_dump()} if settings.augment else {})},
            day_inputs={day: {"verdicts": pointer.output_digest} for day, pointer in judged.items()},
            config_for=config,
            redo=gone(context, settings.store_config(), {day: read_pointer(store, "curated_dataset", day) for day in judged}),
        ),
    )


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[curated_dataset, placement],
    group_name=GROUP,
    kinds={"ray"},
    owners=["team:ml-platform"],
    output_required=False,
    description="The day's dataset in the store near the training cluster, every byte compared with the manifest; a rerun moves only what is missing.",
)
def dataset_at_compute(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    yield from told(context, bring(context, flywheel, {day: decision_for(flywheel, day) for day in context.partition_keys}))


def bring(context: dg.AssetExecutionContext, flywheel: Flywheel, where: Mapping[str, Decision | None]) -> Outcome:
    """Copy days to where each is placed, and of the window before them what is not there yet: one job for each place.

    Returns what became of the days themselves. Other days of the window that were copied are logged as materialized.
    """
    places: dict[str | None, list[str]] = defaultdict(list)
    for day, decision in where.items():
        places[decision.region if decision else None].append(day)
    decisions = {decision.region: decision for decision in where.values() if decision}
    outcome = Outcome(days={})
    for region, days in places.items():
        wanted = days if region is None else sorted({*days, *(each for day in days for each in window(day) if _has_data(flywheel.store, each))})
        done = launch(
            context, flywheel, _copying(context, flywheel, tuple(wanted), decisions.get(region or "")), tuple(wanted), flywheel.settings.target_of(COPIES)
        )
        for each in set(wanted) - set(days):
            if (also := done.days[each]).state == "published" and also.pointer:
                context.log_event(dg.AssetMaterialization(COPIES, partition=each, metadata=metadata(also.pointer)))
        mine = {day: done.days[day] for day in days}
        outcome = replace(done, days={**outcome.days, **mine}, error=outcome.error or done.error, failure_class=outcome.failure_class or done.failure_class)
    return outcome


def _has_data(store: Store, day: str) -> bool:
    pointer = read_pointer(store, "curated_dataset", day)
    return pointer is not None and bool(pointer.output.get("dataset"))


def _copying(context: dg.AssetExecutionContext, flywheel: Flywheel, wanted: tuple[str, ...], decision: Decision | None) -> Planned:
    settings, store = flywheel.settings, flywheel.store
    packed = {day: needed(read_pointer(store, "curated_dataset", day), f"{day} is not packed: materialize `curated_dataset` first") for day in wanted}
    destination = decision.store if decision else settings.compute_config()
    asset = decision.copies if decision else COPIES

    def config(days: tuple[str, ...]) -> CopyConfig:
        datasets = {day: DayDataset(**packed[day].output["dataset"]) for day in days if packed[day].output.get("dataset")}
        return CopyConfig(store=settings.store_config(), days=days, destination=destination, datasets=datasets, settings=_copy_settings(settings, decision))

    return Planned(
        asset=asset,
        module="ray_jobs.transfer",
        settings={"destination": destination.url},
        day_inputs={day: {"dataset": pointer.output_digest or "no data"} for day, pointer in packed.items()},
        config_for=config,
        redo=gone(context, destination, {day: read_pointer(store, asset, day) for day in wanted}),
    )


def gone(context: dg.AssetExecutionContext, config: StoreConfig, published: Mapping[str, Pointer | None]) -> frozenset[str]:
    """Days whose dataset was published and has no manifest in the store any more: somebody has emptied it, or wants it made again."""

    prefixes = {day: dataset["prefix"] for day, pointer in published.items() if pointer and (dataset := pointer.output.get("dataset"))}
    try:
        store = Store(config)
        found = frozenset(day for day, prefix in prefixes.items() if not store.exists(f"{prefix}/{MANIFEST}"))
    except FlywheelError as error:  # if there is work to do, the job will say the same, and be tried again
        context.log.warning(f"what was published is taken to be there: {error}")
        return frozenset()
    for day in sorted(found):
        context.log.warning(f"{day} is made again: the manifest of its dataset is gone from {config.url}")
    return found


def _copy_settings(settings: Settings, decision: Decision | None) -> CopySettings:
    """Of a placed day the link says what each GB costs, and the copy stops before it takes more than the day may still cost."""
    if decision is None or settings.placement is None:
        return settings.copying
    link = next((each for each in settings.placement.links if (each.source, each.destination) == (settings.placement.home, decision.region)), None)
    left = settings.placement.max_cost - decision.spent
    cap = left if settings.copying.egress_cap_usd is None else min(left, settings.copying.egress_cap_usd)
    return settings.copying.model_copy(update={"egress_usd_per_gb": link.price_per_gb if link else 0.0, "egress_cap_usd": cap})
