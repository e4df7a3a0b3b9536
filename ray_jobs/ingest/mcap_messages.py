"""Messages of the types that robots record, from CDR, protobuf or JSON, as plain values."""

import base64
import io
import json
import re
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from mcap.exceptions import McapError
from mcap.records import Channel, Schema
from mcap_protobuf.decoder import DecoderFactory as ProtobufDecoders
from mcap_ros2._vendor.rosidl_adapter.parser import InvalidSpecification, InvalidValue
from mcap_ros2.decoder import DecoderFactory as Ros2Decoders
from PIL import Image

ENCODINGS = ("cdr", "protobuf", "json")
# What a message that does not fit its schema raises in the three decoders, and in what is asked of it afterwards.
UNDECODABLE = (
    *(McapError, InvalidSpecification, InvalidValue, DecodeError, struct.error, RecursionError, NotImplementedError),
    *(ValueError, IndexError, KeyError, TypeError, AttributeError, NameError, AssertionError),
)
# What Pillow raises for bytes that are no image, or a broken one. Its UnidentifiedImageError is an OSError.
BROKEN_IMAGE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)

KINDS = {
    "JointState": "joints",
    "JointStates": "joints",
    "Float64MultiArray": "array",
    "Float32MultiArray": "array",
    "JointTrajectory": "trajectory",
    "Image": "image",
    "RawImage": "image",
    "CompressedImage": "compressed",
    "CompressedVideo": "video",
    "String": "text",
}
ACTION_NAME = re.compile(r"command|action|target|cmd|leader")
# ROS encoding -> FFmpeg's name, bytes per pixel; 0: packed 4:2:2, two bytes per pixel
LAYOUTS = {
    "rgb8": ("rgb24", 3),
    "bgr8": ("bgr24", 3),
    "8uc3": ("bgr24", 3),
    "rgba8": ("rgba", 4),
    "bgra8": ("bgra", 4),
    "mono8": ("gray", 1),
    "8uc1": ("gray", 1),
    "yuv422": ("uyvy422", 2),
    "uyvy": ("uyvy422", 2),
    "yuv422_yuy2": ("yuyv422", 2),
    "yuyv": ("yuyv422", 2),
}


def kind_of(schema: Schema | None) -> str | None:
    """joints, array, trajectory, image, compressed, video or text, by the type's own name, whatever its package."""
    return KINDS.get(re.split(r"[/.]", schema.name)[-1]) if schema is not None else None


class Decoders:
    """Decoders of one file's channels."""

    def __init__(self) -> None:
        self._factories = (Ros2Decoders(), ProtobufDecoders())

    def find(self, channel: Channel, schema: Schema | None) -> Callable[[bytes], Any]:
        """Raises one of UNDECODABLE with a reason where the channel's encoding or schema is not understood."""
        if channel.message_encoding == "json":
            return lambda data: json.loads(data, object_hook=lambda fields: SimpleNamespace(**fields))
        for factory in self._factories:
            decoder = factory.decoder_for(channel.message_encoding, schema)
            if decoder is not None:
                return decoder
        if channel.message_encoding in ENCODINGS:
            raise ValueError(f"schema encoding {(schema.encoding if schema else '') or 'none'} of {channel.topic} is not read")
        raise ValueError(f"message encoding {channel.message_encoding or 'none'} of {channel.topic} is not read")


def stamp_ns(message: Any, published_ns: int) -> int:
    """header.stamp (ROS) or timestamp (Foxglove) in ns where it is set, else the publish time."""
    header = getattr(message, "header", None)
    stamp = getattr(header, "stamp", None) if header is not None else getattr(message, "timestamp", None)
    if stamp is None:
        return published_ns
    seconds = next((getattr(stamp, name) for name in ("sec", "seconds", "secs") if hasattr(stamp, name)), 0)
    nanos = next((getattr(stamp, name) for name in ("nanosec", "nanos", "nsec", "nsecs") if hasattr(stamp, name)), 0)
    value = int(seconds) * 1_000_000_000 + int(nanos)
    return value if 0 < value < 1 << 63 else published_ns


def vector(kind: str, message: Any) -> tuple[tuple[str, ...], list[float]] | None:
    """(names, values) of a joint, array or trajectory message; None where it carries no positions."""
    if kind == "joints":
        joints = getattr(message, "joints", None)
        if joints is not None:  # foxglove.JointStates
            return tuple(str(joint.name) for joint in joints), [float(joint.position) for joint in joints]
        names, values = tuple(str(name) for name in message.name), [float(value) for value in message.position]
        names = names if len(names) == len(values) else ()
    elif kind == "trajectory":
        points = list(message.points)
        values = [float(value) for value in points[0].positions] if points else []
        names = tuple(str(name) for name in message.joint_names)
        names = names if len(names) == len(values) else ()
    else:
        names, values = (), [float(value) for value in message.data]
    return (names, values) if values else None


def payload(message: Any) -> bytes:
    """The bytes of an image or video message; JSON carries them in base64."""
    data = message.data
    return base64.b64decode(data, validate=True) if isinstance(data, str) else bytes(data)


def text(message: Any) -> dict[str, Any]:
    """An episode marker: a string of JSON, a bare word, or an object with the fields themselves."""
    raw = getattr(message, "data", None)
    if raw is None:
        return dict(vars(message)) if isinstance(message, SimpleNamespace) else {}
    try:
        fields = json.loads(raw)
    except ValueError:
        fields = {"event": str(raw).strip().lower()}
    return fields if isinstance(fields, dict) else {"event": str(fields)}


def pixels(kind: str, message: Any, data: bytes) -> tuple[np.ndarray, str]:
    """([h, w, c] or [h, w] u8, FFmpeg layout) of an image message. Raises one of UNDECODABLE or BROKEN_IMAGE."""
    if kind == "compressed":
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), "rgb24"
    encoding = str(message.encoding).lower()
    if encoding not in LAYOUTS:
        raise ValueError(f"image encoding {message.encoding} is no colour or grey picture")
    layout, width = LAYOUTS[encoding]
    rows = np.frombuffer(data, np.uint8, count=int(message.height) * int(message.step)).reshape(int(message.height), int(message.step))
    rows = rows[:, : int(message.width) * width]
    return (rows if width == 1 else rows.reshape(int(message.height), int(message.width), width)), layout
