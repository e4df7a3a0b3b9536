"""Small episodes made of numbers, for unit tests: a 4-joint arm that follows end-effector deltas, and a camera that sees it move."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from ray_jobs.episode import Clip, Episode, EpisodeMeta, Stream, write_episode
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import EPISODES, to_bytes

FPS = 10
START_NS = 1_790_000_000_000_000_000


@dataclass(frozen=True)
class Made:
    """states [n, 5], actions [n, 4], frames [n, 64, 64, 3] u8, times [n] ns."""

    states: np.ndarray
    actions: np.ndarray
    frames: np.ndarray
    t_ns: np.ndarray
    robot: str = "arm-1"

    def but(self, **changes: object) -> "Made":
        return replace(self, **changes)  # type: ignore[arg-type]


MIX = np.random.default_rng(7).normal(0, 6, (4, 5))


def background(shift: int = 0) -> np.ndarray:
    """[64, 64, 3]: a table's edge, a stand and some texture, moved sideways by whole pixels."""
    rows, columns = np.mgrid[0:64, 0:64]
    columns = columns - shift
    base = np.where(rows > 24 + 0.2 * columns, 140, 100) + 12 * np.sin(columns / 5) + np.where((columns > 10) & (columns < 18) & (rows < 40), -40, 0)
    return np.repeat(np.clip(base, 0, 255)[..., None], 3, axis=2).astype(np.uint8)


def swing(angle: float) -> float:
    """To and fro within [-1, 1], as fast as the angle goes."""
    return abs(angle % 4 - 2) - 1


def make(seed: int = 0, count: int = 60, robot: str = "arm-1", shift: int = 0) -> Made:
    draw = np.random.default_rng(seed)
    knots = draw.normal(0, 0.01, (count // 3 + 2, 4))
    actions = np.stack([np.interp(np.arange(count) / 3, np.arange(len(knots)), column) for column in knots.T], axis=1)
    states = np.cumsum(np.concatenate([np.zeros((1, 5)), (actions @ MIX)[:-1] + draw.normal(0, 2e-4, (count - 1, 5))]), axis=0)
    frames = np.repeat(background(shift)[None], count, axis=0)
    rows, columns = np.mgrid[0:64, 0:64]
    for index, state in enumerate(states):
        x, y = 32 + 18 * swing(state[0]), 32 + 18 * swing(state[1])
        frames[index][(rows - y) ** 2 + (columns - x) ** 2 < 40] = (0, 0, 0)
    t_ns = START_NS + seed * 600_000_000_000 + (np.arange(count) * 1e9 / FPS).astype(np.int64)
    return Made(states.astype(np.float32), actions.astype(np.float32), frames, t_ns, robot)


def encode(frames: np.ndarray, path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = frames.shape[1], frames.shape[2], "yuv420p", 10
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def save(store: Store, made: Made, episode_id: str) -> None:
    """Write as ingest would."""
    logged = made.t_ns + 2_000_000
    streams = {"state": Stream(made.t_ns[: len(made.states)], logged[: len(made.states)], made.states)}
    if len(made.actions):
        streams["action"] = Stream(made.t_ns[: len(made.actions)], logged[: len(made.actions)], made.actions)
    cameras, clips = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        if len(made.frames):
            path = Path(folder) / "front.mp4"
            encode(made.frames, path)
            times = made.t_ns[: len(made.frames)]
            streams["camera:front"] = Stream(times, times + 2_000_000, np.zeros((len(times), 0), np.float32))
            cameras["front"] = Clip(codec="h264", width=made.frames.shape[2], height=made.frames.shape[1], frames=len(times))
            clips["front"] = path
        meta = EpisodeMeta(
            episode_id=episode_id,
            robot=made.robot,
            task="test",
            fps=FPS,
            state_names=tuple("abcde"),
            action_names=("dx", "dy", "dz", "grip"),
            cameras=cameras,
            source="mcap",
            upload=f"{made.robot}/x.mcap",
        )
        write_episode(store, Episode(meta, streams), clips)


def table(store: Store, day: str, rows: dict[str, Made]) -> str:
    """An EPISODES table; its key."""
    key = f"tables/{day}.parquet"
    store.put(key, to_bytes([row(day, name, made) for name, made in rows.items()], EPISODES))
    return key


def row(day: str, episode_id: str, made: Made, **changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "episode_id": episode_id,
        "day": day,
        "day_source": "recording",
        "robot": made.robot,
        "task": "test",
        "upload": f"{made.robot}/{episode_id}.mcap",
        "upload_digest": "",
        "status": "ok",
        "reason": None,
        "start_ns": int(made.t_ns[0]),
        "end_ns": int(made.t_ns[-1]),
        "states": len(made.states),
        "actions": len(made.actions),
        "frames": len(made.frames),
        "cameras": ["front"] if len(made.frames) else [],
        "fps": float(FPS),
        "notes": [],
    }
    return {**base, **changes}
