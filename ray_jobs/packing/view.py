"""Read packed days back: what training and evaluation see.

`episodes_of` is cheap (metadata only) and its items are small and picklable, so they can be the rows of a Ray Data pipeline;
`read_episode_arrays` then reads one of them anywhere.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from sys import intern
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_jobs.packing.features import ACTION, DATA_PATH, EPISODES_PATH, PROVENANCE_PATH, STATE, VIDEO_PATH
from ray_jobs.packing.manifest import read_manifest
from ray_jobs.packing.video import CorruptVideo, decoded_from
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store

SOURCE = ("episode_id", "source_episode_id", "synthetic", "robot", "upload")


@dataclass(frozen=True, slots=True)  # a view has hundreds of thousands: a tenth of the memory of a document's model
class VideoSpan:
    """Where a camera's frames lie: seconds in the mp4 `file` (a key of the store)."""

    file: str
    from_timestamp: float
    to_timestamp: float


@dataclass(frozen=True, slots=True)
class PackedEpisode:
    """One episode of a packed day. `file` is a key of the store; its rows are row group `row_group` of that file."""

    episode_id: str
    source_episode_id: str  # the recorded episode: itself, or what a synthetic one was made of
    synthetic: bool
    episode_index: int  # within its shape's LeRobot dataset
    dataset: str  # key prefix of that LeRobot dataset
    day: str
    robot: str
    upload: str
    task: str
    tags: dict[str, str]  # of its verdict
    scores: dict[str, float]  # the same; none where it was packed before they were kept
    length: int
    fps: int
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    file: str
    row_group: int
    cameras: dict[str, VideoSpan]


@dataclass(frozen=True)
class EpisodeArrays:
    """state: f32 [n, d]; action: f32 [n, a] (width 0 where none was recorded); frames: camera -> uint8 [n, h, w, 3] RGB."""

    episode_id: str
    task: str
    fps: int
    state: np.ndarray
    action: np.ndarray
    frames: dict[str, np.ndarray]


def episodes_of(store: Store, dataset: DayDataset, tags: Collection[str] | None = None, scores: Collection[str] | None = None) -> list[PackedEpisode]:
    """Every episode of the day, by shape folder and episode index, with these of its tags and scores (None: all; there may be a hundred).

    Raises NotFound or DataError where the dataset is not whole.
    """
    found: list[PackedEpisode] = []
    for root in _roots(store, dataset):
        found += _episodes(store, root, dataset.day, tags, scores)
    return found


def names_of(store: Store, dataset: DayDataset) -> tuple[set[str], set[str]]:
    """The tags and the scores that any of the day's episodes has, by name."""
    tags, scores = set[str](), set[str]()
    for root in _roots(store, dataset):
        sources = _sources(store, root, "tags", "scores")
        for found, column in ((tags, "tags"), (scores, "scores")):
            if column in sources.column_names:
                found.update(sources[column].combine_chunks().keys.unique().to_pylist())
    return tags, scores


def _roots(store: Store, dataset: DayDataset) -> list[str]:
    """Of the day's LeRobot datasets, one per shape."""
    manifest, _ = read_manifest(store, dataset)
    folders = sorted(file.path.removesuffix("meta/info.json") for file in manifest.files if file.path.endswith("meta/info.json"))
    return [f"{dataset.prefix}/{folder}".rstrip("/") for folder in folders]


def _sources(store: Store, root: str, *columns: str) -> pa.Table:
    """What says where each episode comes from, with these columns beside SOURCE; older datasets have fewer."""
    file = pq.ParquetFile(io.BytesIO(store.get(f"{root}/{PROVENANCE_PATH}")))
    return file.read([name for name in (*SOURCE, *columns) if name in file.schema_arrow.names])


def _some(table: pa.Table, column: str, wanted: Collection[str] | None) -> list[dict[str, Any]]:
    """The entries of a map that are wanted, row by row. Of many, few are: so only those become Python's."""
    made: list[dict[str, Any]] = [{} for _ in range(len(table))]
    if column not in table.column_names or wanted == ():
        return made
    maps = table[column].combine_chunks()
    places = np.arange(len(maps.keys)) if wanted is None else np.flatnonzero(pc.is_in(maps.keys, pa.array(sorted(wanted), pa.string())))
    rows = np.searchsorted(maps.offsets.to_numpy(), places, side="right") - 1
    for row, name, value in zip(rows.tolist(), maps.keys.take(places).to_pylist(), maps.items.take(places).to_pylist(), strict=True):
        made[row][name] = value
    return made


def _episodes(store: Store, root: str, day: str, tags: Collection[str] | None, scores: Collection[str] | None) -> list[PackedEpisode]:
    info = json.loads(store.get(f"{root}/meta/info.json"))
    cameras = sorted(key for key, feature in info["features"].items() if feature["dtype"] == "video")
    wanted = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
    wanted += [f"videos/{key}/{name}" for key in cameras for name in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")]
    rows = pq.read_table(io.BytesIO(store.get(f"{root}/{EPISODES_PATH}")), columns=wanted)
    sources = _sources(store, root, *(() if tags == () else ("tags",)), *(() if scores == () else ("scores",)))
    ids, robots, uploads = (sources[name].to_pylist() for name in ("episode_id", "robot", "upload"))
    copied = [name if name in sources.column_names else None for name in ("synthetic", "source_episode_id")]
    made, origins = (sources[name].to_pylist() if name else [None] * len(ids) for name in copied)
    spans = {key.removeprefix("observation.images."): _spans(root, key, rows) for key in cameras}
    data, groups = _files(rows, "data", lambda chunk, file: f"{root}/{DATA_PATH.format(chunk_index=chunk, file_index=file)}"), Counter[str]()
    state_names, action_names = _names(info, STATE), _names(info, ACTION)
    found = []
    for number, (index, tasks, length, of_tags, of_scores) in enumerate(
        zip(*(rows[name].to_pylist() for name in wanted[:3]), _some(sources, "tags", tags), _some(sources, "scores", scores), strict=True)
    ):
        found.append(
            PackedEpisode(
                episode_id=intern(ids[number]),
                source_episode_id=intern(origins[number] or ids[number]),
                synthetic=bool(made[number]),
                episode_index=index,
                dataset=root,
                day=day,
                robot=intern(robots[number]),
                upload=uploads[number],
                task=intern(tasks[0]),
                tags=of_tags,
                scores=of_scores,
                length=length,
                fps=info["fps"],
                state_names=state_names,
                action_names=action_names,
                file=data[number],
                row_group=groups[data[number]],
                cameras={camera: of_camera[number] for camera, of_camera in spans.items()},
            )
        )
        groups[data[number]] += 1
    return found


def _spans(root: str, key: str, rows: pa.Table) -> list[VideoSpan]:
    """Of one camera, episode by episode."""
    files = _files(rows, f"videos/{key}", lambda chunk, file: f"{root}/{VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=file)}")
    begin, end = (rows[f"videos/{key}/{name}_timestamp"].to_pylist() for name in ("from", "to"))
    return [VideoSpan(file=file, from_timestamp=first, to_timestamp=last) for file, first, last in zip(files, begin, end, strict=True)]


def _files(rows: pa.Table, column: str, name: Callable[[int, int], str]) -> list[str]:
    """The file of each episode; those of one file share its name."""
    named = cache(name)
    return [named(chunk, file) for chunk, file in zip(*(rows[f"{column}/{part}_index"].to_pylist() for part in ("chunk", "file")), strict=True)]


def _names(info: dict[str, Any], key: str) -> tuple[str, ...]:
    return tuple(info["features"][key]["names"]) if key in info["features"] else ()


def read_episode_arrays(store: Store, dataset: DayDataset, episode: PackedEpisode | int) -> EpisodeArrays:
    """One whole episode in memory. `episode`: an item of `episodes_of`, or its position there (which reads the list again)."""
    chosen = episode if isinstance(episode, PackedEpisode) else episodes_of(store, dataset)[episode]
    with ExitStack() as files:
        return _arrays(store, chosen, _Files(store, files))


def iter_episodes(store: Store, dataset: DayDataset) -> Iterator[EpisodeArrays]:
    """Every episode in order, one in memory at a time; a remote file is fetched once, not once per episode."""
    with ExitStack() as files:
        opened = _Files(store, files)
        for episode in episodes_of(store, dataset):
            yield _arrays(store, episode, opened)


def read_rows(store: Store, episode: PackedEpisode, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """state f32 [n, d] and action f32 [n, a] of the moments [start, stop). Raises DataError."""
    with store.opened(episode.file) as file:
        table = _table(store, episode, file).slice(start, stop - start)
    return _matrix(table, STATE), _matrix(table, ACTION)


def iter_frames(store: Store, episode: PackedEpisode, camera: str, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """The camera's frames [start, stop) in order, uint8 [h, w, 3] RGB, in constant memory, of a remote file only what is needed.

    Raises CorruptVideo where they do not all decode.
    """
    with store.opened(episode.cameras[camera].file) as file:
        yield from _frames(file, episode, camera, start, episode.length if stop is None else stop)


class _Files:
    """Local copies of the store's files, each fetched once and kept until the stack closes."""

    def __init__(self, store: Store, stack: ExitStack):
        self._store, self._stack, self._paths = store, stack, dict[str, Path]()

    def path(self, key: str) -> Path:
        if key not in self._paths:
            self._paths[key] = self._stack.enter_context(self._store.local_copy(key))
        return self._paths[key]


def _arrays(store: Store, episode: PackedEpisode, files: _Files) -> EpisodeArrays:
    table = _table(store, episode, files.path(episode.file))
    frames = {camera: _stacked(_frames(files.path(span.file), episode, camera, 0, episode.length), episode.length) for camera, span in episode.cameras.items()}
    state, action = _matrix(table, STATE), _matrix(table, ACTION)
    return EpisodeArrays(episode.episode_id, episode.task, episode.fps, state, action, frames)


def _table(store: Store, episode: PackedEpisode, file: Path | BinaryIO) -> pa.Table:
    try:
        return pq.ParquetFile(file).read_row_group(episode.row_group)
    except (pa.ArrowInvalid, IndexError) as error:
        raise DataError(f"{store.config.url}/{episode.file} is damaged: delete it and pack {episode.day} again") from error


def _stacked(frames: Iterator[np.ndarray], count: int) -> np.ndarray:
    """uint8 [count, h, w, 3], filled in place: pictures fill the memory once, not twice."""
    stack: np.ndarray | None = None
    for number, frame in enumerate(frames):
        if stack is None:
            stack = np.empty((count, *frame.shape), np.uint8)
        stack[number] = frame
    assert stack is not None
    return stack


def _matrix(table: pa.Table, key: str) -> np.ndarray:
    if key not in table.column_names:
        return np.zeros((len(table), 0), np.float32)
    column = table[key].combine_chunks()
    flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    values: np.ndarray = flat.to_numpy(zero_copy_only=False).reshape(len(table), -1)
    return values


def _frames(file: Path | BinaryIO, episode: PackedEpisode, camera: str, start: int, stop: int) -> Iterator[np.ndarray]:
    span, count = episode.cameras[camera], 0
    for frame in decoded_from(file, span.from_timestamp, stop - start, start / episode.fps):
        yield frame.to_ndarray(format="rgb24")
        count += 1
    if count != stop - start:
        raise CorruptVideo(f"{span.file}: episode {episode.episode_id} has {start + count} frames instead of {episode.length}")
