"""Duplicates: what was kept before, in this day or an earlier one, is not kept again."""

import numpy as np

from orchestration.curation.context import Context, Row, Seen, seen_of
from orchestration.curation.thresholds import Thresholds


def reject_duplicates(ordered: list[Row], rows: list[Row], thresholds: Thresholds, context: Context) -> None:
    """The same content, or the same seconds of the same robot, is kept once: what an earlier day has, else the first that is good."""
    taken = list(context.seen)
    for index in sorted(range(len(rows)), key=lambda index: (rows[index]["verdict"] != "kept", index)):
        row, verdict = ordered[index], rows[index]
        if row["status"] != "ok":
            continue
        twin = next((seen for seen in taken if seen.episode_id == row["episode_id"] or _same_seconds(row, seen, thresholds)), None)
        if twin is None:
            taken.append(seen_of(row))
            continue
        what = "the same content" if twin.episode_id == row["episode_id"] else "the same seconds of this robot"
        reasons = [reason for reason in verdict["reasons"] if not reason.startswith("note:")]
        changed = "rejected" if verdict["verdict"] == "kept" else verdict["verdict"]
        rows[index] = {**verdict, "verdict": changed, "reasons": [*reasons, f"duplicate: {what} came with {twin.upload} of {twin.day}"]}


def _same_seconds(row: Row, other: Seen, thresholds: Thresholds) -> bool:
    if row["robot"] != other.robot or row["day_source"] != "recording" or not row["start_ns"] or not other.start_ns or not row["end_ns"] or not other.end_ns:
        return False
    shared = min(row["end_ns"], other.end_ns) - max(row["start_ns"], other.start_ns)
    shorter = max(min(row["end_ns"] - row["start_ns"], other.end_ns - other.start_ns), 1)
    return shared / shorter > thresholds.duplicate_overlap


def note_near_duplicates(ordered: list[Row], rows: list[Row], measured: dict[str, Row], thresholds: Thresholds) -> None:
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
