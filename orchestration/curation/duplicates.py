"""Duplicates: what was kept before, in this day or an earlier one, is not kept again.

Three ways to be one: the same content, the same seconds of the same robot, or a copy: joints on the same path and the same change of
picture. Either of these two alone is told as a note, since one scene may honestly be filmed twice and one motion be replayed.
"""

from collections import Counter
from collections.abc import Iterable

from orchestration.curation.context import Context, Row, Seen, seen_of
from orchestration.curation.history import CANDIDATES, FEWEST_SHARED, Print, candidates
from orchestration.curation.likeness import Likeness, Near, compare
from orchestration.curation.thresholds import Thresholds
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes

CROWD = 64  # episodes of a day with a landmark in common, above which it tells nothing


def reject_duplicates(ordered: list[Row], rows: list[Row], thresholds: Thresholds, context: Context) -> None:
    """The same content, or the same seconds of the same robot, is kept once: what an earlier day has, else the first that is good."""
    by_id: dict[str, Seen] = {}
    by_robot: dict[str, list[Seen]] = {}

    def take(seen: Seen) -> None:
        by_id.setdefault(seen.episode_id, seen)
        by_robot.setdefault(seen.robot, []).append(seen)

    for seen in context.seen:
        take(seen)
    for index in sorted(range(len(rows)), key=lambda index: (rows[index]["verdict"] != "kept", index)):
        row = ordered[index]
        if row["status"] != "ok":
            continue
        same = by_id.get(row["episode_id"]) or next((seen for seen in by_robot.get(row["robot"], ()) if _same_seconds(row, seen, thresholds)), None)
        older = next((near for near in context.near.get(row["episode_id"], ()) if near.episode_id == row["episode_id"] and near.day < row["day"]), None)
        if same is None and older is None:
            take(seen_of(row))
            continue
        twin = same or older
        assert twin is not None
        what = "the same content" if twin.episode_id == row["episode_id"] else "the same seconds of this robot"
        rows[index] = _rejected(rows[index], f"duplicate: {what} came with {twin.upload} of {twin.day}")


def reject_copies(ordered: list[Row], rows: list[Row], thresholds: Thresholds, context: Context) -> None:
    """A copy of an earlier day's episode, or of an earlier one of this day that is kept, is rejected; half a likeness is a note."""
    place = {row["episode_id"]: index for index, row in reversed(list(enumerate(ordered)))}
    for index, row in enumerate(ordered):
        if rows[index]["verdict"] != "kept":
            continue
        for near in context.near.get(row["episode_id"], ()):
            if near.episode_id == row["episode_id"]:
                continue
            if near.day == row["day"] and (place.get(near.episode_id, index) >= index or rows[place[near.episode_id]]["verdict"] != "kept"):
                continue
            told = f"{near.upload} of {near.day} ({near.episode_id[:8]}): {evidence(near.likeness)}"
            kind = judged(near.likeness, thresholds)
            if kind == "copy":
                rows[index] = _rejected(rows[index], f"copy: of {told}")
                break
            if kind is not None:
                rows[index] = {**rows[index], "reasons": [*rows[index]["reasons"], f"note: {kind} as {told}"]}


def judged(likeness: Likeness, thresholds: Thresholds) -> str | None:
    """ "copy" where joints and picture are nearly identical; what is the same where only one of them is; None where neither."""
    joints = likeness.path is not None and likeness.path < thresholds.copy_path
    shown = likeness.picture is not None and likeness.picture < thresholds.copy_picture
    placed = likeness.scene is not None and likeness.scene < thresholds.copy_scene
    if joints and shown and placed:
        return "copy"
    if joints:
        return "the same motion of the joints"
    return "the same pictures" if shown and placed else None


def evidence(likeness: Likeness) -> str:
    joints = "no joints to compare" if likeness.path is None else f"joints {likeness.path:.1%} of their range apart"
    shown = "no pictures to compare" if likeness.picture is None else f"{likeness.picture:.0%} of the picture's change differs"
    return f"{joints}, {shown}"


def _rejected(verdict: Row, reason: str) -> Row:
    reasons = [reason for reason in verdict["reasons"] if not reason.startswith("note:")]
    changed = "rejected" if verdict["verdict"] == "kept" else verdict["verdict"]
    return {**verdict, "verdict": changed, "reasons": [*reasons, reason]}


def _same_seconds(row: Row, other: Seen, thresholds: Thresholds) -> bool:
    if row["robot"] != other.robot or row["day_source"] != "recording" or not row["start_ns"] or not other.start_ns or not row["end_ns"] or not other.end_ns:
        return False
    shared = min(row["end_ns"], other.end_ns) - max(row["start_ns"], other.start_ns)
    shorter = max(min(row["end_ns"] - row["start_ns"], other.end_ns - other.start_ns), 1)
    return shared / shorter > thresholds.duplicate_overlap


def prints_of(episodes: list[Row], embedded: dict[str, Row]) -> list[Print]:
    """One per readable episode of a day. `embedded`: episode -> LEDGER row of the embedding stage."""
    distinct = {row["episode_id"]: row for row in episodes if row["status"] == "ok"}
    return [Print.of(row, (embedded.get(episode_id) or {}).get("vectors", {})) for episode_id, row in sorted(distinct.items())]


def near_of(store: Store, version: str, day: str, prints: list[Print], thresholds: Thresholds) -> dict[str, tuple[Near, ...]]:
    """Episode -> those of this and of earlier days that it is a copy of, or half like. The earliest first. Raises StoreError."""
    earlier, within = candidates(store, version, prints, day), within_day(prints)
    found: dict[str, tuple[Near, ...]] = {}
    for item in prints:
        others = {(other.day, other.episode_id): other for other in [*earlier[item.episode_id], *within[item.episode_id]]}
        near = [Near(other.episode_id, other.day, other.upload, likeness(item, other)) for _, other in sorted(others.items())]
        if kept := [other for other in near if other.episode_id == item.episode_id or judged(other.likeness, thresholds)]:
            found[item.episode_id] = tuple(kept)
    there = _readable(store, {other.day for group in found.values() for other in group if other.day < day})
    current = {name: tuple(other for other in group if other.day == day or other.episode_id in there[other.day]) for name, group in found.items()}
    return {name: group for name, group in current.items() if group}


def likeness(one: Print, other: Print) -> Likeness:
    return compare(one.track, other.track) if one.track and other.track else Likeness(None, None, None, 0.0)


def within_day(prints: list[Print]) -> dict[str, list[Print]]:
    """Episode -> others of the same day that share most landmarks with it."""
    owners: dict[int, list[int]] = {}
    for index, item in enumerate(prints):
        for key in item.keys.tolist():
            owners.setdefault(key, []).append(index)
    found = {}
    for index, item in enumerate(prints):
        shared = [owners[key] for key in item.keys.tolist() if len(owners[key]) <= CROWD]
        tally = Counter(other for group in shared for other in group if other != index)
        ranked = sorted((other for other, votes in tally.items() if votes >= FEWEST_SHARED), key=lambda other: (-tally[other], other))
        found[item.episode_id] = [prints[other] for other in ranked[:CANDIDATES]]
    return found


def _readable(store: Store, days: Iterable[str]) -> dict[str, set[str]]:
    """Day -> the episodes that it has now: the index forgets nothing, and an upload may have been replaced."""
    found: dict[str, set[str]] = {}
    for day in sorted(days):
        pointer = read_pointer(store, "episodes", day)
        rows = from_bytes(store.get(pointer.output["episodes"])) if pointer and pointer.output.get("episodes") else []
        found[day] = {row["episode_id"] for row in rows if row["status"] == "ok"}
    return found


def facts(near: dict[str, tuple[Near, ...]], day: str) -> list[object]:
    """What of it came from earlier days, as text-stable numbers for the context's digest."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.3g}")

    return [
        [name, other.episode_id, other.day, rounded(other.likeness.path), rounded(other.likeness.picture), rounded(other.likeness.scene)]
        for name, group in sorted(near.items())
        for other in group
        if other.day < day
    ]
