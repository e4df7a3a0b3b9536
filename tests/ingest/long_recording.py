"""`python -m tests.ingest.long_recording FOLDER MEGABYTES`: read a long recording in this process, print the growth of its peak memory."""

import json
import resource
import sys
from pathlib import Path

import numpy as np
from mcap.writer import CompressionType, Writer
from mcap_ros2._dynamic import serialize_dynamic

from ray_jobs.ingest.gather import gather
from ray_jobs.ingest.job import read_upload
from ray_jobs.ingest.mcap_reader import McapReader
from ray_jobs.seam.configs import IngestSettings
from ray_jobs.seam.store import Store, StoreConfig
from tests.ingest.recorded import NOON, ROS, SECOND, packets

PACKET_BYTES = 100_000


def record(path: Path, megabytes: int) -> int:
    """One episode of 30 Hz video in large packets and 300 Hz joint states; returns the number of frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keyframe = packets(1)[0]
    filler = np.random.default_rng(0).integers(1, 255, PACKET_BYTES, np.uint8).tobytes()  # no start code, so one slice
    frames = megabytes * 1_000_000 // PACKET_BYTES
    video, state = "foxglove_msgs/msg/CompressedVideo", "sensor_msgs/msg/JointState"
    with open(path, "wb") as sink:
        writer = Writer(sink, compression=CompressionType.NONE)
        writer.start(profile="ros2")
        channels = [writer.register_channel(topic, "cdr", writer.register_schema(kind, "ros2msg", ROS[kind].encode())) for topic, kind in
                    (("/camera/front", video), ("/joint_states", state))]  # fmt: skip
        encode = [serialize_dynamic(kind, ROS[kind])[kind] for kind in (video, state)]
        names, values = ["a", "b", "c"], [0.1, 0.2, 0.3]
        for frame in range(frames):
            at = NOON + frame * SECOND // 30
            stamp = {"sec": at // SECOND, "nanosec": at % SECOND}
            data = keyframe if frame % 30 == 0 else b"\0\0\0\1\x41" + filler
            writer.add_message(channels[0], at, encode[0]({"timestamp": stamp, "frame_id": "", "data": data, "format": "h264"}), at)
            joints = encode[1]({"header": {"stamp": stamp, "frame_id": ""}, "name": names, "position": values, "velocity": [], "effort": []})
            for fast in range(10):
                writer.add_message(channels[1], at + fast, joints, at + fast)
        writer.finish()
    return frames


def main() -> None:
    """Prints how the peak grew while the long recording was read, and while it was read and stored."""
    folder, megabytes = Path(sys.argv[1]), int(sys.argv[2])
    raw, store = Store(StoreConfig.local(folder / "raw")), Store(StoreConfig.local(folder / "store"))
    record(folder / "raw/short.mcap", 5)
    frames = record(folder / "raw/long.mcap", megabytes)
    uploads = gather(raw.list())
    list(McapReader().read(raw, uploads["short.mcap"], IngestSettings()))
    before = peak_bytes()
    for _ in McapReader().read(raw, uploads["long.mcap"], IngestSettings()):
        read = peak_bytes()
    upload = uploads["long.mcap"]
    row = {"path": upload.path, "digest": upload.digest, "robot": "r", "days": ["2026-01-05"], "format": "mcap", "modified_ns": upload.modified_ns}
    (found,) = read_upload(store, raw, row, IngestSettings())
    growth = {"reading": read - before, "storing": peak_bytes() - before}
    print(json.dumps({"growth_bytes": growth, "frames": found["frames"], "recorded": frames, "states": found["states"]}))


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
