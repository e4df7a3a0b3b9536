"""What would change, before any compute: other thresholds on the ledger's facts, and what the code and settings here would measure again."""

import io
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from orchestration.curation.decide import decide
from orchestration.curation.thresholds import Thresholds
from orchestration.settings import REPOSITORY, Settings
from ray_jobs.seam import ledger
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes

Row = dict[str, Any]
COST_DAYS = 14  # newest days from which a stage's seconds per episode are taken


@dataclass
class Changes:
    """How verdicts would differ from the published ones. moved: (before, after, reason) -> rows, the newest example last."""

    days: int = 0
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    moved: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str, str], str] = field(default_factory=dict)
    episodes_moved: int = 0
    reworded: int = 0  # the same verdict for other checks
    seconds: float = 0.0


@dataclass(frozen=True)
class Again:
    """One stage under the code and settings here. seconds: of one core for one episode, from the ledger; None where it was never measured."""

    stage: str
    held: tuple[str, ...]  # versions that the days are judged by
    wanted: str | None  # None: no longer measured
    episodes: int
    seconds: float | None


def thresholds_of(path: Path, current: Thresholds) -> Thresholds:
    """The current thresholds with what the document changes. Raises UserError, one line."""
    try:
        given = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise UserError(f"{path} is not a mapping of thresholds to values")
    try:
        return Thresholds.model_validate({**current.model_dump(), **given})
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise UserError(f"{path}: {told}") from None


def judged_days(store: Store, first: str | None = None, last: str | None = None) -> list[str]:
    """Days with published verdicts, from `first` to `last`. Raises UserError where there are none."""
    found = sorted({entry.key.split("/")[2] for entry in store.list("partitions/verdicts/")})
    found = [day for day in found if (first is None or first <= day) and (last is None or day <= last)]
    if not found:
        raise UserError("no judged days there: run `make loop`, or materialize `verdicts`")
    return found


def rejudged(store: Store, days: Iterable[str], thresholds: Thresholds) -> Changes:
    """Judge the days again, by the versions that their published measurements have."""
    changes, started = Changes(), time.monotonic()
    for day in days:
        published, table, measured = (read_pointer(store, asset, day) for asset in ("verdicts", "episodes", "measurements"))
        if published is None or table is None or measured is None:
            continue
        after = decide(store, day, table.output["episodes"], measured.output["stages"], thresholds).rows
        compare(from_bytes(store.get(published.output["verdicts"])), after, changes)
        changes.days += 1
    changes.seconds = time.monotonic() - started
    return changes


def compare(before: Sequence[Row], after: Sequence[Row], changes: Changes) -> None:
    """Add one day. A row is known by its upload and episode; a changed one counts under each check that came or went."""
    earlier = {(row["upload"], row["episode_id"]): row for row in before}
    changes.before.update(row["verdict"] for row in before)
    changes.after.update(row["verdict"] for row in after)
    for row in after:
        old = earlier.get((row["upload"], row["episode_id"]))
        if old is None or old["verdict"] == row["verdict"]:
            changes.reworded += old is not None and _checks(old) != _checks(row)
            continue
        changes.episodes_moved += 1
        told = row if row["verdict"] != "kept" else old
        names = (_checks(told) - _checks(old if told is row else row)) or _checks(told) or {"(no reason)"}
        for name in names:
            key = (old["verdict"], row["verdict"], name)
            changes.moved[key] += 1
            evidence = next((reason for reason in told["reasons"] if reason.split(":", 1)[0] == name), "")
            changes.examples[key] = f"{row['upload']}: {evidence}"


def _checks(row: Row) -> set[str]:
    return {reason.split(":", 1)[0] for reason in row["reasons"] or []} - {"note", "override"}


def versions_here(settings: Settings) -> dict[str, str]:
    """Stage -> version that this code measures under these settings. Raises UserError with the process's last words."""
    command = [sys.executable, "-m", "ray_jobs.curation", "--versions", settings.measure.model_dump_json()]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["the stages' versions cannot be read"])[-1])
    versions: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return versions


def measured_again(store: Store, days: Sequence[str], wanted: Mapping[str, str]) -> list[Again]:
    """Per stage: what the ledger lacks of the days' readable episodes, and what one has cost. Reads ids and seconds, no scores."""
    readable: dict[str, set[str]] = {}
    held: dict[str, Counter[str]] = {}
    for day in days:
        table, measured = read_pointer(store, "episodes", day), read_pointer(store, "measurements", day)
        if table is None or not table.output.get("episodes"):
            continue
        ids = pq.read_table(io.BytesIO(store.get(table.output["episodes"])), columns=["episode_id", "status"]).to_pylist()
        readable[day] = {row["episode_id"] for row in ids if row["status"] == "ok"}
        for stage, version in (measured.output["stages"] if measured else {}).items():
            held.setdefault(stage, Counter())[version] += 1
    found = []
    for stage in sorted({*wanted, *held}):
        version = wanted.get(stage)
        lacking = 0
        if version is not None:
            have = ledger.read_days(store, stage, version, readable, columns=["seconds"])
            lacking = sum(len(ids - have[day].keys()) for day, ids in readable.items())
        if lacking or version is None:
            found.append(
                Again(stage, tuple(sorted(held.get(stage, ()))), version, lacking, _seconds(store, stage, version, held.get(stage, Counter()), readable))
            )
    return found


def _seconds(store: Store, stage: str, wanted: str | None, held: Counter[str], days: Iterable[str]) -> float | None:
    """Core seconds an episode takes: the mean over the newest days under the wanted version, else under the commonest held one."""
    newest = sorted(days)[-COST_DAYS:]
    for version in [wanted, *(version for version, _ in held.most_common())]:
        rows = ledger.read(store, stage, version, newest, columns=["seconds"]).values() if version else ()
        spent = [row["seconds"] for row in rows if row["seconds"] and not row["error"]]
        if spent:
            return sum(spent) / len(spent)
    return None


def told(changes: Changes, again: Sequence[Again]) -> str:
    """The preview as text."""
    count = sum(changes.after.values())
    lines = [f"{changes.days} days, {count} episodes judged again from the ledger in {changes.seconds:.1f} s; against what is published:"]
    names = [name for name in ("kept", "rejected", "quarantined", "superseded") if changes.before[name] or changes.after[name]]
    lines += [f"  {name:<12} {changes.before[name]:>7} -> {changes.after[name]:<7} ({changes.after[name] - changes.before[name]:+d})" for name in names]
    if changes.moved:
        lines.append(f"{changes.episodes_moved} episodes change their verdict (one with two reasons is under each):")
        for key, number in changes.moved.most_common():
            before, after, reason = key
            lines.append(f"  {number:>7}  {before} -> {after}: {reason}   e.g. {changes.examples[key][:140]}")
    else:
        lines.append("no verdict changes")
    if changes.reworded:
        lines.append(f"{changes.reworded} episodes keep their verdict for other reasons")
    lines.append("measured again, with the code and settings here:" if again else "nothing would be measured again: the ledger holds every stage of these days")
    for each in again:
        was = ", ".join(each.held) or "never measured"
        if each.wanted is None:
            lines.append(f"  {each.stage}: {was} -> no longer a stage")
            continue
        cost = "cost unknown" if each.seconds is None else f"about {_span(each.seconds * each.episodes)} of one core, decoding beside"
        lines.append(f"  {each.stage}: {was} -> {each.wanted}: {each.episodes} episodes, {cost}")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
