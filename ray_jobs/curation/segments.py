"""Cutting an episode into segments, and decoding a segment's frames."""

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from ray_jobs.curation.agreement import sample
from ray_jobs.curation.stage import Picks, Resources, Segment, Stage, View
from ray_jobs.episode import Episode, Stream, open_clip
from ray_jobs.seam.errors import DataError
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
    """How many segments of about `segment_s` an episode has, from its counts alone: a wrong clock cannot mislead it."""
    frames = max([count for name, count in samples.items() if name.startswith(PREFIX)] or [max(samples.values(), default=0)])
    return max(1, math.ceil(frames / max(fps, 0.1) / segment_s))


def cut(episode: Episode, index: int, count: int) -> Segment:
    """Rows [index/count, (index+1)/count) of every stream."""
    streams = {}
    for name, stream in episode.streams.items():
        first, last = bounds(len(stream.t_ns), index, count)
        streams[name] = Stream(stream.t_ns[first:last], stream.log_ns[first:last], stream.values[first:last])
    return Segment(episode.meta, index, count, streams)


def bounds(length: int, index: int, count: int) -> tuple[int, int]:
    return index * length // count, (index + 1) * length // count


def with_frames(segment: Segment, episode: Episode, store: Store, frame_px: int | None, picks: Collection[Picks] = ()) -> Segment:
    """Decode every camera's part once: every frame at `frame_px` (None: not wanted), and each of the picks.

    Raises DataError where the video holds fewer frames than it says.
    """
    views: dict[str, View] = {}
    picked: dict[Picks, dict[str, View]] = {pick: {} for pick in picks}
    state = episode.streams.get("state")
    for camera, clip in episode.meta.cameras.items():
        stream = episode.streams.get(PREFIX + camera)
        if stream is None:
            continue
        first, last = bounds(len(stream.t_ns), segment.index, segment.count)
        start = max(first - 1, 0)
        sizes = [Size(frame_px, 1)] if frame_px else []
        sizes += [Size(pick.px, max(1, round((episode.meta.fps or USUAL_FPS) / pick.fps))) for pick in picks]
        with open_clip(store, episode.meta.episode_id, camera) as path:
            found, count = decode_sizes(str(path), clip.lead_in + start, clip.lead_in + last, sizes, clip.lead_in)
        if count < last - start:
            raise DataError(f"camera {camera}: the video ends after {start + count} of {len(stream.t_ns)} frames")
        for size, frames, pick in zip(sizes, found, [None, *picks] if frame_px else picks, strict=True):
            rows = np.arange(start, last)[np.arange(start, last) % size.every == 0]
            lead = int((rows < first).sum())
            own = rows[lead:]
            if not len(own):
                continue
            times = stream.t_ns[own]
            previous = frames[:lead] if pick is None else frames[:0]
            view = View(times, stream.log_ns[own], int(own[0]), frames[lead:], previous, joints_at(state, times))
            (views if pick is None else picked[pick])[camera] = view
    return Segment(segment.meta, segment.index, segment.count, segment.streams, views, picked)


def decode(path: str, first: int, last: int, short_side: int) -> np.ndarray:
    """Frames [first, last) in decoding order, [n, h, w, 3] u8 RGB, shorter side `short_side` (never enlarged)."""
    return decode_sizes(path, first, last, [Size(short_side, 1)])[0][0]


def decode_sizes(path: str, first: int, last: int, sizes: Sequence[Size], origin: int = 0) -> tuple[list[np.ndarray], int]:
    """Frames [first, last) decoded once, as [n, h, w, 3] u8 RGB in each size, and how many there were. Frame `origin` counts as number 0."""
    found: list[list[np.ndarray]] = [[] for _ in sizes]
    scalers = [VideoReformatter() for _ in sizes]  # a frame's own would be set up anew for each frame
    count = 0
    with av.open(path) as container:
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
                for size, scaler, frames in zip(sizes, scalers, found, strict=True):
                    if (position - origin) % size.every == 0:
                        height, width = _fit(frame.height, frame.width, size.px)
                        frames.append(scaler.reformat(frame, width=width, height=height, format="rgb24").to_ndarray())
            position += 1
    return [np.stack(frames) if frames else np.zeros((0, 1, 1, 3), np.uint8) for frames in found], count


def _seek(container: Any, stream: Any, first: int) -> int:
    """Jump to the last keyframe at or before frame `first`, by the file's own index; returns that keyframe's number."""
    key = max((number for number, entry in enumerate(stream.index_entries) if entry.is_keyframe and number <= first), default=0)
    if key == 0:
        return 0
    container.seek(stream.index_entries[key].timestamp, stream=stream, backward=True)
    return key


def _fit(height: int, width: int, short_side: int) -> tuple[int, int]:
    shrink = min(1.0, short_side / min(height, width))
    return max(2, round(height * shrink)), max(2, round(width * shrink))


def joints_at(state: Stream | None, t_ns: np.ndarray) -> np.ndarray:
    """The state at the given times, [n, d] f32, linear between samples; [n, 0] where there is no usable state."""
    if state is None or len(state.t_ns) < 3:
        return np.zeros((len(t_ns), 0), np.float32)
    finite = np.isfinite(state.values).all(axis=1)
    times, first = np.unique(state.t_ns[finite], return_index=True)
    if len(times) < 3:
        return np.zeros((len(t_ns), 0), np.float32)
    values = state.values[finite][first]
    return sample((times - times[0]) / 1e9, values, (t_ns - times[0]) / 1e9).astype(np.float32)
