"""The feature table of meta/info.json, and which episodes may share one dataset."""

from dataclasses import dataclass
from typing import Any

from ray_jobs.packing.prepare import Prepared
from ray_jobs.seam.model import digest

STATE, ACTION = "observation.state", "action"
CODEBASE_VERSION = "v3.0"
CHUNKS_SIZE = 1000
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
PROVENANCE_PATH = "meta/flywheel_episodes.parquet"
SYNTHETIC = "synthetic"  # a column of its own in datasets that hold copies made up by augment.py
COUNTERS = ("frame_index", "episode_index", "index", "task_index")


def video_key(camera: str) -> str:
    """LeRobot forbids a slash in a feature's name."""
    return f"observation.images.{camera.replace('/', '_')}"


@dataclass(frozen=True)
class Shape:
    """What the episodes of one LeRobot dataset have in common. cameras: (key, height, width), sorted."""

    fps: int
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    cameras: tuple[tuple[str, int, int], ...]
    augmented: bool = False  # some of them may be synthetic, and a column says which

    @classmethod
    def of(cls, episode: Prepared, augmented: bool = False) -> "Shape":
        sizes = {video_key(name): camera.segment.parameters for name, camera in episode.cameras.items()}
        cameras = tuple((key, sizes[key].height, sizes[key].width) for key in sorted(sizes))
        return cls(episode.fps, episode.state_names, episode.action_names, cameras, augmented)

    def folder(self) -> str:
        """Name of this shape's folder where a day has several shapes."""
        return "shape-" + digest(self.fps, self.state_names, self.action_names, self.cameras)[:8]

    def features(self, codecs: dict[str, str]) -> dict[str, dict[str, Any]]:
        """Every feature as LeRobot v3.0 declares it. codecs: video key -> codec of its first file."""
        made: dict[str, dict[str, Any]] = {}
        for key, names in ((STATE, self.state_names), (ACTION, self.action_names)):
            if names:
                made[key] = {"dtype": "float32", "shape": [len(names)], "names": list(names)}
        for key, height, width in self.cameras:
            info = {
                "video.height": height,
                "video.width": width,
                "video.codec": codecs[key],
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": self.fps,
                "video.channels": 3,
                "has_audio": False,
            }
            made[key] = {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": info}
        made["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for key in COUNTERS:
            made[key] = {"dtype": "int64", "shape": [1], "names": None}
        if self.augmented:
            made[SYNTHETIC] = {"dtype": "bool", "shape": [1], "names": None}
        return made


def info(shape: Shape, codecs: dict[str, str], robot_type: str, episodes: int, frames: int, tasks: int) -> dict[str, Any]:
    """meta/info.json."""
    return {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": robot_type,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNKS_SIZE,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": shape.fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if shape.cameras else None,
        "features": shape.features(codecs),
    }
