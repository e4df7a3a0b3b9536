"""Following a placement: copy and launch go where the decision says, and on to the next offer where it cannot give what it promised."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import dagster as dg

from orchestration.dataset.assets import bring
from orchestration.launching.shell import publish
from orchestration.launching.work import Outcome
from orchestration.placement.asset import decision_for, made_by, result_of
from orchestration.placement.choose import offers, plan_for, what_is_packed
from orchestration.placement.decision import ASSET, Decision, Move, decision_of
from orchestration.placement.present import story, why_none
from orchestration.steps import Flywheel, Planned, heavy, launch, light_digest, metadata, run_info, run_status, told
from ray_jobs.seam.errors import FailureClass
from ray_jobs.seam.results import DayResult, Pointer, Shown

MOVES: frozenset[FailureClass] = frozenset({"capacity", "preempted"})  # after as many retries in the same place as each class has


def arrived(context: dg.AssetExecutionContext, flywheel: Flywheel, day: str) -> Decision | None:
    """The decision that stands, with the data where it says: who decided on a move may have died before the copy. None: settings say it."""
    decision = decision_for(flywheel, day)
    if decision and decision.moves:
        _bring(context, flywheel, day, decision)
    return decision


def placed(
    context: dg.AssetExecutionContext, flywheel: Flywheel, day: str, decision: Decision | None, planned_for: Callable[[Decision | None], Planned]
) -> Iterator[dg.MaterializeResult]:
    """Make the day of an asset where the decision says. Where that place has no room left, the next offer gets the data and then the job.

    A retry, whatever ended the step before, begins with the decision that stands then and goes on from there.
    """
    if decision is None:
        yield from heavy(context, flywheel, planned_for(None))
        return
    while True:
        planned = planned_for(decision)
        planned = replace(planned, finish=_with_placement(decision, planned.finish))
        outcome = launch(context, flywheel, planned, (day,), decision.runs_on(planned.asset), decision.id)
        if outcome.failure_class not in MOVES:
            break
        following = _move(context, flywheel, day, decision, outcome)
        if isinstance(following, str):
            outcome = replace(outcome, error=f"{outcome.error}; {following}")
            break
        decision = following
        _bring(context, flywheel, day, decision)
    yield from told(context, outcome)


def _bring(context: dg.AssetExecutionContext, flywheel: Flywheel, day: str, decision: Decision) -> None:
    brought = bring(context, flywheel, {day: decision})
    if brought.error:
        raise dg.Failure(brought.error, allow_retries=False)


def _move(context: dg.AssetExecutionContext, flywheel: Flywheel, day: str, decision: Decision, outcome: Outcome) -> Decision | str:
    """Decide again without the offers that did not do, and publish that; or one line that says why the day stays where it is."""
    settings, store, run = flywheel.settings, flywheel.store, run_info(context)
    assert settings.placement is not None
    if len(decision.moves) >= settings.placement.max_moves:
        return f"the day was moved {len(decision.moves)} times, which is all that placement.max_moves allows"
    why = f"{outcome.failure_class}: {outcome.days[day].reason}"
    left = Move(target=decision.target, region=decision.region, why=why, cost=round(decision.copy_cost + decision.price * _hours_at_work(outcome), 4))
    moves = (*decision.moves, left)
    data = what_is_packed(store, settings, day)
    plan = plan_for(settings.placement, offers(settings), data, moves)
    if not plan.ranked:
        return f"no other offer will do: {why_none(plan)}"
    following = decision_of(f"{run.generation}-m{len(moves):02d}", run.root_run_id, plan, settings.placement, settings.offers, moves)
    result = result_of(following)
    pointer = Pointer(
        asset=ASSET,
        day=day,
        generation=following.id,
        run_id=run.run_id,
        inputs=data.read,
        input_digest=light_digest(ASSET, data.read, made_by(settings)),
        **result.model_dump(exclude={"status", "reason"}),
    )
    if publish(store, pointer, lambda: run_status(context.instance, run.run_id)) == "superseded":
        return "a newer run has placed the day anew, and makes it"
    context.log.warning(f"{day} moves from {decision.target} to {following.target}: {why}")
    context.log_event(dg.AssetMaterialization(ASSET, partition=day, metadata=metadata(pointer)))
    return following


def _hours_at_work(outcome: Outcome) -> float:
    """How long drivers ran for nothing, of what this step has seen: from the first word to the end."""
    first, last = outcome.timings.get("first_line"), outcome.timings.get("ended")
    return max(0.0, last - first) / 3600 if first and last else 0.0


def _with_placement(decision: Decision, finish: Callable[[str, DayResult], DayResult] | None) -> Callable[[str, DayResult], DayResult]:
    """The published day names where it was made, and from where it had to move."""

    def also(day: str, result: DayResult) -> DayResult:
        result = finish(day, result) if finish else result
        placed = {"id": decision.id, "target": decision.target, "region": decision.region, "moves": len(decision.moves)}
        text = story(decision.moves, decision.target) if decision.moves else f"{decision.target} ({decision.region})"
        return result.model_copy(update={"output": {**result.output, ASSET: placed}, "shown": {**result.shown, ASSET: Shown(type="md", value=text)}})

    return also
