"""placement: where a day is trained, decided once and kept while its runs are retried; copy, training and evaluation follow it."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from orchestration.launching.code import code
from orchestration.launching.work import RunInfo
from orchestration.partitions import DAILY, window_mapping
from orchestration.placement.choose import offers, plan_for, what_is_packed
from orchestration.placement.decision import ASSET, Decision, decision_in, decision_of
from orchestration.placement.present import shown, why_none
from orchestration.settings import Settings
from orchestration.steps import Flywheel, light_days, light_digest, needed, run_info
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Pointer, Shown, read_pointer
from ray_jobs.seam.store import Store


class NowhereToRun(FlywheelError):
    """No offer keeps the requirements."""

    failure_class = "capacity"


@dg.asset(
    name=ASSET,
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[dg.AssetDep("curated_dataset", partition_mapping=window_mapping())],
    group_name="dataset",
    kinds={"kubernetes"},
    owners=["team:ml-platform"],
    output_required=False,
    description="Where the day is trained: every offer with its expected start, duration and cost, and why it lost. The copy and the launch follow it.",
)
def placement(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store, run = flywheel.settings, flywheel.store, run_info(context)
    found = None

    def decide_day(day: str) -> tuple[dict[str, str], DayResult]:
        nonlocal found
        if settings.placement is None:
            return {}, nothing_to_choose(settings)
        data = what_is_packed(store, settings, day)
        if data.read[day] in ("absent", "no data"):
            return data.read, DayResult(reason="no data", output={"decision": None}, shown={"reason": Shown(type="text", value="no data: nothing to place")})
        standing = read_pointer(store, ASSET, day)
        if standing and stands(store, standing, run, light_digest(ASSET, data.read, made_by(settings))):
            context.log.info(f"{day}: the decision stands, its training was made by it or is being made")
            return standing.inputs, DayResult(output=standing.output, output_digest=standing.output_digest, counts=standing.counts, shown=standing.shown)
        found = offers(settings) if found is None else found
        plan = plan_for(settings.placement, found, data)
        if not plan.ranked:
            raise NowhereToRun(f"no offer will do for {day}: {why_none(plan)}; change needs, caps or targets in the settings, then re-execute")
        return data.read, result_of(decision_of(run.generation, run.root_run_id, plan, settings.placement, settings.offers))

    yield from light_days(context, flywheel, ASSET, made_by(settings), decide_day)


def decision_for(flywheel: Flywheel, day: str) -> Decision | None:
    """Where the day is trained; None where settings alone say it. Raises dg.Failure where it is not placed yet."""
    if flywheel.settings.placement is None:
        return None
    return decision_in(needed(read_pointer(flywheel.store, ASSET, day), f"{day} is not placed yet: materialize `placement` first"))


def stands(store: Store, standing: Pointer, run: RunInfo, input_digest: str) -> bool:
    """Does a decision hold? While its run is retried, and afterwards for what was made by it, as long as that is made of the same.

    A person's re-execution is no retry: it decides anew, unless the day was made.
    """
    decision = decision_in(standing)
    if decision is None:
        return False
    if decision.root_run == run.root_run_id and (run.retry or decision.id.startswith(run.generation)):
        return True
    made = [pointer for asset in ("policy", "evaluation") if (pointer := read_pointer(store, asset, standing.day))]
    return standing.input_digest == input_digest and any((pointer.output.get(ASSET) or {}).get("id") == decision.id for pointer in made)


def made_by(settings: Settings) -> list[Any]:
    """What would have the day trained anew, beside its data."""
    return [settings.training, settings.evaluation, code().sha256]


def result_of(decision: Decision) -> DayResult:
    output = {"decision": decision.model_dump(mode="json")}
    return DayResult(counts={"moves": len(decision.moves)}, output=output, output_digest=digest(decision.id, decision.target), shown=shown(decision))


def nothing_to_choose(settings: Settings) -> DayResult:
    text = f"`{settings.target_of('policy')}`, with the data in {settings.compute_config().url}: settings have no `placement` to choose by"
    return DayResult(output={"decision": None}, output_digest="none", shown={"runs_on": Shown(type="md", value=text)})
