"""Verdicts: a pure function of rows, scores, thresholds and context. The same input gives the same verdicts, in any order of rows."""

from collections import Counter
from typing import Any

from orchestration.curation.checks import Case, notes, reasons
from orchestration.curation.context import Context, Ledger, Row, combined
from orchestration.curation.duplicates import reject_copies, reject_duplicates
from orchestration.curation.thresholds import Thresholds

VERDICTS = ("kept", "rejected", "quarantined", "superseded")


def judge(episodes: list[Row], ledger: Ledger, thresholds: Thresholds, context: Context) -> list[Row]:
    """One VERDICTS row per EPISODES row. `ledger`: stage -> episode -> LEDGER row, of every stage that must be measured."""
    measured = combined(ledger)
    ordered = sorted(episodes, key=_order)
    rows = [_alone(row, ledger, measured, thresholds, context) for row in ordered]
    reject_duplicates(ordered, rows, thresholds, context)
    reject_copies(ordered, rows, thresholds, context)
    return rows


def counts(rows: list[Row]) -> dict[str, int]:
    """uploaded = kept + rejected + quarantined + superseded."""
    tally = Counter(row["verdict"] for row in rows)
    return {"uploaded": len(rows), **{name: tally[name] for name in VERDICTS}}


def _order(row: Row) -> tuple[Any, ...]:
    return (row["start_ns"] is None, row["start_ns"] or 0, row["upload"], row["episode_id"])


def _alone(row: Row, ledger: Ledger, measured: dict[str, Row], thresholds: Thresholds, context: Context) -> Row:
    """The verdict that an episode earns by itself."""
    episode_id = row["episode_id"]
    if row["status"] != "ok":
        return _verdict(row, row["status"], [f"{'upload' if row['status'] == 'superseded' else 'unreadable'}: {row['reason'] or row['status']}"], {})
    scores = dict(measured.get(episode_id, {}).get("scores", {}))
    problems = []
    for stage in sorted(ledger):
        found = ledger[stage].get(episode_id)
        if found is None:
            problems.append(f"not_measured: the stage {stage} has no result")
        elif found["error"]:
            problems.append(f"unmeasurable: {stage}: {found['error']}")
    if problems:
        return _verdict(row, "quarantined", problems, scores)
    vectors = measured.get(episode_id, {}).get("vectors", {})
    robot = row["robot"]
    case = Case(row, scores, vectors, context.robots.get(robot), context.tasks.get((robot, row["task"])), context.models.get(robot), thresholds)
    problems = reasons(case)
    return _verdict(row, "rejected" if problems else "kept", problems or [f"note: {note}" for note in notes(case)], case.scores)


def _verdict(row: Row, verdict: str, reasons: list[str], scores: dict[str, float]) -> Row:
    length = scores.get("duration_s", ((row["end_ns"] or 0) - (row["start_ns"] or 0)) / 1e9)
    same = {name: row[name] for name in ("episode_id", "day", "robot", "task", "upload")}
    return {**same, "verdict": verdict, "reasons": reasons, "scores": scores, "duration_s": length}
