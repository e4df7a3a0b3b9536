"""The formats that are read. A new one is a class with the interface of reader.Reader, and its name in this list."""

from ray_jobs.ingest.hdf5_reader import Hdf5Reader
from ray_jobs.ingest.lerobot_reader import LeRobotReader
from ray_jobs.ingest.mcap_reader import McapReader
from ray_jobs.ingest.reader import Reader
from ray_jobs.ingest.ros1_reader import Ros1Reader
from ray_jobs.ingest.rosbag2_reader import Rosbag2Reader
from ray_jobs.seam.model import digest

READERS: tuple[Reader, ...] = (LeRobotReader(), Rosbag2Reader(), McapReader(), Ros1Reader(), Hdf5Reader())
HEAD_BYTES = 64
VERSION = "2"  # raise it when a reader's output changes: everything is then read anew
READERS_DIGEST = digest(VERSION, [reader.name for reader in READERS])[:16]

# First bytes of what people also put into a folder of recordings, and what to do about it.
FOREIGN = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"<mujoco", "a robot's model, and no recording"),
    (b"PAR1", "a Parquet file outside a LeRobot set"),
)
# What else a name tells: part of the path -> reason.
NAMES = {
    ".tfrecord": "a TFRecord shard (RLDS): not read; convert the set to LeRobot",
    "dataset_info.json": "a document of a TensorFlow data set (RLDS): not read; convert the set to LeRobot",
    "features.json": "a document of a TensorFlow data set (RLDS): not read; convert the set to LeRobot",
    ".mp4": "a video without a recording beside it",
    ".mkv": "a video without a recording beside it",
    ".pkl": "a pickle: never opened, because that runs what it holds",
    ".pickle": "a pickle: never opened, because that runs what it holds",
}
NAMED = {".mcap": "an MCAP file", ".bag": "a ROS 1 bag of format 2.0", ".db3": "a SQLite database", ".hdf5": "an HDF5 file", ".h5": "an HDF5 file"}


def foreign_reason(path: str, size: int, head: bytes) -> str:
    """Why an upload that no reader recognises is quarantined."""
    if not size:
        return "an empty file (0 bytes)"
    kind = next((reason for magic, reason in FOREIGN if head.startswith(magic)), None)
    kind = kind or next((reason for part, reason in NAMES.items() if part in path), "an unknown format")
    named = next((what for suffix, what in NAMED.items() if path.endswith(suffix)), None)
    return kind if named is None else f"not {named} although it is named so: {kind}"
