"""Verdicts: a pure function of rows, scores, thresholds and context. The same input gives the same verdicts, in any order of rows."""

from collections import Counter
from typing import Any

import numpy as np

from orchestration.curation.checks import CHECKS, Case, notes
from orchestration.curation.context import Context, Ledger, Row, Seen, combined
from orchestration.curation.fleet_model import Sums
from orchestration.curation.thresholds import Thresholds

VERDICTS = ("kept", "rejected", "quarantined", "superseded")


def judge(episodes: list[Row], ledger: Ledger, thresholds: Thresholds, context: Context) -> list[Row]:
    """One VERDICTS row per EPISODES row. `ledger`: stage -> episode -> LEDGER row, of every stage that must be measured."""
    measured = combined(ledger)
    ordered = sorted(episodes, key=_order)
    rows = [_alone(row, ledger, measured, thresholds, context) for row in ordered]
    _reject_duplicates(ordered, rows, thresholds, context)
    _note_near_duplicates(ordered, rows, measured, thresholds)
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
    sums = Sums.of(vectors.get("command.sums"))
    model = context.models.get(sums.key) if sums else None
    case = Case(row, scores, vectors, context.usual(row["robot"]), model, thresholds)
    reasons = [reason for check in CHECKS for reason in check(case)]
    return _verdict(row, "rejected" if reasons else "kept", reasons or [f"note: {note}" for note in notes(case)], case.scores)


def _verdict(row: Row, verdict: str, reasons: list[str], scores: dict[str, float]) -> Row:
    length = scores.get("duration_s", ((row["end_ns"] or 0) - (row["start_ns"] or 0)) / 1e9)
    same = {name: row[name] for name in ("episode_id", "day", "robot", "task", "upload")}
    return {**same, "verdict": verdict, "reasons": reasons, "scores": scores, "duration_s": length}


def _reject_duplicates(ordered: list[Row], rows: list[Row], thresholds: Thresholds, context: Context) -> None:
    """The same content, or the same seconds of the same robot, is kept once: what an earlier day has, else the first that is good."""
    taken = list(context.seen)
    for index in sorted(range(len(rows)), key=lambda index: (rows[index]["verdict"] != "kept", index)):
        row, verdict = ordered[index], rows[index]
        if row["status"] != "ok":
            continue
        twin = next((seen for seen in taken if seen.episode_id == row["episode_id"] or _same_seconds(row, seen, thresholds)), None)
        if twin is None:
            taken.append(_seen(row))
            continue
        what = "the same content" if twin.episode_id == row["episode_id"] else "the same seconds of this robot"
        reasons = [reason for reason in verdict["reasons"] if not reason.startswith("note:")]
        changed = "rejected" if verdict["verdict"] == "kept" else verdict["verdict"]
        rows[index] = {**verdict, "verdict": changed, "reasons": [*reasons, f"duplicate: {what} came with {twin.upload} of {twin.day}"]}


def _seen(row: Row) -> Seen:
    timed = row["day_source"] == "recording"
    return Seen(row["episode_id"], row["day"], row["robot"], row["upload"], row["start_ns"] if timed else None, row["end_ns"] if timed else None)


def _same_seconds(row: Row, other: Seen, thresholds: Thresholds) -> bool:
    if row["robot"] != other.robot or row["day_source"] != "recording" or not row["start_ns"] or not other.start_ns or not row["end_ns"] or not other.end_ns:
        return False
    shared = min(row["end_ns"], other.end_ns) - max(row["start_ns"], other.start_ns)
    shorter = max(min(row["end_ns"] - row["start_ns"], other.end_ns - other.start_ns), 1)
    return shared / shorter > thresholds.duplicate_overlap


def _note_near_duplicates(ordered: list[Row], rows: list[Row], measured: dict[str, Row], thresholds: Thresholds) -> None:
    """A note where two kept episodes look alike: the first camera's signatures nearly equal."""
    found: dict[int, list[np.ndarray]] = {}
    places: dict[int, list[int]] = {}
    for index, row in enumerate(ordered):
        if rows[index]["verdict"] != "kept":
            continue
        vectors = measured.get(row["episode_id"], {}).get("vectors", {})
        name = min((name for name in vectors if name.startswith("signature:")), default=None)
        if name is None:
            continue
        mine = np.asarray(vectors[name])
        before = found.setdefault(len(mine), [])
        if before:
            away = np.abs(np.stack(before) - mine).mean(axis=1)
            nearest = int(np.argmin(away))
            if away[nearest] < thresholds.near_duplicate:
                twin = ordered[places[len(mine)][nearest]]
                note = f"note: looks like {twin['upload']} ({twin['episode_id'][:8]}): signatures differ by {away[nearest]:.3f}"
                rows[index] = {**rows[index], "reasons": [*rows[index]["reasons"], note]}
        before.append(mine)
        places.setdefault(len(mine), []).append(index)
