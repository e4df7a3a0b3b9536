"""Step "packing": each day's kept episodes -> datasets/<day>-<hash>/, one LeRobot v3.0 dataset per shape, with a manifest.

A day whose episodes all share one shape (rate, state, action, cameras) is one flat dataset. LeRobot cannot hold several
shapes in one, so a day with more of them has a folder shape-<digest>/ for each; it stays one prefix with one manifest.
"""

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import ArrowInvalid
from pydantic import ValidationError

from ray_jobs.contact_sheet import contact_sheet
from ray_jobs.driver import Execution
from ray_jobs.packing.augment import expand
from ray_jobs.packing.dataset import DatasetWriter
from ray_jobs.packing.features import Shape
from ray_jobs.packing.manifest import NAME, Manifest, manifest_of
from ray_jobs.packing.prepare import Prepared, prepare
from ray_jobs.seam.configs import DayDataset, PackConfig
from ray_jobs.seam.errors import DataError, NotFound, StoreError
from ray_jobs.seam.layout import dataset_prefix
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes

SHEET_ROWS = 12
WORKERS = min(8, (os.cpu_count() or 1) + 1)  # FFmpeg works outside the interpreter's lock


@dataclass
class Packing:
    """What came of one day's episodes. left_out: episode id -> why."""

    writers: dict[Shape, DatasetWriter] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    remuxed: int = 0
    transcoded: int = 0
    synthetic: int = 0  # episodes
    clips: list[tuple[str, np.ndarray]] = field(default_factory=list)


def run(config: PackConfig, execution: Execution) -> dict[str, DayResult]:
    """One result per day. A day whose tables are missing is a failed day; an unwritable store raises StoreError."""
    store = Store(config.store)
    results = {}
    for day in config.days:
        try:
            results[day] = pack_day(store, day, expand(chosen(store, config, day), config.augment), execution, config.augment is not None)
        except NotFound as error:
            results[day] = DayResult(status="failed", reason=f"{error}; judge {day} again")
    return results


def chosen(store: Store, config: PackConfig, day: str) -> list[dict[str, Any]]:
    """EPISODES rows of the kept episodes, with tags and scores of their verdicts, in packing order: by start, then id, whatever the tables' order."""
    if day not in config.episodes or day not in config.verdicts:
        return []
    verdicts = from_bytes(store.get(config.verdicts[day]))
    kept = {row["episode_id"]: {"tags": row.get("tags") or {}, "scores": row["scores"]} for row in verdicts if row["verdict"] in config.keep}
    rows = {row["episode_id"]: row for row in from_bytes(store.get(config.episodes[day])) if row["status"] == "ok"}
    return sorted(({**rows[name], **kept[name]} for name in kept.keys() & rows.keys()), key=lambda row: (row["start_ns"] or 0, row["episode_id"]))


def pack_day(store: Store, day: str, rows: list[dict[str, Any]], execution: Execution, augmented: bool = False) -> DayResult:
    """Build in a temporary folder, hash, upload; nothing is written where the same dataset is already whole."""
    if not rows:
        return _empty("nothing kept", {})
    try:
        with tempfile.TemporaryDirectory(prefix="packing-") as folder:
            root = Path(folder) / "dataset"
            packing = build(store, rows, root, Path(folder), lambda done: execution.progress(day, "pack", done, len(rows)), augmented)
            if not packing.writers:
                return _empty("no kept episode could be packed", packing.left_out)
            episodes = sum(writer.episodes for writer in packing.writers.values())
            frames = sum(writer.frames for writer in packing.writers.values())
            manifest = manifest_of(root, day, episodes, frames)
            dataset = publish(store, root, manifest)
    except OSError as error:
        raise StoreError(f"cannot build {day} in the temporary folder: {error.strerror}; free or enlarge it, or set TMPDIR") from error
    return _result(dataset, manifest, packing)


def build(store: Store, rows: list[dict[str, Any]], root: Path, scratch: Path, progress: Callable[[int], None], augmented: bool = False) -> Packing:
    """Pack the rows in their order below `root`. An episode that cannot be packed is left out and named, never fatal."""
    packing = Packing()
    folder = root.parent / "shapes"
    for done, (row, outcome) in enumerate(_prepared(store, rows, scratch), 1):
        if isinstance(outcome, str):
            packing.left_out[row["episode_id"]] = outcome
        else:
            with outcome.files:
                shape = Shape.of(outcome, augmented)
                writer = packing.writers.setdefault(shape, DatasetWriter(folder / shape.folder(), shape))
                writer.append(outcome)
            _count(packing, outcome)
        progress(done)
    for writer in packing.writers.values():
        writer.finish()
    if len(packing.writers) == 1:
        next(iter(packing.writers.values())).root.rename(root)
    elif packing.writers:
        folder.rename(root)
    return packing


def _prepared(store: Store, rows: list[dict[str, Any]], scratch: Path) -> Iterator[tuple[dict[str, Any], Prepared | str]]:
    """Prepare a few episodes ahead in threads, and hand them out in order; a reason stands for one that cannot be packed."""

    def one(row: dict[str, Any]) -> Prepared | str:
        try:
            return prepare(store, row, scratch)
        except (DataError, NotFound) as error:
            return str(error)
        except (ValidationError, ArrowInvalid) as error:
            return f"its normalised form in the store is damaged ({str(error).splitlines()[0]}): ingest the day again"

    with ThreadPoolExecutor(WORKERS) as pool:
        yield from zip(rows, _in_order(pool, one, rows), strict=True)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """pool.map with bounded look-ahead: finished episodes must not pile up on the disk."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > WORKERS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _count(packing: Packing, episode: Prepared) -> None:
    packing.synthetic += "recipe" in episode.row
    for camera in episode.cameras.values():
        packing.transcoded += camera.segment.transcoded
        packing.remuxed += not camera.segment.transcoded
    if episode.cameras and len(packing.clips) < SHEET_ROWS:
        first = episode.cameras[min(episode.cameras)]
        packing.clips.append((f"{episode.row['robot']} {episode.row['episode_id'][:8]}", first.thumbnails))


def publish(store: Store, root: Path, manifest: Manifest) -> DayDataset:
    """Upload the files, then the manifest, by which readers know that the dataset is whole.

    Where that manifest is there already, only files that are missing or of another size are written.
    """
    data = manifest.to_bytes()
    name = hashlib.sha256(data).hexdigest()
    prefix = dataset_prefix(manifest.day, name[:16])
    whole = store.find(f"{prefix}/{NAME}") == data
    there = {entry.key: entry.size for entry in store.list(prefix + "/")} if whole else {}
    for file in manifest.files:
        if there.get(f"{prefix}/{file.path}") != file.size:
            store.put_file(f"{prefix}/{file.path}", root / file.path)
    if not whole:
        store.put(f"{prefix}/{NAME}", data)
    return DayDataset(day=manifest.day, prefix=prefix, manifest_sha256=name, episodes=manifest.episodes, frames=manifest.frames)


def _empty(reason: str, left_out: dict[str, str]) -> DayResult:
    counts = {"episodes": 0, "frames": 0, "bytes": 0, "remuxed": 0, "transcoded": 0, "synthetic": 0, "left_out": len(left_out)}
    return DayResult(reason=reason, counts=counts, output={"dataset": None}, output_digest=digest(None), shown=_shown_left_out(left_out))


def _result(dataset: DayDataset, manifest: Manifest, packing: Packing) -> DayResult:
    counts = {
        "episodes": dataset.episodes,
        "frames": dataset.frames,
        "bytes": manifest.total_bytes,
        "remuxed": packing.remuxed,
        "transcoded": packing.transcoded,
        "synthetic": packing.synthetic,
        "left_out": len(packing.left_out),
    }
    seconds = sum(writer.frames / shape.fps for shape, writer in packing.writers.items())
    shown = {
        "dataset": Shown(type="text", value=dataset.prefix),
        "robot_minutes": Shown(type="float", value=round(seconds / 60, 2)),
        "shapes": Shown(type="json", value=[_described(shape, writer) for shape, writer in packing.writers.items()]),
        **_shown_left_out(packing.left_out),
    }
    if packing.clips:
        shown["kept_clips"] = Shown(type="md", value=contact_sheet(packing.clips))
    output = {"dataset": dataset.model_dump(mode="json")}
    return DayResult(counts=counts, output=output, output_digest=dataset.manifest_sha256, shown=shown)


def _described(shape: Shape, writer: DatasetWriter) -> dict[str, Any]:
    return {
        "episodes": writer.episodes,
        "fps": shape.fps,
        "state": len(shape.state_names),
        "action": len(shape.action_names),
        "cameras": [f"{key} {width}x{height}" for key, height, width in shape.cameras],
    }


def _shown_left_out(left_out: dict[str, str]) -> dict[str, Shown]:
    if not left_out:
        return {}
    return {"left_out": Shown(type="md", value="\n".join(f"* {name}: {reason}" for name, reason in sorted(left_out.items())))}
