"""Builds the page of a day into a folder that can be opened, copied and sent as it is."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import av

from orchestration.curation.review.moments import moment
from orchestration.curation.review.page import Entry, page
from orchestration.curation.review.plots import Moment
from orchestration.curation.review.recorded import Recorded, read
from ray_jobs.seam import ledger
from ray_jobs.seam.errors import NotFound, StoreError, UserError
from ray_jobs.seam.layout import episode_prefix
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes

Row = dict[str, Any]
PLOTTED = 400  # episodes of a day that get plots and a clip: what was not kept comes first
PLOTS = 3  # of one episode
SETTLED = ("override", "duplicate", "upload", "unreadable", "not_measured", "unmeasurable", "note")  # reasons that no signal shows
ORDER = {"quarantined": 0, "rejected": 1, "kept": 2, "superseded": 3}


def build(store: Store, day: str, home: Path, options: str = "") -> Path:
    """Write review/<day>/ below `home`, in place of an earlier one; returns its index.html. Raises UserError where the day is not judged, and StoreError."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
        raise UserError(f"{day!r} is no day: give it as YYYY-MM-DD")
    pointer = read_pointer(store, "verdicts", day)
    if pointer is None:
        raise UserError(f"{day} is not judged: materialize `verdicts` of that day, or run `make loop`")
    rows = sorted(from_bytes(store.get(pointer.output["verdicts"])), key=lambda row: (not row.get("override"), ORDER.get(row["verdict"], 9)))
    folder = home / "review" / day
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("clips", "strips"):
        (folder / name).mkdir(parents=True)
    pictures = _pictures(store, day)
    entries = [_entry(store, row, folder, pictures.get(row["episode_id"]), number < PLOTTED) for number, row in enumerate(rows)]
    counts = ", ".join(f"{count} {name}" for name, count in pointer.counts.items())
    about = f"{counts}. Verdicts of generation {pointer.generation}. Click a plot to see that moment in the clip."
    if len(rows) > PLOTTED:
        about += f" The first {PLOTTED} have plots and clips."
    target = folder / "index.html"
    target.write_text(page(f"Review of {day}", about, entries, options), encoding="utf-8")
    return target


def _pictures(store: Store, day: str) -> dict[str, bytes]:
    """Episode -> JPEG strip, of whichever stage made one."""
    measured = read_pointer(store, "measurements", day)
    stages: dict[str, str] = measured.output.get("stages", {}) if measured else {}
    found: dict[str, bytes] = {}
    for stage, version in stages.items():
        found |= {episode_id: row["picture"] for episode_id, row in ledger.read(store, stage, version, [day]).items() if row["picture"]}
    return found


def _entry(store: Store, row: Row, folder: Path, picture: bytes | None, wanted: bool) -> Entry:
    episode_id, strip = row["episode_id"], None
    if picture:
        strip = f"strips/{episode_id}.jpg"
        (folder / strip).write_bytes(picture)
    if not wanted:
        return Entry(row, {}, {}, strip=strip)
    try:
        recorded = read(store, episode_id)
    except NotFound:
        return Entry(row, {}, {}, strip=strip, note="nothing of it could be extracted")
    except (ValueError, KeyError) as error:
        return Entry(row, {}, {}, strip=strip, note=f"it cannot be shown: {error}")
    plots, note = {}, ""
    for reason in [reason for reason in row["reasons"] or [] if reason.split(":", 1)[0] not in SETTLED][:PLOTS]:
        try:
            found = moment(reason, recorded)
        except (av.error.FFmpegError, StoreError, ValueError) as error:
            note = f"the clip cannot be decoded: {getattr(error, 'strerror', None) or str(error).splitlines()[0][:120]}"
            continue
        if found:
            plots[reason] = found
    camera = next((found.camera for found in plots.values() if found.camera), None) or min(recorded.cameras, default=None)
    clip = _clip(store, episode_id, camera, folder) if camera else None
    return Entry(row, plots, {reason: share for reason, found in plots.items() if (share := _share(found, recorded, camera)) is not None}, clip, strip, note)


def _clip(store: Store, episode_id: str, camera: str, folder: Path) -> str | None:
    """The camera's clip beside the page: a second name of the store's own file where that is possible, else a copy."""
    name = f"clips/{episode_id}.mp4"
    if (folder / name).exists():  # the same content was uploaded twice
        return name
    try:
        with store.local_copy(f"{episode_prefix(episode_id)}/{camera}.mp4") as path:
            try:
                os.link(path, folder / name)
            except OSError:
                shutil.copyfile(path, folder / name)
    except NotFound:
        return None
    return name


def _share(found: Moment, recorded: Recorded, camera: str | None) -> float | None:
    """Where in the clip the moment is, as a share of its frames: its own times need not be the recording's."""
    if found.begin is None or camera is None or found.camera != camera or f"camera:{camera}" not in recorded.streams:
        return None
    times = recorded.streams[f"camera:{camera}"].log_s
    lead_in = int(recorded.cameras[camera].get("lead_in", 0))
    frame = int((times < found.begin - 0.5).sum())  # half a second before, to see it come
    return (lead_in + frame) / max(lead_in + len(times), 1)
