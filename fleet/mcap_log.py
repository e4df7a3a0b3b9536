"""Episodes as a robot's logger writes them: MCAP, profile ros2, CDR messages, full message definitions, H.264 in Annex B.

Every message has a publish time (its header's stamp) and a log time some milliseconds later. At each control step of 0.1 s the joint states and the frame
are stamped together, the command that answers them 3 to 5 ms later: nearest in time puts row i of all three side by side.
"""

import io
import json
import struct
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from mcap.writer import CompressionType, Writer

from fleet.arm import ACTION_NAMES, CONTROL_HZ, STATE_NAMES, TASK
from fleet.expert import Demonstration

JOINTS, COMMAND, CAMERA, EPISODE = "/joint_states", "/command", "/camera/front", "/episode"
KEYFRAME_EVERY = 10
CHUNK_BYTES = 8 * 1024  # small, so that a crash costs little
MS = 1_000_000

_TIME = "================================================================================\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
_HEADER = (
    "================================================================================\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
)
SCHEMAS = {
    "sensor_msgs/msg/JointState": f"std_msgs/Header header\n\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n{_HEADER}{_TIME}",
    "foxglove_msgs/msg/CompressedVideo": f"builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n{_TIME}",
    "std_msgs/msg/String": "string data\n",
}
TOPICS = {
    JOINTS: "sensor_msgs/msg/JointState",
    COMMAND: "sensor_msgs/msg/JointState",
    CAMERA: "foxglove_msgs/msg/CompressedVideo",
    EPISODE: "std_msgs/msg/String",
}


class Cdr:
    """Little-endian XCDR1, as ROS 2 writes it: each value aligned to its own size, counted from after the 4-byte header."""

    def __init__(self) -> None:
        self.buffer = bytearray(b"\x00\x01\x00\x00")

    def _align(self, size: int) -> None:
        self.buffer += bytes(-(len(self.buffer) - 4) % size)

    def time(self, stamp_ns: int) -> "Cdr":
        self._align(4)
        self.buffer += struct.pack("<iI", stamp_ns // 10**9, stamp_ns % 10**9)
        return self

    def octets(self, data: bytes) -> "Cdr":
        self._align(4)
        self.buffer += struct.pack("<I", len(data)) + data
        return self

    def string(self, text: str) -> "Cdr":
        return self.octets(text.encode() + b"\x00")

    def strings(self, texts: tuple[str, ...]) -> "Cdr":
        self._align(4)
        self.buffer += struct.pack("<I", len(texts))
        for text in texts:
            self.string(text)
        return self

    def doubles(self, values: np.ndarray) -> "Cdr":
        self._align(4)
        self.buffer += struct.pack("<I", len(values))
        if len(values):
            self._align(8)
            self.buffer += np.asarray(values, "<f8").tobytes()
        return self


def joint_state(stamp_ns: int, frame_id: str, names: tuple[str, ...], position: np.ndarray) -> bytes:
    nothing = np.zeros(0)
    return bytes(Cdr().time(stamp_ns).string(frame_id).strings(names).doubles(position).doubles(nothing).doubles(nothing).buffer)


def encode_h264(frames: np.ndarray) -> list[bytes]:
    """One Annex B access unit per frame of uint8 [n, h, w, 3] RGB: no B-frames, a keyframe with SPS and PPS every KEYFRAME_EVERY."""
    codec = av.CodecContext.create("libx264", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.height, codec.width = frames.shape[1:3]
    codec.pix_fmt = "yuv420p"
    codec.time_base = Fraction(1, CONTROL_HZ)
    codec.framerate = Fraction(CONTROL_HZ)
    codec.gop_size, codec.max_b_frames, codec.thread_count = KEYFRAME_EVERY, 0, 1
    # One thread: the same frames give the same bytes. Quality high enough that small coloured things keep their chroma.
    codec.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "18", "x264-params": f"threads=1:keyint={KEYFRAME_EVERY}:scenecut=0:repeat-headers=1"}
    packets = []
    for index, pixels in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        picture.pts = index
        packets += [bytes(packet) for packet in codec.encode(picture)]
    return packets + [bytes(packet) for packet in codec.encode(None)]


@dataclass(frozen=True)
class Take:
    """One episode on the timeline of its robot: when it began (ns since 1970, UTC) and how long a logger held its messages back."""

    number: int
    start_ns: int
    demonstration: Demonstration
    logged_later_ns: int = 0

    @property
    def end_ns(self) -> int:
        return self.start_ns + int(self.demonstration.stamps_ns.max()) + 1000 * MS // CONTROL_HZ


@dataclass(frozen=True)
class _Message:
    arrival_ns: int  # orders the file; the clock that stamps may have been stepped
    topic: str
    publish_ns: int
    log_ns: int
    data: bytes


def _messages(take: Take, draw: np.random.Generator) -> list[_Message]:
    demo, count = take.demonstration, len(take.demonstration.stamps_ns)
    jitter = draw.uniform(-1, 1, (count, 3)) * MS + [0, 0, 4 * MS]
    delay = np.minimum(2 + draw.exponential(2.0, (count + 2, 4)), 18) * MS
    arrived = np.ones(count, bool) if demo.lost is None else ~demo.lost
    packets = iter(encode_h264(demo.frames[arrived]))
    found = []

    def add(topic: str, true_ns: int, stepped_ns: int, delay_ns: float, data: bytes) -> None:
        log = true_ns + stepped_ns + int(delay_ns) + take.logged_later_ns
        found.append(_Message(true_ns + int(delay_ns), topic, true_ns + stepped_ns, log, data))

    def mark(event: str, offset_ns: int, stepped_ns: int, delay_ns: float) -> None:
        content = {"event": event, "episode": take.number, "task": TASK}
        add(EPISODE, take.start_ns + offset_ns, stepped_ns, delay_ns, bytes(Cdr().string(json.dumps(content)).buffer))

    mark("start", -20 * MS, 0, delay[count, 3])
    stepped = 0
    for row in range(count):
        offset = row * (1000 * MS // CONTROL_HZ)
        stepped = int(demo.stamps_ns[row]) - offset
        moments = [take.start_ns + offset + int(late) for late in jitter[row]]
        stamps = [moment + stepped for moment in moments]
        add(JOINTS, moments[0], stepped, delay[row, 0], joint_state(stamps[0], "base", STATE_NAMES, demo.states[row]))
        if arrived[row]:
            frame = Cdr().time(stamps[1]).string("front").octets(next(packets)).string("h264")
            add(CAMERA, moments[1], stepped, delay[row, 1], bytes(frame.buffer))
        add(COMMAND, moments[2], stepped, delay[row, 2], joint_state(stamps[2], "grasp", ACTION_NAMES, demo.actions[row]))
    mark("end", count * (1000 * MS // CONTROL_HZ), stepped, delay[count + 1, 3])
    return sorted(found, key=lambda message: message.arrival_ns)


def write_mcap(robot: str, takes: list[Take], draw: np.random.Generator) -> tuple[bytes, list[tuple[int, int]]]:
    """The bytes of one recording, and for each take where in them its first chunk begins and its last one ends.

    The same takes and an equal `draw` give the same bytes.
    """
    output = io.BytesIO()
    writer = Writer(output, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
    writer.start(profile="ros2", library="flywheel fleet logger 1")
    # First, so that a truncated file still says whose it is.
    writer.add_metadata("recording", {"robot": robot, "logger": "flywheel fleet logger 1", "clock": "utc"})
    schemas = {name: writer.register_schema(name, "ros2msg", text.encode()) for name, text in SCHEMAS.items()}
    channels = {topic: writer.register_channel(topic, "cdr", schemas[kind]) for topic, kind in TOPICS.items()}
    sequence: Counter[str] = Counter()
    spans = []
    for take in takes:
        begin = output.tell()
        for message in _messages(take, draw):
            sequence[message.topic] += 1
            writer.add_message(channels[message.topic], message.log_ns, message.data, message.publish_ns, sequence[message.topic])
        writer.flush()
        spans.append((begin, output.tell()))
    writer.finish()
    return output.getvalue(), spans
