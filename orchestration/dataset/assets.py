"""curated_dataset: the kept episodes of a day as one LeRobot dataset. dataset_at_compute: the same bytes beside the GPUs."""

from collections.abc import Iterator

import dagster as dg

from orchestration.curation.assets import verdicts
from orchestration.partitions import DAILY
from orchestration.steps import Flywheel, Planned, heavy, needed
from ray_jobs.seam.configs import CopyConfig, DayDataset, PackConfig
from ray_jobs.seam.results import read_pointer

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
        )

    yield from heavy(
        context,
        flywheel,
        Planned(
            asset="curated_dataset",
            module="ray_jobs.packing",
            settings={"keep": ["kept"]},
            day_inputs={day: {"verdicts": pointer.output_digest} for day, pointer in judged.items()},
            config_for=config,
        ),
    )


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[curated_dataset],
    group_name=GROUP,
    kinds={"ray"},
    owners=["team:ml-platform"],
    output_required=False,
    description="The day's dataset in the store near the training cluster, every byte compared with the manifest; a rerun moves only what is missing.",
)
def dataset_at_compute(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store
    packed = {
        day: needed(read_pointer(store, "curated_dataset", day), f"{day} is not packed: materialize `curated_dataset` first") for day in context.partition_keys
    }

    def config(days: tuple[str, ...]) -> CopyConfig:
        datasets = {day: DayDataset(**packed[day].output["dataset"]) for day in days if packed[day].output.get("dataset")}
        return CopyConfig(store=settings.store_config(), days=days, destination=settings.compute_config(), datasets=datasets, settings=settings.copying)

    yield from heavy(
        context,
        flywheel,
        Planned(
            asset="dataset_at_compute",
            module="ray_jobs.transfer",
            settings={"destination": settings.compute_config().url},
            day_inputs={day: {"dataset": pointer.output_digest or "no data"} for day, pointer in packed.items()},
            config_for=config,
        ),
    )
