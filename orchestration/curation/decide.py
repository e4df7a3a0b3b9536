"""What the verdicts step does: read a day's facts, take the context of the days before, judge, and show."""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from orchestration.curation import overrides
from orchestration.curation.context import Context, Ledger, Row, build
from orchestration.curation.duplicates import facts, near_of, prints_of
from orchestration.curation.history import remember
from orchestration.curation.judge import counts, judge
from orchestration.curation.present import present
from orchestration.curation.thresholds import Thresholds
from orchestration.curation.value import Moments, ranking, worth
from ray_jobs.seam import ledger
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import Shown, read_pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes

TELLING = ("tags", "caption")  # stages that say what an episode shows: on its row, and never a reason against it
COMPARED = ("embedding", "value")  # stages by which episodes are compared with others: no check reads them


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
    context = with_copies(store, day, stages, thresholds, context_of(store, day, stages, thresholds, (episodes, measured)), episodes)
    worths = worths_of(store, day, stages, thresholds)
    said = tags_of(store, stages, day)
    judged = [{**row, "tags": tagged(row, said.get(row["episode_id"], {}))} for row in valued(judge(episodes, measured, thresholds, context), worths)]
    rows = overrides.apply(judged, asked, readable=[row["episode_id"] for row in episodes if row["status"] == "ok"])
    pictures = {row["episode_id"]: row["picture"] for part in measured.values() for row in part.values() if row["picture"]}
    tally = counts(rows) | {"overridden": sum(1 for row in rows if row["override"])}
    shown = present(rows, pictures, context) | {"review": Shown(type="text", value=f"./flywheel review {day}")}
    if told := ranking(rows):
        shown["informative_value"] = Shown(type="md", value=told)
    if unknown := sorted(set(asked) - {row["episode_id"] for row in rows}):
        shown["overrides_without_episode"] = Shown(type="text", value=", ".join(overrides.key_of(day, episode_id) for episode_id in unknown))
    return Decided(rows, tally, shown, context.digest, people)


def read_ledger(store: Store, stages: dict[str, str], day: str) -> Ledger:
    """What verdicts are made of."""
    return {stage: ledger.read(store, stage, version, [day]) for stage, version in sorted(stages.items()) if stage not in (*TELLING, *COMPARED)}


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


def with_copies(store: Store, day: str, stages: dict[str, str], thresholds: Thresholds, context: Context, episodes: list[Row]) -> Context:
    """The context with what this day's episodes may be copies of, among themselves and in all history."""
    if "embedding" not in stages:
        return context
    version = stages["embedding"]
    near = near_of(store, version, day, prints_of(episodes, ledger.read(store, "embedding", version, [day])), thresholds)
    return replace(context, near=near, digest=digest(context.digest, facts(near, day)))


def enter_history(store: Store, day: str, episodes_key: str, stages: dict[str, str]) -> None:
    """Let later days find this day's episodes, whatever their verdicts. Raises StoreError."""
    if "embedding" in stages:
        embedded = ledger.read(store, "embedding", stages["embedding"], [day])
        remember(store, stages["embedding"], prints_of(from_bytes(store.get(episodes_key)), embedded))


def worths_of(store: Store, day: str, stages: dict[str, str], thresholds: Thresholds) -> dict[str, dict[str, float]]:
    """Episode -> how much it can teach, among those of this day and of the context's days."""
    if "value" not in stages:
        return {}
    last = date.fromisoformat(day)
    before = [(last - timedelta(days=back)).isoformat() for back in range(thresholds.context_days, 0, -1)]
    own, past = (
        {name: moments for name, row in ledger.read(store, "value", stages["value"], days).items() if (moments := Moments.of(row))} for days in ([day], before)
    )
    return worth(own, past)


def valued(rows: list[Row], worths: dict[str, dict[str, float]]) -> list[Row]:
    return [{**row, "scores": {**row["scores"], **worths.get(row["episode_id"], {})}} for row in rows]


def context_digest(store: Store, day: str, thresholds: Thresholds) -> str:
    """The digest that `decide` would find now: another than the verdicts' own, and earlier days have changed since."""
    measured, table = read_pointer(store, "measurements", day), read_pointer(store, "episodes", day)
    stages: dict[str, Any] = measured.output["stages"] if measured else {}
    episodes = from_bytes(store.get(table.output["episodes"])) if table and table.output.get("episodes") else []
    return with_copies(store, day, stages, thresholds, context_of(store, day, stages, thresholds), episodes).digest
