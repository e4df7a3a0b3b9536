"""A segment of an episode: reading its rows, and decoding its frames, without the rest of the recording."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.reformatter import VideoReformatter

from ray_jobs.curation.rows import Rows, Table
from ray_jobs.curation.stage import Picks, Resources, Segment, Stage, View
from ray_jobs.episode import EpisodeMeta, Stream, clip_key
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.layout import episode_prefix
from ray_jobs.seam.ranges import readable
from ray_jobs.seam.store import Store

PREFIX = "camera:"
USUAL_FPS = 30.0  # where a recording does not say


class Size(NamedTuple):
    """Shorter side in pixels, and of how many frames one is wanted."""

    px: int
    every: int


class Decode(Stage):
    """The transport stage: frames at `frame_px` (shorter side). Its result is the segment; nothing enters the ledger."""

    name = "decode"
    version = "1"
    settings = ("frame_px", "segment_s")
    resources = Resources()


def segment_count(samples: dict[str, int], fps: float, segment_s: float) -> int:
    """How many segments of about `segment_s` an episode has, from its streams' lengths alone: a wrong clock cannot mislead it.

    The cameras' frames count, where there are none the states and actions.
    """
    frames = [count for name, count in samples.items() if name.startswith(PREFIX)]
    numbers = [count for name, count in samples.items() if name in ("state", "action")]
    return max(1, math.ceil(max(frames or numbers, default=0) / max(fps, 0.1) / segment_s))


def read_segment(store: Store, meta: EpisodeMeta, index: int, count: int) -> Segment:
    """Rows [index/count, (index+1)/count) of every stream.

    Row groups of streams.parquet that hold none of it are not read. Raises StoreError (NotFound: no such episode).
    """
    with readable(store, _streams_key(meta.episode_id)) as source:
        file = pq.ParquetFile(source)
        groups, lengths = _groups(file.metadata)
        shares = {name: bounds(length, index, count) for name, length in lengths.items()}
        own = [group for group in groups if group.holds(*shares[group.stream])]
        parts = _read(file, own)
    streams = {}
    for name, (first, last) in shares.items():
        mine = [group for group in own if group.stream == name]
        streams[name] = _rows(_joined([parts[group.number] for group in mine]), first - mine[0].first, last - mine[0].first)
    return Segment(meta, index, count, streams)


def read_rows(store: Store, episode_id: str) -> Rows:
    """All samples of an episode, of which few are in memory at a time. Raises StoreError (NotFound: no such episode)."""
    clocks: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    tables: dict[str, Table] = {}
    with readable(store, _streams_key(episode_id)) as source:
        file = pq.ParquetFile(source)
        groups, lengths = _groups(file.metadata)
        for group in groups:
            part = _read(file, [group])[group.number]
            count = lengths[group.stream]
            if group.stream not in tables:
                clocks[group.stream] = np.zeros(count, np.int64), np.zeros(count, np.int64)
                tables[group.stream] = Table(count, part.values.shape[1])
            for whole, some in zip(clocks[group.stream], (part.t_ns, part.log_ns), strict=True):
                whole[group.first : group.first + group.rows] = some
            tables[group.stream].put(group.first, part.values)
    pa.default_memory_pool().release_unused()  # 40 MB of an hour's row groups, which Arrow would keep for the next
    return Rows(clocks, tables)


def read_lengths(store: Store, episode_id: str) -> dict[str, int]:
    """How many samples each stream has, from the file's end alone."""
    with readable(store, _streams_key(episode_id)) as source:
        return _groups(pq.ParquetFile(source).metadata)[1]


def _streams_key(episode_id: str) -> str:
    return f"{episode_prefix(episode_id)}/streams.parquet"


def _groups(told: pq.FileMetaData) -> tuple[list["_Group"], dict[str, int]]:
    """The row groups in order, and each stream's length."""
    groups, lengths = [], dict[str, int]()
    for number in range(told.num_row_groups):
        group = _Group.of(told.row_group(number), number)
        group.first = lengths.get(group.stream, 0)
        lengths[group.stream] = group.first + group.rows
        groups.append(group)
    return groups, lengths


@dataclass
class _Group:
    """A row group of streams.parquet: samples of one stream, the first of them being its row `first`."""

    number: int
    stream: str
    rows: int
    first: int = 0

    @classmethod
    def of(cls, told: Any, number: int) -> "_Group":
        name = told.column(0).statistics
        if name is None or name.min != name.max:
            raise DataError("streams.parquet is not as ingest writes it: a row group does not say whose samples it holds")
        return cls(number, name.min, told.num_rows)

    def holds(self, first: int, last: int) -> bool:
        """Whether rows [first, last) are among its own; of an empty share, row `first`, so that its width is known."""
        return self.first < max(last, first + 1) and self.first + self.rows > first


def _read(file: pq.ParquetFile, groups: list[_Group]) -> dict[int, Stream]:
    """The groups' samples, by the group's number."""
    table = file.read_row_groups([group.number for group in groups], columns=["t_ns", "log_ns", "values"], use_threads=False)
    found, at = {}, 0
    for group in groups:
        part = table.slice(at, group.rows)
        flat = part["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        values = flat.reshape(group.rows, -1) if len(flat) else np.zeros((group.rows, 0), np.float32)
        found[group.number] = Stream(part["t_ns"].to_numpy(), part["log_ns"].to_numpy(), values)
        at += group.rows
    return found


def _joined(parts: list[Stream]) -> Stream:
    if len(parts) == 1:
        return parts[0]
    return Stream(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("t_ns", "log_ns", "values")))


def _rows(stream: Stream, first: int, last: int) -> Stream:
    """Copies, so that a partial which holds some of them does not hold their row groups."""
    return Stream(stream.t_ns[first:last].copy(), stream.log_ns[first:last].copy(), stream.values[first:last].copy())


def bounds(length: int, index: int, count: int) -> tuple[int, int]:
    return index * length // count, (index + 1) * length // count


def with_frames(segment: Segment, store: Store, frame_px: int | None, picks: Sequence[Picks] = ()) -> Segment:
    """Decode every camera's part once: every frame at `frame_px` (None: not wanted), and each of the picks.

    Raises DataError where the video holds fewer frames than it says.
    """
    views: dict[str, View] = {}
    picked: dict[Picks, dict[str, View]] = {pick: {} for pick in picks}
    fps = segment.meta.fps or USUAL_FPS
    for camera, clip in segment.meta.cameras.items():
        stream = segment.streams.get(PREFIX + camera)
        if stream is None:
            continue
        first, last = bounds(clip.frames, segment.index, segment.count)
        start = max(first - 1, 0) if frame_px else first
        sizes = [Size(frame_px, 1)] if frame_px else []
        sizes += [Size(pick.px, max(1, round(fps / pick.fps))) for pick in picks]
        with readable(store, clip_key(segment.meta.episode_id, camera)) as source:
            found, count = decode_sizes(source, clip.lead_in + start, clip.lead_in + last, sizes, clip.lead_in)
        if count < last - start:
            raise DataError(f"camera {camera}: the video ends after {start + count} of {clip.frames} frames")
        for size, frames, pick in zip(sizes, found, [None, *picks] if frame_px else picks, strict=True):
            numbers = np.arange(start, last)
            numbers = numbers[numbers % size.every == 0]
            lead = int((numbers < first).sum())
            own = numbers[lead:] - first
            if not len(own):
                continue
            times = stream.t_ns[own]
            previous = frames[:lead] if pick is None else frames[:0]
            view = View(times, stream.log_ns[own], first + int(own[0]), frames[lead:], previous)
            (views if pick is None else picked[pick])[camera] = view
    return replace(segment, views=views, picked=picked)


def decode(source: str | BinaryIO, first: int, last: int, short_side: int) -> np.ndarray:
    """Frames [first, last) in decoding order, [n, h, w, 3] u8 RGB, shorter side `short_side` (never enlarged)."""
    return decode_sizes(source, first, last, [Size(short_side, 1)])[0][0]


def decode_sizes(source: str | BinaryIO, first: int, last: int, sizes: Sequence[Size], origin: int = 0) -> tuple[list[np.ndarray], int]:
    """Frames [first, last) decoded once, as [n, h, w, 3] u8 RGB in each size, and how many there were. Frame `origin` counts as number 0."""
    found = [np.zeros((0, 1, 1, 3), np.uint8) for _ in sizes]
    filled = [0] * len(sizes)
    scalers = [VideoReformatter() for _ in sizes]  # a frame's own would be set up anew for each frame
    count = 0
    with av.open(source, "r") as container:
        if not container.streams.video:
            raise DataError("the clip holds no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # one task, one core
        position = _seek(container, stream, first)
        for frame in container.decode(stream):
            if position >= last:
                break
            if position >= first:
                count += 1
                for place, (size, scaler) in enumerate(zip(sizes, scalers, strict=True)):
                    if (position - origin) % size.every == 0:
                        height, width = _fit(frame.height, frame.width, size.px)
                        if not filled[place]:  # all of them at once: a list of frames would be held twice
                            found[place] = np.empty((-(-(last - position) // size.every), height, width, 3), np.uint8)
                        found[place][filled[place]] = scaler.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()
                        filled[place] += 1
            position += 1
    return [frames[:number] for frames, number in zip(found, filled, strict=True)], count


def _seek(container: Any, stream: Any, first: int) -> int:
    """Jump to the last keyframe at or before frame `first`, by the file's own index; returns that keyframe's number."""
    entries = stream.index_entries
    key = next((number for number in range(min(first, len(entries) - 1), 0, -1) if entries[number].is_keyframe), 0)  # a file of hours has a million
    if key == 0:
        return 0
    container.seek(entries[key].timestamp, stream=stream, backward=True)
    return key


def _fit(height: int, width: int, short_side: int) -> tuple[int, int]:
    shrink = min(1.0, short_side / min(height, width))
    return max(2, round(height * shrink)), max(2, round(width * shrink))
