"""Days of real demonstrations of the simulated arm, packed as the loop packs them, without the log files in between."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from fleet.arm import ACTION_NAMES, STATE_NAMES, TASK, Arm
from fleet.expert import Demonstration, demonstrate
from ray_jobs.driver import Execution
from ray_jobs.episode import Clip, Episode, EpisodeMeta, Stream, write_episode
from ray_jobs.packing.job import run as pack
from ray_jobs.seam.configs import DayDataset, PackConfig
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import EPISODES, VERDICTS, to_bytes

START_NS = 1_790_000_000_000_000_000
FIRST_SEED = 2**32
DAY = "2026-09-21"


def write_clip(path: Path, frames: np.ndarray) -> None:
    """frames: uint8 [n, h, w, 3]."""
    with av.open(path, "w") as output:
        stream: Any = output.add_stream("libx264", rate=10, options={"bf": "0", "g": "10", "preset": "veryfast", "crf": "20"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def add_episode(store: Store, folder: Path, number: int, states: np.ndarray, actions: np.ndarray | None, frames: np.ndarray | None) -> dict[str, Any]:
    """Write one normalised episode and return its row of EPISODES."""
    name, count = f"{number:032x}", len(states)
    times = START_NS + number * 60_000_000_000 + np.arange(count) * 100_000_000
    streams = {"state": Stream(times, times, states.astype(np.float32))}
    if actions is not None:
        streams["action"] = Stream(times, times, actions.astype(np.float32))
    clips: dict[str, Path] = {}
    cameras: dict[str, Clip] = {}
    if frames is not None:
        streams["camera:front"] = Stream(times, times, np.zeros((count, 0), np.float32))
        clips["front"] = folder / f"{name}.mp4"
        write_clip(clips["front"], frames)
        cameras["front"] = Clip(codec="h264", width=frames.shape[2], height=frames.shape[1], frames=count)
    meta = EpisodeMeta(
        episode_id=name,
        robot="arm-1",
        task=TASK,
        fps=10.0,
        state_names=STATE_NAMES if states.shape[1] == 5 else tuple(f"joint{column}" for column in range(states.shape[1])),
        action_names=() if actions is None else ACTION_NAMES if actions.shape[1] == 4 else tuple(f"motor{column}" for column in range(actions.shape[1])),
        cameras=cameras,
        source="mcap",
        upload=f"arm-1/{name}.mcap",
    )
    write_episode(store, Episode(meta, streams), clips)
    row: dict[str, Any] = {"episode_id": name, "day": DAY, "day_source": "recording", "robot": "arm-1", "task": TASK, "upload": meta.upload}
    row |= {"upload_digest": name, "status": "ok", "start_ns": int(times[0]), "end_ns": int(times[-1]), "states": count}
    return row | {"actions": 0 if actions is None else count, "frames": 0 if frames is None else count, "cameras": list(cameras), "fps": 10.0, "notes": []}


def tables(store: Store, rows: list[dict[str, Any]], rejected: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """Write EPISODES and VERDICTS of the day; all is kept that is not in `rejected`."""
    verdicts = [{"episode_id": row["episode_id"], "day": DAY, "verdict": "rejected" if row["episode_id"] in rejected else "kept"} for row in rows]
    store.put("tables/episodes.parquet", to_bytes(rows, EPISODES))
    store.put("tables/verdicts.parquet", to_bytes(verdicts, VERDICTS))
    return {"episodes": {DAY: "tables/episodes.parquet"}, "verdicts": {DAY: "tables/verdicts.parquet"}}


def pack_rows(store: Store, rows: list[dict[str, Any]]) -> DayDataset:
    execution = Execution(store, "attempts/pack/a1/x", report=lambda message: None)
    result = pack(PackConfig(store=store.config, days=(DAY,), **tables(store, rows)), execution)[DAY]
    return DayDataset.model_validate(result.output["dataset"])


def demonstrations(
    store: Store, folder: Path, count: int, change: Callable[[int, Demonstration], Demonstration] = lambda number, made: made
) -> list[dict[str, Any]]:
    """Record that many good demonstrations as episodes; `change` may spoil one."""
    arm = Arm()
    made = (change(number, demonstrate(arm, FIRST_SEED + number)) for number in range(count))
    return [add_episode(store, folder, number, one.states, one.actions, one.frames) for number, one in enumerate(made)]


def demo_day(store: Store, folder: Path, count: int) -> DayDataset:
    return pack_rows(store, demonstrations(store, folder, count))
