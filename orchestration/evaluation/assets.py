"""evaluation: closed-loop rollouts of the new policy beside the champion's. champion: obeys evaluation's verdict."""

from collections.abc import Iterator

import dagster as dg

from orchestration.evaluation import history, plots, prerequisites
from orchestration.evaluation.gate import gate
from orchestration.evaluation.record import read_points
from orchestration.partitions import DAILY, window
from orchestration.placement.asset import placement
from orchestration.placement.decision import Decision
from orchestration.placement.following import arrived, placed
from orchestration.settings import Settings
from orchestration.steps import Flywheel, Planned, heavy, light_days, needed, publish_place, run_info
from orchestration.training.assets import START, TUNING, policy, view_of
from ray_jobs.seam.configs import EffectConfig, EvaluateConfig
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown, read_pointer
from ray_jobs.seam.store import Store

GROUP = "learning"
NONE = "none"  # as an input: there was no champion yet, or no folder of trials is named


def logged_trials(settings: Settings) -> str:
    """Digest of what lies in the folder of logged trials: an evaluation is made again when it has changed."""
    folder = settings.evaluation.trials
    return digest(sorted((entry.key, entry.size, entry.etag) for entry in Store(folder).list())) if folder else NONE


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    deps=[policy, placement],
    group_name=GROUP,
    kinds={"ray"},
    owners=["team:robot-learning"],
    output_required=False,
    description="Success of the new policy and of the champion on the same scenes, action error on held-out episodes, and the gate's verdict with reasons.",
)
def evaluation(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store
    day = context.partition_key
    trained = needed(read_pointer(store, "policy", day), f"{day} has no policy yet: materialize `policy` first")
    candidate = trained.output.get("model")
    if not candidate:
        reason = trained.shown["reason"].value if "reason" in trained.shown else "no policy was trained: nothing to evaluate"
        result = DayResult(reason=reason, output={"reasons": [reason]}, shown={"reason": Shown(type="text", value=reason)})
        yield from light_days(context, flywheel, "evaluation", settings.evaluation, lambda _: ({"policy": trained.output_digest}, result))
        return
    champion = history.current_champion(store)
    found, logged = prerequisites.read(store, day), logged_trials(settings)
    unmet: tuple[str, ...] = ()

    def with_verdict(_: str, result: DayResult) -> DayResult:
        verdict = gate(result.output["scores"], settings.gate, unmet)
        text = ("**promoted**: " if verdict.promote else "**refused**: ") + "; ".join(verdict.reasons)
        output = {**result.output, "model": candidate, "promote": verdict.promote, "reasons": list(verdict.reasons)}
        return result.model_copy(update={"output": output, "shown": {"verdict": Shown(type="md", value=text), **result.shown}})

    def planned(decision: Decision | None) -> Planned:
        nonlocal unmet
        view, read = view_of(store, day, decision)
        unmet = prerequisites.unmet(day, found, {each: seen for each, seen in trained.inputs.items() if each not in (START, TUNING)}, read)
        data = decision.store if decision else settings.compute_config()

        def config(days: tuple[str, ...]) -> EvaluateConfig:
            return EvaluateConfig(
                store=settings.store_config(),
                days=days,
                data=data,
                view=view,
                candidate=candidate,
                champion=champion if champion != candidate else None,
                selection=settings.training.selection,
                settings=settings.evaluation,
            )

        return Planned(
            asset="evaluation",
            module="ray_jobs.evaluation",
            settings=[settings.evaluation, settings.gate, settings.training.selection],
            day_inputs={day: {"policy": trained.output_digest, "champion": champion or NONE, "trials": logged, "unmet": "; ".join(unmet), **read}},
            config_for=config,
            finish=with_verdict,
        )

    yield from placed(context, flywheel, day, arrived(context, flywheel, day), planned)


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    deps=[evaluation],
    group_name=GROUP,
    kinds={"python"},
    owners=["team:robot-learning"],
    output_required=False,
    description="The policy that robots run. It moves only when evaluation's published verdict says so; every move and refusal keeps its reasons.",
)
def champion(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    store, run = flywheel.store, run_info(context)

    def obey(day: str) -> tuple[dict[str, str], DayResult]:
        judged = needed(read_pointer(store, "evaluation", day), f"{day} is not evaluated yet: materialize `evaluation` first")
        inputs = {"evaluation": judged.output_digest}
        against = judged.inputs.get("champion", NONE)
        while True:  # once more only where another run has moved the champion meanwhile
            chain = history.read_moves(store)
            obeyed = history.obey(day, judged.output, None if against == NONE else against, chain, run.generation, run.run_id)
            if not obeyed.move:
                break
            moved = DayResult(output=history.output_of(obeyed.move), output_digest=obeyed.move.model)
            if publish_place(context, flywheel, "champion", history.CURRENT, history.place_after(chain), inputs, moved):
                chain = [*chain, obeyed.move]
                break
        after = history.champion(chain)
        points = read_points(store)
        shown = {
            "champion": Shown(type="text", value=after or "none yet"),
            "moved": Shown(type="text", value="yes" if obeyed.move else "no"),
            "reasons": Shown(type="md", value="\n".join(f"- {reason}" for reason in obeyed.reasons)),
            "history": Shown(type="md", value=plots.history_picture(points, chain)),
            "calibration": Shown(type="md", value=plots.calibration_picture(points)),
        }
        output = {"model": after, "before": obeyed.before, "promoted": obeyed.promoted, "reasons": list(obeyed.reasons)}
        return inputs, DayResult(output=output, output_digest=after or "none", shown=shown)

    yield from light_days(context, flywheel, "champion", None, obey)


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    deps=[evaluation],
    group_name="study",
    kinds={"ray", "pytorch"},
    owners=["team:robot-learning"],
    output_required=False,
    description="What curation is worth: the same trainings and rollouts on everything uploaded, on a random drop, and on what was kept.",
)
def curation_effect(context: dg.AssetExecutionContext, flywheel: Flywheel) -> Iterator[dg.MaterializeResult]:
    settings, store = flywheel.settings, flywheel.store
    day = context.partition_key
    judged = {each: pointer for each in window(day) if (pointer := read_pointer(store, "verdicts", each))}

    def config(days: tuple[str, ...]) -> EffectConfig:
        return EffectConfig(
            store=settings.store_config(),
            days=days,
            episodes={each: pointer.output["episodes"] for each, pointer in judged.items()},
            verdicts={each: pointer.output["verdicts"] for each, pointer in judged.items()},
            training=settings.training,
            evaluation=settings.evaluation,
        )

    yield from heavy(
        context,
        flywheel,
        Planned(
            asset="curation_effect",
            module="ray_jobs.effect",
            settings=[settings.training, settings.evaluation],
            day_inputs={day: {each: pointer.output_digest for each, pointer in judged.items()}},
            config_for=config,
        ),
    )
