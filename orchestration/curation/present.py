"""What a person sees of a day's verdicts in the Dagster UI: counts by reason, and a contact sheet of kept and rejected clips."""

import base64
import io
from collections import Counter
from typing import Any

from PIL import Image, ImageDraw

from orchestration.curation.context import Context
from ray_jobs.seam.results import Shown

Row = dict[str, Any]
SHEET_WIDTH = 400
STRIP_HEIGHT = 64
LABEL_HEIGHT = 13
CLIPS = 6  # of each side
LIMIT_BYTES = 200_000  # of the data URI
COLOURS = {"kept": (120, 220, 140), "rejected": (250, 130, 110), "quarantined": (240, 200, 90), "superseded": (160, 160, 170)}


def present(rows: list[Row], pictures: dict[str, bytes], context: Context) -> dict[str, Shown]:
    """Metadata of one day. `pictures`: episode -> JPEG strip, where the ledger has one."""
    tally = Counter(row["verdict"] for row in rows)
    shown = {name: Shown(type="int", value=tally[name]) for name in COLOURS}
    shown["robot_minutes_kept"] = Shown(type="float", value=round(sum(row["duration_s"] for row in rows if row["verdict"] == "kept") / 60, 2))
    shown["verdicts"] = Shown(type="md", value=reasons_table(rows))
    shown["episodes"] = Shown(type="md", value=episodes_table(rows))
    if people := overrides_table(rows):
        shown["overrides"] = Shown(type="md", value=people)
    shown["compared_with"] = Shown(type="md", value=context_table(context))
    if sheet := contact_sheet(rows, pictures):
        shown["contact_sheet"] = Shown(type="md", value=f"![kept and rejected clips](data:image/jpeg;base64,{base64.b64encode(sheet).decode()})")
    return shown


def by_reason(rows: list[Row]) -> dict[str, int]:
    """Check -> episodes that it dropped; an episode with two reasons counts under each."""
    dropped = [row for row in rows if row["verdict"] != "kept"]
    tally = Counter(name for row in dropped for name in {reason.split(":", 1)[0] for reason in row["reasons"]} if name != "note")
    return dict(sorted(tally.items(), key=lambda pair: (-pair[1], pair[0])))


def reasons_table(rows: list[Row]) -> str:
    lines = ["| verdict | episodes |", "|---|---|"]
    tally = Counter(row["verdict"] for row in rows)
    lines += [f"| {name} | {tally[name]} |" for name in COLOURS]
    reasons = by_reason(rows)
    if reasons:
        lines += ["", "| reason | episodes | for example |", "|---|---|---|"]
        for name, count in reasons.items():
            example = next(reason for row in rows if row["verdict"] != "kept" for reason in row["reasons"] if reason.split(":", 1)[0] == name)
            lines.append(f"| {name} | {count} | {_cell(example.split(':', 1)[-1].strip())} |")
    notes = Counter(reason for row in rows if row["verdict"] == "kept" for reason in row["reasons"])
    if notes:
        lines += ["", "| note on kept episodes | episodes |", "|---|---|"]
        lines += [f"| {_cell(note.removeprefix('note:').strip())} | {count} |" for note, count in notes.most_common(12)]
    return "\n".join(lines)


def episodes_table(rows: list[Row], most: int = 200) -> str:
    lines = ["| episode | robot | upload | s | verdict | why |", "|---|---|---|---|---|---|"]
    for row in rows[:most]:
        why = _cell("; ".join(row["reasons"]))
        lines.append(f"| {row['episode_id'][:8]} | {_cell(row['robot'])} | {_cell(row['upload'])} | {row['duration_s']:.1f} | {row['verdict']} | {why} |")
    if len(rows) > most:
        lines.append(f"\n… and {len(rows) - most} more in the verdicts table")
    return "\n".join(lines)


def overrides_table(rows: list[Row]) -> str:
    """What people decided, beside what the machine would; empty where nobody did."""
    told = [row for row in rows if row.get("override")]
    cells = [(row["episode_id"][:8], row["upload"], row["machine_verdict"], row["verdict"], row["override"].removeprefix("override: ")) for row in told]
    lines = [f"| {' | '.join(_cell(cell) for cell in each)} |" for each in cells]
    return "\n".join(["| episode | upload | machine | in force | override |", "|---|---|---|---|---|", *lines]) if told else ""


def context_table(context: Context) -> str:
    lines = [f"Context `{context.digest[:12]}`, {len(context.seen)} episodes of earlier days.", "", "| robot | compared with | episodes |", "|---|---|---|"]
    lines += [f"| {_cell(robot)} | {usual.source} | {usual.episodes} |" for robot, usual in sorted(context.robots.items())]
    drifts = [f"| {_cell(robot)} | {_cell(drift.told())} |" for robot, usual in sorted(context.robots.items()) for drift in usual.drifts]
    if drifts:
        lines += ["", "| robot | what has changed and stays changed |", "|---|---|", *drifts]
    return "\n".join(lines) if context.robots else lines[0] + " No robot has enough episodes to compare with: comparing checks were left out."


def contact_sheet(rows: list[Row], pictures: dict[str, bytes]) -> bytes | None:
    """JPEG of labelled strips, the kept first, then one per reason of the rejected as far as they go; under 200 kB as base64."""
    seen = [row for row in rows if row["episode_id"] in pictures]
    kept = [row for row in seen if row["verdict"] == "kept"][:CLIPS]
    dropped = _varied([row for row in seen if row["verdict"] == "rejected"])[:CLIPS]
    chosen = kept + dropped
    if not chosen:
        return None
    sheet = Image.new("RGB", (SHEET_WIDTH, len(chosen) * (STRIP_HEIGHT + LABEL_HEIGHT)), (24, 26, 32))
    draw = ImageDraw.Draw(sheet)
    for place, row in enumerate(chosen):
        top = place * (STRIP_HEIGHT + LABEL_HEIGHT)
        reason = next((reason for reason in row["reasons"] if not reason.startswith("note:")), "")
        label = f"{row['verdict']} {row['robot']} {row['episode_id'][:6]} {reason}".encode("latin-1", "replace").decode("latin-1")
        draw.text((3, top), label[:70], fill=COLOURS[row["verdict"]])
        with Image.open(io.BytesIO(pictures[row["episode_id"]])) as stored:
            strip = stored.convert("RGB")
            width = min(SHEET_WIDTH, round(strip.width * STRIP_HEIGHT / strip.height))
            sheet.paste(strip.resize((width, STRIP_HEIGHT)), (0, top + LABEL_HEIGHT))
    for quality in (75, 55, 35, 20):
        sink = io.BytesIO()
        sheet.save(sink, "JPEG", quality=quality)
        if len(sink.getvalue()) * 4 / 3 < LIMIT_BYTES - 200:
            break
    return sink.getvalue()


def _varied(rows: list[Row]) -> list[Row]:
    """Each first reason once, then the second of each, and so on."""
    turns: Counter[str] = Counter()
    keyed: list[tuple[int, int, Row]] = []
    for row in rows:
        name = row["reasons"][0].split(":", 1)[0] if row["reasons"] else ""
        keyed.append((turns[name], len(keyed), row))
        turns[name] += 1
    return [row for _, _, row in sorted(keyed, key=lambda item: item[:2])]


def _cell(text: str) -> str:
    return str(text or "").replace("|", "/").replace("\n", " ")
