"""The normalised episode: what ingest extracts once from any format, and all that later steps read.

episodes/<id[:2]>/<id>/
    episode.json     EpisodeMeta
    streams.parquet  stream, t_ns, log_ns, values: one row per sample, in recorded order, at recorded times
    <camera>.mp4     the recorded packets where they can be kept, one video frame per row of stream "camera:<camera>"
    <camera>.depth.mkv  depth in millimetres, 16-bit grey without loss, one frame per row of stream "depth:<camera>"
"""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.seam.layout import episode_prefix
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store

SCHEMA = pa.schema(
    [
        ("stream", pa.dictionary(pa.int32(), pa.string())),
        ("t_ns", pa.int64()),
        ("log_ns", pa.int64()),
        ("values", pa.list_(pa.float32())),
    ]
)

ROW_GROUP = 1 << 15  # samples; a row group holds samples of one stream, so that a part of a long recording is read alone


class Clip(Strict):
    """One camera's video. The file decodes to lead_in + frames frames: the first `lead_in` only serve decoding (a cut
    between keyframes), the next `frames` belong one by one to the rows of the camera's stream.
    """

    codec: str
    width: int
    height: int
    frames: int
    lead_in: int = 0


class EpisodeMeta(Strict):
    episode_id: str
    robot: str
    task: str
    fps: float  # nominal rate of the frames, or of the states where there is no camera; 0 where it cannot be known
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    cameras: dict[str, Clip]
    depth: dict[str, Clip] = {}  # cameras that measure distance: no colour pictures, so they stand apart
    source: str  # mcap | ros1 | rosbag2 | hdf5 | lerobot v2.0 | lerobot v2.1 | lerobot v3.0
    upload: str
    success: bool | None = None  # what the recording itself claims, where it does
    synthetic_clock: bool = False  # times count from 0: the recording has no wall clock
    ingest: str = ""  # version of the ingest that wrote it
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stream:
    """Samples in recorded order. t_ns: publish time, log_ns: when the logger wrote it. values: [n, d] f32, or [n, 0]."""

    t_ns: np.ndarray
    log_ns: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Episode:
    """streams: "state", "action" (where recorded), "camera:<name>" and "depth:<name>" (one sample per frame, no values)."""

    meta: EpisodeMeta
    streams: dict[str, Stream]


def clip_key(episode_id: str, camera: str) -> str:
    return f"{episode_prefix(episode_id)}/{camera}.mp4"


def depth_key(episode_id: str, camera: str) -> str:
    return f"{episode_prefix(episode_id)}/{camera}.depth.mkv"


def write_episode(store: Store, episode: Episode, clips: dict[str, Path]) -> None:
    """`clips`: by name of camera or depth camera. Write the clips, the streams, and last episode.json, by which readers know that it is whole."""
    prefix = episode_prefix(episode.meta.episode_id)
    for camera, path in clips.items():
        key = depth_key if camera in episode.meta.depth else clip_key
        store.put_file(key(episode.meta.episode_id, camera), path)
    with tempfile.TemporaryFile() as sink:
        with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
            for name, stream in episode.streams.items():
                for start in range(0, len(stream.t_ns), ROW_GROUP):
                    writer.write_table(_rows(name, stream, slice(start, start + ROW_GROUP)))
        sink.seek(0)
        store.put(f"{prefix}/streams.parquet", sink.read())
    store.put(f"{prefix}/episode.json", episode.meta.model_dump_json().encode())


def _rows(name: str, stream: Stream, part: slice) -> pa.Table:
    values = stream.values[part].astype(np.float32, copy=False)
    count, width = values.shape
    lists = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * width, pa.array(values.ravel(), pa.float32()))
    label = pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), pa.array([name]))
    return pa.Table.from_arrays([label, pa.array(stream.t_ns[part], pa.int64()), pa.array(stream.log_ns[part], pa.int64()), lists], schema=SCHEMA)


def read_meta(store: Store, episode_id: str) -> EpisodeMeta:
    """Raises NotFound where the episode was never written whole."""
    return EpisodeMeta.model_validate_json(store.get(f"{episode_prefix(episode_id)}/episode.json"))


def read_episode(store: Store, episode_id: str) -> Episode:
    """Raises NotFound where the episode was never written whole."""
    meta = read_meta(store, episode_id)
    table = pq.read_table(io.BytesIO(store.get(f"{episode_prefix(episode_id)}/streams.parquet")))
    labels = table["stream"].unify_dictionaries().combine_chunks()
    labels = labels.chunk(0) if isinstance(labels, pa.ChunkedArray) else labels
    times, logged = table["t_ns"].to_numpy(), table["log_ns"].to_numpy()
    values = table["values"].combine_chunks()
    streams = {}
    for number, name in enumerate(labels.dictionary.to_pylist()):
        rows = np.flatnonzero(labels.indices.to_numpy() == number)
        flat = values.take(pa.array(rows)).flatten().to_numpy(zero_copy_only=False)
        streams[name] = Stream(times[rows], logged[rows], flat.reshape(len(rows), -1) if len(flat) else np.zeros((len(rows), 0), np.float32))
    return Episode(meta, streams)


@contextmanager
def open_clip(store: Store, episode_id: str, camera: str) -> Iterator[Path]:
    """A local path to the camera's mp4."""
    with store.local_copy(clip_key(episode_id, camera)) as path:
        yield path
