"""A person moves the champion: the jobs `promote` and `rollback`. A reason is required, and stands in the history for ever."""

import dagster as dg
from pydantic import Field

from orchestration.evaluation import history, plots
from orchestration.evaluation.lineage import find_model
from orchestration.evaluation.record import read_points
from orchestration.steps import Flywheel, publish_place, run_info
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.results import DayResult


class Promotion(dg.Config):
    model: str = Field(description="The model's hash, or its first characters")
    reason: str = Field(description="Why; it stands in the champion's history")


class Rollback(dg.Config):
    reason: str = Field(description="Why; the gate will not promote the model again that is left, a person may")
    to: str | None = Field(default=None, description="The model's hash, or its first characters; else the champion before")


def _move(context: dg.OpExecutionContext, flywheel: Flywheel, chain: list[history.Move], how: history.How, model: str, reason: str) -> None:
    store, run = flywheel.store, run_info(context)
    before = history.champion(chain)
    if model == before:
        raise UserError(f"{model} is the champion already")
    move = history.Move(run.generation, model, before, how, (f"{how} by hand: {' '.join(reason.split())}",), run_id=run.run_id)
    moved = DayResult(output=history.output_of(move), output_digest=model)
    if not publish_place(context, flywheel, "champion", history.CURRENT, history.place_after(chain), {}, moved):
        raise UserError(f"another run moved the champion to {history.current_champion(store)} meanwhile: look at it, then launch this job again")
    picture = plots.history_picture(read_points(store), [*chain, move])
    shown: dict[str, dg.MetadataValue | str] = {"champion": model, "before": before or "none", "reason": reason, "history": dg.MetadataValue.md(picture)}
    context.log_event(dg.AssetObservation("champion", metadata=shown))
    context.log.info(f"the champion is {model} now, and was {before or 'none'}")


def _reason(text: str) -> str:
    if not text.strip():
        raise UserError("a move by hand needs a reason: whoever reads the history wants to know why")
    return text


@dg.op(description="Make a model the champion, whatever the gate says.")
def promote_model(context: dg.OpExecutionContext, flywheel: Flywheel, config: Promotion) -> None:
    try:
        _move(context, flywheel, history.read_moves(flywheel.store), "promote", find_model(flywheel.store, config.model), _reason(config.reason))
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


@dg.op(description="Go back to an earlier champion.")
def roll_back(context: dg.OpExecutionContext, flywheel: Flywheel, config: Rollback) -> None:
    store = flywheel.store
    try:
        chain = history.read_moves(store)
        earlier = find_model(store, config.to) if config.to else history.before_last(chain)
        if earlier is None:
            raise UserError("there is no earlier champion to go back to: name a model by `to`")
        _move(context, flywheel, chain, "rollback", earlier, _reason(config.reason))
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


@dg.job(description="A person makes a model the champion. Needs a reason.")
def promote() -> None:
    promote_model()


@dg.job(description="A person goes back to the champion before, or to a named one. Needs a reason.")
def rollback() -> None:
    roll_back()
