"""Read packed days back: what training and evaluation see.

`episodes_of` is cheap (metadata only) and its items are small and picklable, so they can be the rows of a Ray Data pipeline;
`read_episode_arrays` then reads one of them anywhere.
"""

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.packing.features import ACTION, CHUNKS_SIZE, DATA_PATH, EPISODES_PATH, PROVENANCE_PATH, STATE, VIDEO_PATH
from ray_jobs.packing.manifest import read_manifest
from ray_jobs.packing.video import CorruptVideo, decoded_from
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store


class VideoSpan(Strict):
    """Where a camera's frames lie: seconds in the mp4 `file` (a key of the store)."""

    file: str
    from_timestamp: float
    to_timestamp: float


class PackedEpisode(Strict):
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


def episodes_of(store: Store, dataset: DayDataset) -> list[PackedEpisode]:
    """Every episode of the day, by shape folder and episode index. Raises NotFound or DataError where the dataset is not whole."""
    manifest, _ = read_manifest(store, dataset)
    found: list[PackedEpisode] = []
    for folder in sorted(file.path.removesuffix("meta/info.json") for file in manifest.files if file.path.endswith("meta/info.json")):
        found += _episodes(store, f"{dataset.prefix}/{folder}".rstrip("/"), dataset.day)
    return found


def _episodes(store: Store, root: str, day: str) -> list[PackedEpisode]:
    info = json.loads(store.get(f"{root}/meta/info.json"))
    cameras = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    wanted = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
    wanted += [f"videos/{key}/{name}" for key in cameras for name in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")]
    rows = pq.read_table(io.BytesIO(store.get(f"{root}/{EPISODES_PATH}")), columns=wanted).to_pylist()
    sources = pq.read_table(io.BytesIO(store.get(f"{root}/{PROVENANCE_PATH}"))).to_pylist()
    groups: dict[int, int] = {}
    made = []
    for row, source in zip(rows, sources, strict=True):
        file = row["data/chunk_index"] * CHUNKS_SIZE + row["data/file_index"]
        groups[file] = groups.get(file, -1) + 1
        spans = {}
        for key in cameras:
            place = {"chunk_index": row[f"videos/{key}/chunk_index"], "file_index": row[f"videos/{key}/file_index"]}
            path = f"{root}/{VIDEO_PATH.format(video_key=key, **place)}"
            times = {name: row[f"videos/{key}/{name}"] for name in ("from_timestamp", "to_timestamp")}
            spans[key.removeprefix("observation.images.")] = VideoSpan(file=path, **times)
        data = DATA_PATH.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        made.append(
            PackedEpisode(
                episode_id=source["episode_id"],
                source_episode_id=source.get("source_episode_id") or source["episode_id"],
                synthetic=bool(source.get("synthetic")),
                episode_index=row["episode_index"],
                dataset=root,
                day=day,
                robot=source["robot"],
                upload=source["upload"],
                task=row["tasks"][0],
                tags=dict(source.get("tags") or ()),
                length=row["length"],
                fps=info["fps"],
                state_names=_names(info, STATE),
                action_names=_names(info, ACTION),
                file=f"{root}/{data}",
                row_group=groups[file],
                cameras=spans,
            )
        )
    return made


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


def iter_frames(store: Store, episode: PackedEpisode, camera: str) -> Iterator[np.ndarray]:
    """The camera's frames in order, uint8 [h, w, 3] RGB, in constant memory. Raises CorruptVideo where they do not all decode."""
    with store.local_copy(episode.cameras[camera].file) as path:
        yield from _frames(path, episode, camera)


class _Files:
    """Local copies of the store's files, each fetched once and kept until the stack closes."""

    def __init__(self, store: Store, stack: ExitStack):
        self._store, self._stack, self._paths = store, stack, dict[str, Path]()

    def path(self, key: str) -> Path:
        if key not in self._paths:
            self._paths[key] = self._stack.enter_context(self._store.local_copy(key))
        return self._paths[key]


def _arrays(store: Store, episode: PackedEpisode, files: _Files) -> EpisodeArrays:
    try:
        table = pq.ParquetFile(files.path(episode.file)).read_row_group(episode.row_group)
    except (pa.ArrowInvalid, IndexError) as error:
        raise DataError(f"{store.config.url}/{episode.file} is damaged: delete it and pack {episode.day} again") from error
    frames = {camera: _stacked(_frames(files.path(span.file), episode, camera), episode.length) for camera, span in episode.cameras.items()}
    state, action = _matrix(table, STATE), _matrix(table, ACTION)
    return EpisodeArrays(episode.episode_id, episode.task, episode.fps, state, action, frames)


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


def _frames(path: Path, episode: PackedEpisode, camera: str) -> Iterator[np.ndarray]:
    count = 0
    for frame in decoded_from(path, episode.cameras[camera].from_timestamp, episode.length):
        yield frame.to_ndarray(format="rgb24")
        count += 1
    if count != episode.length:
        raise CorruptVideo(f"{episode.cameras[camera].file}: episode {episode.episode_id} has {count} frames instead of {episode.length}")
