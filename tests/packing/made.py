"""Synthetic episodes whose every frame shows its own number, so that a test can tell which frame it was given."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ray_jobs.episode import Clip, Episode, EpisodeMeta, Stream, write_episode
from ray_jobs.seam.configs import DayDataset, PackConfig
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import EPISODES, VERDICTS, to_bytes
from tests.oracle.board import picture

START_NS = 1_790_000_000_000_000_000
DAY = "2026-09-21"


def write_clip(path: Path, numbers: list[int], fps: int = 10, size: int = 96, codec: str = "libx264", pixels: str = "yuv420p", **options: str) -> None:
    chosen = {"bf": "0", "g": "10", "preset": "ultrafast", "crf": "20", **options} if codec == "libx264" else options
    with av.open(path, "w") as output:
        stream: Any = output.add_stream(codec, rate=fps, options=chosen)
        stream.width = stream.height = size
        stream.pix_fmt = pixels
        for index, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def add_episode(
    store: Store,
    folder: Path,
    name: str,
    *,
    count: int = 20,
    fps: int = 10,
    state: int = 5,
    action: int = 4,
    size: int = 96,
    lead_in: int = 0,
    dropped: tuple[int, ...] = (),
    cameras: tuple[str, ...] = ("front",),
    robot: str = "arm-1",
    task: str = "put the red block on the green target",
    **clip: str,
) -> dict[str, Any]:
    """Write one episode and return its row of EPISODES. `dropped` steps have no camera frame."""
    seed = np.random.default_rng(int.from_bytes(name.encode(), "little") % 2**32)
    episode_id = name.encode().hex().ljust(32, "0")[:32]
    times = START_NS + np.arange(count) * 1_000_000_000 // fps
    seen = np.array([step for step in range(count) if step not in dropped])
    streams = {"state": Stream(times, times, np.cumsum(seed.normal(size=(count, state)), 0).astype(np.float32))}
    if action:
        streams["action"] = Stream(times, times, seed.normal(size=(count, action)).astype(np.float32))
    clips, metas = {}, {}
    for camera in cameras:
        streams[f"camera:{camera}"] = Stream(times[seen], times[seen], np.zeros((len(seen), 0), np.float32))
        path = folder / f"{name}-{camera}.mp4"
        write_clip(path, [4000] * lead_in + seen.tolist(), fps, size, **clip)
        clips[camera] = path
        metas[camera] = Clip(codec="h264", width=size, height=size, frames=len(seen), lead_in=lead_in)
    meta = EpisodeMeta(
        episode_id=episode_id,
        robot=robot,
        task=task,
        fps=fps,
        state_names=tuple(f"joint{column}" for column in range(state)),
        action_names=("dx", "dy", "dz", "grip")[:action] if action <= 4 else (),
        cameras=metas,
        source="mcap",
        upload=f"{robot}/{name}.mcap",
    )
    write_episode(store, Episode(meta, streams), clips)
    row: dict[str, Any] = {"episode_id": episode_id, "day": DAY, "day_source": "recording", "robot": robot, "task": task}
    row |= {"upload": meta.upload, "upload_digest": name, "status": "ok", "start_ns": int(times[0]), "end_ns": int(times[-1])}
    return row | {"states": count, "actions": count if action else 0, "frames": len(seen), "cameras": list(cameras), "fps": float(fps), "notes": []}


def pack_config(store: Store, rows: list[dict[str, Any]], rejected: tuple[str, ...] = ()) -> PackConfig:
    """Write the day's two tables; everything is kept that is not in `rejected`."""
    verdicts = []
    for row in rows:
        tags = {"tags.by": "me", "scene": f"drawer {row['upload']}"}
        verdict = "rejected" if row["episode_id"] in rejected else "kept"
        verdicts.append(
            {
                "episode_id": row["episode_id"],
                "day": DAY,
                "robot": row["robot"],
                "verdict": verdict,
                "tags": tags,
                "scores": {"value.rank": 1 / 3, "state.span": 2.0},
            }
        )
    store.put("tables/episodes.parquet", to_bytes(rows, EPISODES))
    store.put("tables/verdicts.parquet", to_bytes(verdicts, VERDICTS))
    tables = {"episodes": {DAY: "tables/episodes.parquet"}, "verdicts": {DAY: "tables/verdicts.parquet"}}
    return PackConfig(store=store.config, days=(DAY,), **tables)


def packed(result: Any) -> DayDataset:
    return DayDataset.model_validate(result.output["dataset"])
