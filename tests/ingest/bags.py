"""The recordings of recorded.py as ROS 1 and ROS 2 bags, written by the rosbags library."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from tests.ingest.recorded import SECOND, Said

ROBOT_COMMAND = "acme_msgs/msg/GroupCommand"  # a type that nobody ships
DEFINITIONS = {
    ROBOT_COMMAND: "string[] joint_names\nfloat32[] cmd\n",
    "foxglove_msgs/msg/CompressedVideo": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
}
EMPTY: dict[str, Any] = {"string": "", "bool": False}


def typestore(base: Stores) -> Typestore:
    store = get_typestore(base)
    for name, text in DEFINITIONS.items():
        store.register(get_types_from_msg(text, name))
    return store


def built(store: Typestore, name: str, fields: dict[str, Any]) -> Any:
    """A message of the type, what is not given is empty."""
    return store.types[name](**{field: _value(store, kind, fields.get(field)) for field, kind in store.fielddefs[name][1]})


def _value(store: Typestore, kind: Any, given: Any) -> Any:
    node, rest = kind
    if node == Nodetype.NAME:
        return built(store, rest, given or {})
    if node == Nodetype.BASE:
        return given if given is not None else EMPTY.get(rest[0], 0)
    (inner, what), count = rest
    if inner == Nodetype.NAME:
        return [built(store, what, each) for each in given or ()]
    if what[0] == "string":
        return list(given or ())
    if isinstance(given, bytes):
        return np.frombuffer(given, np.uint8)
    return np.array(given if given is not None else [0] * (count if node == Nodetype.ARRAY else 0), dtype=what[0])


def _stamped(said: Said) -> dict[str, Any]:
    stamp = {"sec": said.stamp_ns // SECOND, "nanosec": said.stamp_ns % SECOND}
    return {"header": {"stamp": stamp}, "timestamp": stamp, **said.fields}


def ros1(path: Path, said: list[Said], compression: Literal["bz2", "lz4"] | None = None, chunk_bytes: int = 4096) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    store = typestore(Stores.ROS1_NOETIC)
    writer = Ros1Writer(path)
    if compression:
        writer.set_compression(Ros1Writer.CompressionFormat[compression.upper()])
    writer.chunk_threshold = chunk_bytes
    with writer:
        known = {}
        for message in said:
            if message.topic not in known:
                known[message.topic] = writer.add_connection(message.topic, message.type, typestore=store)
            data = store.serialize_ros1(built(store, message.type, _stamped(message)), message.type)
            writer.write(known[message.topic], message.log_ns, data)
    return path


def ros2(path: Path, said: list[Said], storage: StoragePlugin = StoragePlugin.SQLITE3, compression: CompressionMode = CompressionMode.NONE) -> Path:
    """A folder of metadata.yaml and one storage file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = typestore(Stores.ROS2_HUMBLE)
    writer = Ros2Writer(path, version=9, storage_plugin=storage)
    if compression is not CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        known = {}
        for message in said:
            if message.topic not in known:
                known[message.topic] = writer.add_connection(message.topic, message.type, typestore=store)
            data = store.serialize_cdr(built(store, message.type, _stamped(message)), message.type)
            writer.write(known[message.topic], message.log_ns, bytes(data))
    return path


def twist(topic: str, at_ns: int, forward: float, turn: float) -> Said:
    return Said(topic, "geometry_msgs/msg/Twist", at_ns, {"linear": {"x": forward}, "angular": {"z": turn}})


def odometry(topic: str, at_ns: int, x: float, quaternion: tuple[float, float, float, float] = (0, 0, 0, 1)) -> Said:
    turned = dict(zip("xyzw", quaternion, strict=True))
    pose = {"pose": {"position": {"x": x}, "orientation": turned}, "covariance": [0.0] * 36}
    return Said(topic, "nav_msgs/msg/Odometry", at_ns, {"pose": pose, "twist": {"twist": {"linear": {"x": 1.0}}, "covariance": [0.0] * 36}}, at_ns)
