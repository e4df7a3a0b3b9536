"""policy: one model per day, trained on the window of days up to it. tuning: with which settings, searched at small scale."""

from collections.abc import Iterator

import dagster as dg

from orchestration.dataset.assets import dataset_at_compute
from orchestration.evaluation import history
from orchestration.partitions import DAILY, window, window_mapping
from orchestration.placement.asset import placement
from orchestration.placement.decision import COPIES, Decision
from orchestration.placement.following import arrived, placed
from orchestration.steps import Flywheel, Planned, light_days
from ray_jobs.seam.configs import DayDataset, TrainConfig, Tuned, TuningConfig
from ray_jobs.seam.results import DayResult, Pointer, Shown, read_pointer
from ray_jobs.seam.store import Store

GROUP = "learning"
START, TUNING = "start", "tuning"  # as inputs, beside the days: the champion that training goes on from, and the search that its settings come from


def view_of(store: Store, day: str, decision: Decision | None = None) -> tuple[tuple[DayDataset, ...], dict[str, str]]:
    """The datasets of the day's window that are where it is trained, and what was read of each day, absences listed."""
    copies = decision.copies if decision else COPIES
    found: list[DayDataset] = []
    read: dict[str, str] = {}
    for each in window(day):
        pointer: Pointer | None = read_pointer(store, copies, each)
        if pointer is None:
            read[each] = "absent"
        elif pointer.output.get("dataset"):
            found.append(DayDataset(**pointer.output["dataset"]))
            read[each] = pointer.output_digest
        else:
            read[each] = "no data"
    return tuple(found), read


def tuned_for(store: Store, day: str) -> Tuned | None:
    """What the last search found whose day is in the day's window; None where none was made, or none found anything."""
    for each in reversed(window(day)):
        pointer: Pointer | None = read_pointer(store, TUNING, each)
        if pointer is not None and pointer.output.get("best"):
            return Tuned(**pointer.output["best"])
    return None


def _no_data(context: dg.AssetExecutionContext, flywheel: Flywheel, asset: str, read: dict[str, str], reason: str) -> Iterator[dg.MaterializeResult]:
    result = DayResult(reason=reason, shown={"reason": Shown(type="text", value=reason)})
    yield from light_days(context, flywheel, asset, flywheel.settings.training, lambda _: (read, result))


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    deps=[dg.AssetDep(dataset_at_compute, partition_mapping=window_mapping()), placement],
    group_name=GROUP,
    kinds={"ray", "pytorch"},
    owners=["team:robot-learning"],
    output_required=False,
    description="Small scale first: short trainings with other settings on some of the window's episodes, and the best one's settings. By the job `tune`.",
)
def tuning(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store
    day, search = context.partition_key, settings.tuning
    if search is None:
        raise dg.Failure("the settings have no `tuning`: say there what is searched, `tuning: {}` for the defaults", allow_retries=False)
    decision = arrived(context, flywheel, day)
    read = view_of(store, day, decision)[1]
    if set(read.values()) <= {"absent", "no data"}:
        yield from _no_data(context, flywheel, TUNING, read, "no data at the compute store in the whole window")
        return

    def planned(decision: Decision | None) -> Planned:
        view, read = view_of(store, day, decision)
        data = decision.store if decision else settings.compute_config()

        def config(days: tuple[str, ...]) -> TuningConfig:
            return TuningConfig(store=settings.store_config(), days=days, data=data, view=view, training=settings.training, settings=search)

        return Planned(asset=TUNING, module="ray_jobs.tuning", settings=[settings.training, search], day_inputs={day: read}, config_for=config)

    yield from placed(context, flywheel, day, decision, planned)


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    deps=[*(dg.AssetDep(each, partition_mapping=window_mapping()) for each in (dataset_at_compute, tuning)), placement],
    group_name=GROUP,
    kinds={"ray", "pytorch"},
    owners=["team:robot-learning"],
    output_required=False,
    description="The policy trained on the window of curated days, with its lineage: view, datasets, episodes, settings, seeds.",
)
def policy(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store
    day = context.partition_key
    decision = arrived(context, flywheel, day)
    view, read = view_of(store, day, decision)
    if read[day] in ("absent", "no data"):
        # a backfill of one day asks for the policies of every day whose window holds it, future ones too
        yield from _no_data(context, flywheel, "policy", read, f"no data at the compute store for {day} itself: its policy would be that of the day before")
        return
    if 0 < len(view) < settings.minimum_days:
        raise dg.Failure(f"only {len(view)} days of the window hold data, minimum_days is {settings.minimum_days}: backfill the others or lower it")

    fine_tuned = settings.training.start == "champion"
    start = history.champion_before(store, day) if fine_tuned else None
    tuned = tuned_for(store, day) if settings.tuning else None

    def planned(decision: Decision | None) -> Planned:
        view, read = view_of(store, day, decision)
        if fine_tuned:
            read = {**read, START: start or "no champion yet"}
        if settings.tuning:
            read = {**read, TUNING: tuned.evidence if tuned else "no search yet"}
        data = decision.store if decision else settings.compute_config()

        def config(days: tuple[str, ...]) -> TrainConfig:
            training = tuned.apply(settings.training) if tuned else settings.training
            return TrainConfig(store=settings.store_config(), days=days, data=data, view=view, start=start, tuned=tuned, settings=training)

        return Planned(asset="policy", module="ray_jobs.training", settings=settings.training, day_inputs={day: read}, config_for=config)

    yield from placed(context, flywheel, day, decision, planned)
