"""The formats that are read. A new one is a class with the interface of reader.Reader, and its name in this list."""

from ray_jobs.ingest.lerobot_reader import LeRobotReader
from ray_jobs.ingest.mcap_reader import McapReader
from ray_jobs.ingest.reader import Reader

READERS: tuple[Reader, ...] = (LeRobotReader(), McapReader())
HEAD_BYTES = 64

# First bytes of what people also put into a folder of recordings, and what to do about it.
FOREIGN = (
    (b"#ROSBAG", "a ROS 1 bag: convert it to MCAP (mcap convert)"),
    (b"SQLite format 3", "a ROS 2 bag in SQLite: convert it to MCAP (ros2 bag convert)"),
    (b"\x89HDF", "an HDF5 file: no reader for it yet"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"PAR1", "a Parquet file outside a LeRobot set"),
)
SUFFIXES = {".tfrecord": "a TFRecord shard: no reader for it yet"}


def foreign_reason(path: str, size: int, head: bytes) -> str:
    """Why an upload that no reader recognises is quarantined."""
    if not size:
        return "an empty file (0 bytes)"
    kind = next((reason for magic, reason in FOREIGN if head.startswith(magic)), None)
    kind = kind or next((reason for suffix, reason in SUFFIXES.items() if suffix in path), "an unknown format")
    if path.endswith(".mcap"):
        return f"not an MCAP file although it is named so: {kind if head[:1] else 'nothing in it'}"
    return kind
