"""Recordings made for the tests: the same episode as CDR, JSON or protobuf, in every layout an MCAP file may have."""

import base64
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClassesForFiles
from mcap.writer import CompressionType, IndexType, Writer
from mcap_protobuf.schema import build_file_descriptor_set
from mcap_ros2._dynamic import serialize_dynamic

from ray_jobs.ingest.reader import Recorded

NOON = 1_767_614_400_000_000_000  # 2026-01-05 12:00 UTC
SECOND = 1_000_000_000
HZ = 10
_TIME = "=" * 80 + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
_HEADER = "=" * 80 + "\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
ROS = {
    "sensor_msgs/msg/JointState": f"std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n{_HEADER}{_TIME}",
    "sensor_msgs/msg/Image": "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data\n"
    f"{_HEADER}{_TIME}",
    "sensor_msgs/msg/CompressedImage": f"std_msgs/Header header\nstring format\nuint8[] data\n{_HEADER}{_TIME}",
    "foxglove_msgs/msg/CompressedVideo": f"builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n{_TIME}",
    "std_msgs/msg/String": "string data\n",
}
CODECS = {
    "h264": ("libx264", {"preset": "veryfast", "tune": "zerolatency", "x264-params": "threads=1:repeat-headers=1:scenecut=0"}),
    "h265": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=0:repeat-headers=1:pools=none:frame-threads=1"}),
    "av1": ("libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=1:lookahead=0:lp=1"}),
}


@dataclass(frozen=True)
class Said:
    """One message before it is encoded. stamp_ns: the header's, 0 for none."""

    topic: str
    type: str
    log_ns: int
    fields: dict[str, Any]
    stamp_ns: int = 0
    published_ns: int | None = None


@dataclass(frozen=True)
class Layout:
    """How the file is written."""

    encoding: str = "cdr"
    chunk_bytes: int = 8192
    compression: CompressionType = CompressionType.ZSTD
    chunked: bool = True
    indexed: bool = True
    summary: bool = True
    robot: str | None = "arm-9"
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """A recorded episode with its clips' pictures, [frames, h, w, 3], because the clips themselves do not outlive the reader."""

    recorded: Recorded
    pictures: dict[str, np.ndarray]

    @property
    def meta(self) -> Any:
        return self.recorded.episode.meta

    @property
    def streams(self) -> Any:
        return self.recorded.episode.streams


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """[h, w, 3] u8: a bar whose place tells the frame's number."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[:, (number * 3) % (width - 8) :][:, :8] = (250, 200, 30)
    return pixels


@cache
def packets(count: int, codec: str = "h264", gop: int = 5) -> tuple[bytes, ...]:
    """One packet per frame, Annex B or OBU, a keyframe every `gop`.

    In a thread of its own: for root, SVT-AV1 takes the highest real-time priority for the thread that opens it. Processes started from there later
    would have it too, and a Ray head that does starves all other processes of the machine.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_encoded, count, codec, gop).result()


def _encoded(count: int, codec: str, gop: int) -> tuple[bytes, ...]:
    name, options = CODECS[codec]
    encoder: Any = av.CodecContext.create(name, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, HZ), Fraction(HZ)
    encoder.gop_size, encoder.thread_count, encoder.options = gop, 1, options
    if codec == "h264":
        encoder.max_b_frames = 0
    made: list[bytes] = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
        frame.pts = number
        made += [bytes(packet) for packet in encoder.encode(frame)]
    made += [bytes(packet) for packet in encoder.encode(None)]
    assert len(made) == count
    return tuple(made)


def joints(topic: str, at_ns: int, values: list[float], names: tuple[str, ...] = ("a", "b", "c"), lag_ns: int = 3_000_000) -> Said:
    return Said(topic, "sensor_msgs/msg/JointState", at_ns + lag_ns, {"name": list(names), "position": values, "velocity": [], "effort": []}, at_ns, at_ns)


def video(topic: str, at_ns: int, data: bytes, codec: str = "h264") -> Said:
    return Said(topic, "foxglove_msgs/msg/CompressedVideo", at_ns + 3_000_000, {"frame_id": "front", "data": data, "format": codec}, at_ns, at_ns)


def marker(event: str, at_ns: int, **more: Any) -> Said:
    return Said("/episode", "std_msgs/msg/String", at_ns, {"data": json.dumps({"event": event, **more})}, 0, at_ns)


def episode(
    start_ns: int = NOON, steps: int = 20, codec: str = "h264", marked: bool = True, task: str = "pick", seed: int = 0, frames: int | None = None
) -> list[Said]:
    """States, commands and frames side by side at HZ, between two markers."""
    draw = np.random.default_rng(seed)
    said = [marker("start", start_ns - 1, task=task)] if marked else []
    for step, packet in enumerate(packets(steps, codec)):
        at = start_ns + step * SECOND // HZ
        said.append(joints("/joint_states", at, draw.normal(size=3).tolist()))
        said.append(joints("/command", at, draw.normal(size=2).tolist(), ("dx", "dy")))
        if frames is None or step < frames:
            said.append(video("/camera/front", at, packet, codec))
    return said + ([marker("end", start_ns + steps * SECOND // HZ)] if marked else [])


def mcap(said: list[Said], layout: Layout | None = None, **changes: Any) -> bytes:
    """The bytes of one MCAP file."""
    layout = replace(layout or Layout(), **changes)
    sink = io.BytesIO()
    writer = Writer(
        sink,
        chunk_size=layout.chunk_bytes,
        compression=layout.compression,
        use_chunking=layout.chunked,
        index_types=IndexType.ALL if layout.indexed else IndexType.NONE,
        use_statistics=layout.summary,
        repeat_channels=layout.summary,
        repeat_schemas=layout.summary,
        use_summary_offsets=layout.summary,
    )
    writer.start(profile="ros2" if layout.encoding == "cdr" else "")
    if layout.robot or layout.metadata:
        writer.add_metadata("recording", {**({"robot": layout.robot} if layout.robot else {}), **layout.metadata})
    schemas: dict[str, tuple[int, Callable[[Said], bytes]]] = {}
    channels: dict[tuple[str, str], int] = {}
    for message in said:
        if message.type not in schemas:
            schemas[message.type] = _schema(writer, message.type, layout.encoding)
        schema, encode = schemas[message.type]
        where = (message.topic, message.type)
        if where not in channels:
            channels[where] = writer.register_channel(message.topic, layout.encoding, schema)
        published = message.log_ns if message.published_ns is None else message.published_ns
        writer.add_message(channels[where], message.log_ns, encode(message), published)
    writer.finish()
    return sink.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _schema(writer: Writer, type_name: str, encoding: str) -> tuple[int, Callable[[Said], bytes]]:
    if encoding == "json":
        return writer.register_schema(type_name.replace("/msg/", "."), "jsonschema", b"{}"), _json
    if encoding == "protobuf":
        kind = _protobuf(type_name.split("/")[-1])
        data = build_file_descriptor_set(kind).SerializeToString()
        return writer.register_schema(kind.DESCRIPTOR.full_name, "protobuf", data), lambda said: _filled(kind, said).SerializeToString()
    encoder = serialize_dynamic(type_name, ROS.get(type_name, "string data\n"))[type_name]
    return writer.register_schema(type_name, "ros2msg", ROS.get(type_name, "string data\n").encode()), lambda said: encoder(_stamped(said))


def _stamped(said: Said) -> dict[str, Any]:
    stamp = {"sec": said.stamp_ns // SECOND, "nanosec": said.stamp_ns % SECOND}
    extra: dict[str, Any] = {"timestamp": stamp} if "Video" in said.type else {} if "String" in said.type else {"header": {"stamp": stamp, "frame_id": ""}}
    return {**said.fields, **extra}


def _json(said: Said) -> bytes:
    fields = {name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in _stamped(said).items()}
    return json.dumps(fields).encode()


@cache
def _protobuf(name: str) -> Any:
    """A message class with the fields of the Foxglove or ROS type of that name."""
    kinds = FieldDescriptorProto
    shapes = {
        "JointState": [("name", kinds.TYPE_STRING, True), ("position", kinds.TYPE_DOUBLE, True)],
        "CompressedVideo": [("data", kinds.TYPE_BYTES, False), ("format", kinds.TYPE_STRING, False), ("frame_id", kinds.TYPE_STRING, False)],
        "String": [("data", kinds.TYPE_STRING, False)],
    }
    file = FileDescriptorProto(name=f"{name}.proto", package="test", syntax="proto3")
    stamp = file.message_type.add(name=f"{name}Time")
    stamp.field.add(name="seconds", number=1, type=kinds.TYPE_INT64, label=kinds.LABEL_OPTIONAL)
    stamp.field.add(name="nanos", number=2, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    message = file.message_type.add(name=name)
    message.field.add(name="timestamp", number=1, type=kinds.TYPE_MESSAGE, type_name=f".test.{name}Time", label=kinds.LABEL_OPTIONAL)
    for number, (label, kind, many) in enumerate(shapes[name], 2):
        message.field.add(name=label, number=number, type=kind, label=kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClassesForFiles([file.name], pool)[f"test.{name}"]


def _filled(kind: Any, said: Said) -> Any:
    message = kind()
    known = {field.name for field in kind.DESCRIPTOR.fields}
    for name, value in said.fields.items():
        if name not in known:
            continue
        if isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    message.timestamp.seconds, message.timestamp.nanos = divmod(said.stamp_ns, SECOND)
    return message
