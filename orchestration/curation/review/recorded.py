"""An episode as the page looks at it: its streams, and what its frames look like from one to the next.

Reads the normalised episode (ray_jobs/episode.py says how it is laid out) by its columns, because orchestration imports of ray_jobs
the seam alone. Frames are decoded only here and only for reasons that are about pictures.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_jobs.seam.layout import episode_prefix
from ray_jobs.seam.store import Store

PX = 64  # of the grey pictures that are looked at
MOST_FRAMES = 20_000  # of one clip; of a longer one every n-th


@dataclass(frozen=True)
class Samples:
    """t_s [n]: publish time, log_s [n]: log time, where it goes back held, so that plots go forward; both in s from the episode's first. values [n, d]."""

    t_s: np.ndarray
    log_s: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Looks:
    """Per frame: t_s, light (mean grey, 0 to 255), change (mean absolute difference to the frame before, NaN for the first), sharp (variance of the
    Laplacian)."""

    t_s: np.ndarray
    light: np.ndarray
    change: np.ndarray
    sharp: np.ndarray


@dataclass(frozen=True)
class Recorded:
    """`looks` decodes a camera's clip when it is asked; it raises av.error.FFmpegError where there is nothing to decode."""

    streams: dict[str, Samples]
    cameras: dict[str, dict[str, Any]]
    axes: dict[str, tuple[str, ...]]  # of "state" and "action"
    looks: Callable[[str], Looks]

    @property
    def length_s(self) -> float:
        return max((float(each.log_s.max()) for each in self.streams.values() if len(each.log_s)), default=0.0)


def read(store: Store, episode_id: str) -> Recorded:
    """Raises StoreError, NotFound among them, and ValueError where the tables are not what ingest writes."""
    prefix = episode_prefix(episode_id)
    meta = json.loads(store.get(f"{prefix}/episode.json"))
    table = pq.read_table(io.BytesIO(store.get(f"{prefix}/streams.parquet")))
    names = table["stream"].cast(pa.string())
    times, logged = table["t_ns"].to_numpy(), table["log_ns"].to_numpy()
    origin = (times.min(), logged.min()) if len(times) else (0, 0)
    streams = {}
    for name in pc.unique(names).to_pylist():
        rows = np.flatnonzero(pc.equal(names, name).to_numpy())
        flat = table["values"].take(pa.array(rows)).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        values = flat.reshape(len(rows), -1) if len(flat) else np.zeros((len(rows), 0))
        streams[name] = Samples((times[rows] - origin[0]) / 1e9, np.maximum.accumulate(logged[rows] - origin[1]) / 1e9, values.astype(np.float64))
    cameras = meta.get("cameras") or {}

    @cache
    def looks(camera: str) -> Looks:
        with store.local_copy(f"{prefix}/{camera}.mp4") as path:
            return _looks(path, int(cameras[camera].get("lead_in", 0)), streams[f"camera:{camera}"].log_s)

    return Recorded(streams, cameras, {"state": tuple(meta.get("state_names") or ()), "action": tuple(meta.get("action_names") or ())}, looks)


def _looks(path: Path, lead_in: int, times: np.ndarray) -> Looks:
    every = max(1, len(times) // MOST_FRAMES)
    found: list[tuple[float, float, float, float]] = []
    before: np.ndarray | None = None
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            place = number - lead_in
            if place < 0 or place >= len(times) or place % every:
                continue
            shrink = PX / min(frame.height, frame.width)
            size = (max(3, round(frame.width * shrink)), max(3, round(frame.height * shrink)))
            grey = frame.to_ndarray(format="gray", width=size[0], height=size[1]).astype(np.float32)
            bend = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
            change = np.nan if before is None else float(np.abs(grey - before).mean())
            found.append((float(times[place]), float(grey.mean()), change, float(bend.var())))
            before = grey
    table = np.array(found).reshape(-1, 4)
    return Looks(*table.T)
