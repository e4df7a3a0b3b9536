"""What the verdicts step does: read a day's facts, take the context of the days before, judge, and show."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from orchestration.curation import overrides
from orchestration.curation.context import Context, Ledger, Row, build
from orchestration.curation.judge import counts, judge
from orchestration.curation.present import present
from orchestration.curation.thresholds import Thresholds
from ray_jobs.seam import ledger
from ray_jobs.seam.results import Shown, read_pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes

TELLING = ("tags", "caption")  # stages that say what an episode shows: on its row, and never a reason against it


@dataclass(frozen=True)
class Decided:
    """rows: VERDICTS; counts add up; context_digest names the snapshot of earlier days that was compared with; overrides: `overrides.state`."""

    rows: list[Row]
    counts: dict[str, int]
    shown: dict[str, Shown]
    context_digest: str
    overrides: str


def decide(store: Store, day: str, episodes_key: str, stages: dict[str, str], thresholds: Thresholds) -> Decided:
    """Judge a day. `stages`: stage -> version, as its measurements' pointer says. Raises StoreError, and UserError for an override in error."""
    people = overrides.state(store, day).get(day, "")
    asked = overrides.read(store, day)
    episodes = from_bytes(store.get(episodes_key))
    measured = read_ledger(store, stages, day)
    context = context_of(store, day, stages, thresholds, (episodes, measured))
    said = tags_of(store, stages, day)
    judged = [{**row, "tags": tagged(row, said.get(row["episode_id"], {}))} for row in judge(episodes, measured, thresholds, context)]
    rows = overrides.apply(judged, asked, readable=[row["episode_id"] for row in episodes if row["status"] == "ok"])
    pictures = {row["episode_id"]: row["picture"] for part in measured.values() for row in part.values() if row["picture"]}
    tally = counts(rows) | {"overridden": sum(1 for row in rows if row["override"])}
    shown = present(rows, pictures, context)
    if unknown := sorted(set(asked) - {row["episode_id"] for row in rows}):
        shown["overrides_without_episode"] = Shown(type="text", value=", ".join(overrides.key_of(day, episode_id) for episode_id in unknown))
    return Decided(rows, tally, shown, context.digest, people)


def read_ledger(store: Store, stages: dict[str, str], day: str) -> Ledger:
    """What verdicts are made of."""
    return {stage: ledger.read(store, stage, version, [day]) for stage, version in sorted(stages.items()) if stage not in TELLING}


def tags_of(store: Store, stages: dict[str, str], day: str) -> dict[str, dict[str, str]]:
    """Episode -> tags; where a model captioned it, its words come before the heuristic's."""
    found: dict[str, dict[str, str]] = {}
    for stage in TELLING:
        if stage in stages:
            for episode_id, row in ledger.read(store, stage, stages[stage], [day]).items():
                found.setdefault(episode_id, {}).update(row.get("tags") or {})
    return found


def tagged(row: Row, tags: dict[str, str]) -> dict[str, str]:
    """Tags of a verdict's row. Where the demo's task was checked, its finding is the outcome, and says so."""
    if "task.distance" not in row["scores"]:
        return tags
    failed = any(reason.startswith("task_failed") for reason in row["reasons"])
    return {**tags, "outcome": "failure" if failed else "success", "outcome.by": "the task's check"}


def context_of(store: Store, day: str, stages: dict[str, str], thresholds: Thresholds, own: tuple[list[Row], Ledger] = ([], {})) -> Context:
    """The context from the days before `day` that were published, as far back as thresholds.context_days."""
    last = date.fromisoformat(day)
    earlier = []
    for back in range(thresholds.context_days, 0, -1):
        before = (last - timedelta(days=back)).isoformat()
        pointer = read_pointer(store, "episodes", before)
        if pointer and pointer.output.get("episodes"):
            earlier.append((from_bytes(store.get(pointer.output["episodes"])), read_ledger(store, stages, before)))
    return build(earlier, own, thresholds)


def context_digest(store: Store, day: str, thresholds: Thresholds) -> str:
    """The digest that `decide` would find now: another than the verdicts' own, and earlier days have changed since."""
    measured = read_pointer(store, "measurements", day)
    stages: dict[str, Any] = measured.output["stages"] if measured else {}
    return context_of(store, day, stages, thresholds).digest
