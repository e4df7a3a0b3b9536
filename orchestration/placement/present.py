"""A decision as a person reads it in the UI: one table of all offers, and the moves before it."""

from orchestration.placement.decide import Loser, Plan
from orchestration.placement.decision import Decision, Move
from ray_jobs.seam.results import Shown


def shown(decision: Decision) -> dict[str, Shown]:
    """Metadata of the placement asset: the story of its moves first. Costs in USD; Dagster plots the numbers over the days."""
    made = {
        "offers": Shown(type="md", value=table(decision)),
        "why_not_the_others": Shown(type="md", value=reasons(decision)),
        "runs_on": Shown(type="text", value=f"{decision.target}, the data near it in {decision.region} ({decision.store.url})"),
        "expected_cost": Shown(type="float", value=round(decision.cost, 2)),
        "spent_before": Shown(type="float", value=round(decision.spent, 2)),
        "moves": Shown(type="int", value=len(decision.moves)),
    }
    return ({"moved": Shown(type="md", value=story(decision.moves, decision.target))} if decision.moves else {}) | made


def table(decision: Decision) -> str:
    """Markdown: the offers that would do, the chosen one first."""
    lines = ["| | target | region | accelerator | starts in | takes | compute | copy | USD |", "|---|---|---|---|---|---|---|---|---|"]
    for rank, each in enumerate(decision.ranked, 1):
        kind = each["accelerator"] + (", spot" if each["spot"] else "")
        copy = f"{each['copy_cost']:.2f} for {_size(each['copy_bytes'])}" if each["copy_bytes"] else "is there"
        cells = [str(rank), each["target"], each["region"], kind, _time(each["starts_s"]), _time(each["hours"] * 3600), f"{each['compute_cost']:.2f}", copy]
        lines.append("| " + " | ".join([*cells, f"**{each['cost']:.2f}**"]) + " |")
    return "\n".join(lines)


def reasons(decision: Decision) -> str:
    """Markdown: why each of the others lost."""
    others = [*decision.ranked[1:], *decision.lost]
    return "\n".join(f"- **{each['target']}** ({each['region']}): {each['why']}" for each in others) or "there was no other offer"


def story(moves: tuple[Move, ...], target: str) -> str:
    """Markdown: from where the day had to move, oldest first."""
    told = [f"{number}. {move.target} ({move.region}): {move.why}; it cost {move.cost:.2f} USD" for number, move in enumerate(moves, 1)]
    return "\n".join([*told, f"{len(moves) + 1}. now {target}"])


def why_none(plan: Plan) -> str:
    """One line where no offer will do."""
    return "; ".join(f"{loser.target}: {loser.why}" for loser in _sorted(plan)) or "there is no offer"


def _sorted(plan: Plan) -> list[Loser]:
    return sorted(plan.lost, key=lambda loser: loser.target)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
