"""Copies of a stored episode as they come about: encoded again, brighter, cut, or played at another pace."""

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ray_jobs.episode import Clip, Episode, Stream, open_clip, read_episode, write_episode
from ray_jobs.seam.store import Store


@dataclass(frozen=True)
class Change:
    """crf: of the new encoding. gain, offset: of every pixel. cut: shares of the time left out at the start and at the end.
    pace: seconds become this many times as long. rate: every stream is sampled at so many times its rate (numbers linear, frames nearest)."""

    crf: int = 23
    gain: float = 1.0
    offset: float = 0.0
    cut: tuple[float, float] = (0.0, 0.0)
    pace: float = 1.0
    rate: float = 1.0


CHANGES = {
    "encoded again": Change(crf=32),
    "brighter": Change(gain=1.15, offset=12),
    "darker": Change(gain=0.75),
    "cut at the start": Change(cut=(0.12, 0.0)),
    "cut at both ends": Change(cut=(0.08, 0.12)),
    "slower": Change(pace=1.3),
    "faster and sampled anew": Change(pace=0.8, rate=0.8),
    "cut, darker and slower": Change(crf=28, gain=0.85, cut=(0.06, 0.05), pace=1.15),
}


def copy_episode(store: Store, source: str, target: str, change: Change) -> None:
    """Write episode `target`, a changed copy of `source`."""
    episode = read_episode(store, source)
    every = [stream.t_ns for stream in episode.streams.values() if len(stream.t_ns)]
    first, last = min(times[0] for times in every), max(times[-1] for times in every)
    low, high = first + change.cut[0] * (last - first), last - change.cut[1] * (last - first)
    streams: dict[str, Stream] = {}
    cameras: dict[str, Clip] = {}
    clips: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, stream in episode.streams.items():
            rows, times = _sampled(stream, low, high, change.rate)
            later = (low + (times - low) * change.pace).astype(np.int64)
            values = stream.values[rows]
            if change.rate != 1 and values.shape[1]:
                values = np.stack([np.interp(times, stream.t_ns, column) for column in stream.values.T], axis=1).astype(np.float32)
            streams[name] = Stream(later, later + 2_000_000, values)
            if name.startswith("camera:"):
                camera = name.removeprefix("camera:")
                clip = episode.meta.cameras[camera]
                path = Path(folder) / f"{len(clips)}.mp4"
                with open_clip(store, source, camera) as recorded:
                    _encode(recorded, rows + clip.lead_in, path, change)
                cameras[camera] = Clip(codec="h264", width=clip.width, height=clip.height, frames=len(rows))
                clips[camera] = path
        meta = episode.meta.model_copy(update={"episode_id": target, "cameras": cameras, "fps": episode.meta.fps * change.rate / change.pace})
        write_episode(store, Episode(meta, streams), clips)


def _sampled(stream: Stream, low: float, high: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the stream and the times they stand for."""
    inside = np.flatnonzero((stream.t_ns >= low) & (stream.t_ns <= high))
    if rate == 1:
        return inside, stream.t_ns[inside].astype(np.float64)
    times = np.linspace(stream.t_ns[inside[0]], stream.t_ns[inside[-1]], max(2, round(len(inside) * rate)))
    return np.abs(stream.t_ns[inside][:, None] - times[None]).argmin(axis=0) + inside[0], times


def _encode(source: Path, rows: np.ndarray, target: Path, change: Change) -> None:
    with av.open(str(source)) as recorded, av.open(str(target), "w") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in recorded.decode(video=0)]
        height, width = frames[0].shape[0] & ~1, frames[0].shape[1] & ~1
        stream = container.add_stream("libx264", rate=Fraction(10), options={"crf": str(change.crf), "bf": "0", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", 10
        for row in rows:
            picture = np.clip(frames[row][:height, :width] * change.gain + change.offset, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
