"""One episode made ready for packing: aligned, its video cut or encoded, every frame decoded once. Pure of the dataset's state."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.alignment import align
from ray_jobs.episode import Episode, open_clip, read_episode
from ray_jobs.packing.augment import apply, source_of
from ray_jobs.packing.stats import PictureStats, Stats, sampled_frames
from ray_jobs.packing.video import CorruptVideo, Segment, can_keep, decoded, scan, transcode
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store

THUMBNAILS = 4


@dataclass(frozen=True)
class Camera:
    """One camera of a prepared episode. thumbnails: uint8 [THUMBNAILS, h, w, 3], evenly spaced."""

    segment: Segment
    stats: Stats
    thumbnails: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """state: f32 [n, d] or [n, 0]; action the same; `files` keeps the clips' local copies until they are appended."""

    row: dict[str, Any]
    task: str
    fps: int
    state: np.ndarray
    action: np.ndarray
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    cameras: dict[str, Camera]
    method: str
    notes: tuple[str, ...]
    files: ExitStack


def prepare(store: Store, row: dict[str, Any], folder: Path) -> Prepared:
    """Read, align and check one episode (a row of EPISODES, or a synthetic one of `augment.expand`); encoded clips go to `folder`.

    Raises DataError (CorruptVideo among them, NotFound beside it) where this episode cannot be packed.
    """
    source_id, recipe = source_of(row), row.get("recipe")
    change = partial(apply, recipe) if recipe else None
    episode = read_episode(store, source_id)
    fps = max(1, round(episode.meta.fps))
    aligned = align(episode, fps)
    count = len(aligned.t_s)
    if count == 0:
        raise DataError("its streams have no time in common")
    state, action = _values(aligned.state, count, "state"), _values(aligned.action, count, "action")
    with ExitStack() as files:
        cameras: dict[str, Camera] = {}
        for name in sorted(aligned.frame_index):
            if name not in episode.meta.cameras:
                raise DataError(f"it has frames of camera {name} and no video of it")
            source = files.enter_context(open_clip(store, source_id, name))
            target = folder / f"{row['episode_id']}.{len(cameras)}.mp4"
            files.callback(target.unlink, missing_ok=True)
            lead_in = episode.meta.cameras[name].lead_in
            cameras[name] = _camera(source, lead_in, np.asarray(aligned.frame_index[name]), fps, target, change)
        return Prepared(
            row, episode.meta.task, fps, state, action, *_names(episode, state, action), cameras, aligned.method, tuple(aligned.notes), files.pop_all()
        )


def _names(episode: Episode, state: np.ndarray, action: np.ndarray) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Recorded names where there is one per column, else numbers."""

    def fitted(names: tuple[str, ...], width: int) -> tuple[str, ...]:
        return names if len(names) == width else tuple(str(column) for column in range(width))

    return fitted(episode.meta.state_names, state.shape[1]), fitted(episode.meta.action_names, action.shape[1])


def _values(values: np.ndarray | None, count: int, what: str) -> np.ndarray:
    if values is None:
        return np.zeros((count, 0), np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"its {what} is not finite everywhere")
    return np.ascontiguousarray(values, np.float32)


def _camera(source: Path, lead_in: int, frames: np.ndarray, fps: int, target: Path, change: Callable[[np.ndarray], np.ndarray] | None) -> Camera:
    """Keep the packets if they can be kept and decode on their own, else encode. Pictures that are changed are encoded."""
    seen = scan(source)
    if change is None and can_keep(seen, lead_in, frames):
        size = seen.size * len(frames) // len(seen.keyframes)
        segment = Segment(source, int(frames[0]), len(frames), seen.parameters, size, False)
        try:
            return _looked_at(segment)
        except CorruptVideo:
            if segment.first == 0:
                raise
    return _looked_at(transcode(source, lead_in, frames, fps, target, change))


def _looked_at(segment: Segment) -> Camera:
    """Decode every frame, as training will, and count what is there."""
    statistics, wanted, number = PictureStats(), set(sampled_frames(segment.count).tolist()), 0
    shown = np.round(np.linspace(0, segment.count - 1, THUMBNAILS)).astype(int).tolist()
    pictures: dict[int, np.ndarray] = {}
    for frame in decoded(segment.path, segment.first, segment.count):
        if (frame.width, frame.height) != (segment.parameters.width, segment.parameters.height):
            raise CorruptVideo(f"{segment.path.name}: frame {number} is {frame.width}x{frame.height}")
        if number in wanted:
            statistics.add(frame.to_ndarray(format="rgb24"))
        if number in shown:
            pictures[number] = _small(frame)
        number += 1
    if number != segment.count:
        raise CorruptVideo(f"{segment.path.name}: {segment.count} packets decode to {number} frames")
    return Camera(segment, statistics.result(), np.stack([pictures[index] for index in shown]))


def _small(frame: Any) -> np.ndarray:
    scale = 64 / min(frame.width, frame.height)
    small: np.ndarray = frame.reformat(width=max(1, round(frame.width * scale)), height=max(1, round(frame.height * scale)), format="rgb24").to_ndarray()
    return small
