"""Messages of the types that robots record, as plain values."""

import base64
import io
import json
import re
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
from mcap.records import Schema
from PIL import Image

from ray_jobs.ingest.clips import checked_size
from ray_jobs.ingest.log import LATEST_NS
from ray_jobs.seam.configs import Limits

# What is raised where a message is not what its type promises. (A decoder's own errors stand in decoders.UNDECODABLE.)
UNREADABLE = (
    struct.error,
    RecursionError,
    NotImplementedError,
    OverflowError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    NameError,
    AssertionError,
)
# What Pillow raises for bytes that are no image, or a broken one. Its UnidentifiedImageError is an OSError.
BROKEN_IMAGE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)

KINDS = {
    "JointState": "joints",
    "JointStates": "joints",
    "Float64MultiArray": "array",
    "Float32MultiArray": "array",
    "JointTrajectory": "trajectory",
    "Odometry": "odometry",
    "Twist": "twist",
    "TwistStamped": "twist",
    "PoseStamped": "pose",
    "PoseInFrame": "pose",
    "Image": "image",
    "RawImage": "image",
    "CompressedImage": "compressed",
    "CompressedVideo": "video",
    "FFMPEGPacket": "video",  # ffmpeg_image_transport
    "String": "text",
}
VECTORS = ("joints", "array", "trajectory", "odometry", "twist", "pose", "planar", "custom")
# Fields by which a type that nobody ships is understood: names beside positions, or positions alone.
NAME_FIELDS = ("name", "names", "joint_names")
VALUE_FIELDS = ("position", "positions", "cmd", "q", "angles", "joint_positions", "joint_angles", "actual_position", "actual_q")
UNNAMED_FIELDS = ("q", "joint_positions", "joint_angles", "actual_position", "actual_q")
PLANAR = ("x", "y", "theta")
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
SPEED = ("vx", "vy", "vz", "wx", "wy", "wz")
# ROS encoding -> FFmpeg's name, bytes per pixel
LAYOUTS = {
    "rgb8": ("rgb24", 3),
    "bgr8": ("bgr24", 3),
    "8uc3": ("bgr24", 3),
    "rgba8": ("rgba", 4),
    "bgra8": ("bgra", 4),
    "8uc4": ("bgra", 4),
    "mono8": ("gray", 1),
    "8uc1": ("gray", 1),
    "yuv422": ("uyvy422", 2),
    "uyvy": ("uyvy422", 2),
    "yuv422_yuy2": ("yuyv422", 2),
    "yuyv": ("yuyv422", 2),
    "bayer_rggb8": ("bayer_rggb8", 1),
    "bayer_bggr8": ("bayer_bggr8", 1),
    "bayer_gbrg8": ("bayer_gbrg8", 1),
    "bayer_grbg8": ("bayer_grbg8", 1),
}
DEPTHS = {"16uc1": "<u2", "mono16": "<u2", "32fc1": "<f4"}
MILLIMETRES = 1000.0  # per metre, in which 32FC1 counts
DEPTH_HEAD = struct.Struct("<iff")  # compressed_depth_image_transport's ConfigHeader: format, and A, B of depth = A / (value - B)


def kind_of(schema: Schema | None) -> str | None:
    """One of VECTORS, image, compressed, video or text: by the type's own name, whatever its package, else by its fields."""
    if schema is None:
        return None
    kind = KINDS.get(re.split(r"[/.]", schema.name)[-1])
    return kind or (_kind_by_fields(schema.data) if schema.encoding in ("ros1msg", "ros2msg") else None)


def _kind_by_fields(definition: bytes) -> str | None:
    own = definition.decode("utf-8", "replace").split("\n===")[0]
    fields = {match[2]: match[1] for match in re.finditer(r"^[ \t]*([\w/]+(?:\[[<=\d]*\])?)[ \t]+(\w+)[ \t]*(?:#.*)?$", own, re.MULTILINE)}
    if any(_is_number(fields.get(name, "")) for name in UNNAMED_FIELDS):
        return "custom"
    if any(fields.get(name, "").startswith("string") for name in NAME_FIELDS) and any(_is_number(fields.get(name, "")) for name in VALUE_FIELDS):
        return "custom"
    return "planar" if all(_is_number(fields.get(name, "")) for name in PLANAR) else None


def _is_number(type_name: str) -> bool:
    return type_name.startswith("float")


def stamp_ns(message: Any, published_ns: int) -> int:
    """header.stamp (ROS) or timestamp (Foxglove) in ns where it is set, else the publish time."""
    header = getattr(message, "header", None)
    stamp = getattr(header, "stamp", None) if header is not None else getattr(message, "timestamp", None)
    if stamp is None:
        return published_ns
    seconds = next((getattr(stamp, name) for name in ("sec", "seconds", "secs") if hasattr(stamp, name)), 0)
    nanos = next((getattr(stamp, name) for name in ("nanosec", "nanos", "nsec", "nsecs") if hasattr(stamp, name)), 0)
    value = int(seconds) * 1_000_000_000 + int(nanos)
    return value if 0 < value < LATEST_NS else published_ns


def vector(kind: str, message: Any) -> tuple[tuple[str, ...], list[float]] | None:
    """(names, values) of a message of one of VECTORS; None where it carries no positions."""
    names: tuple[str, ...] = ()
    if kind == "joints":
        joints = getattr(message, "joints", None)
        if joints is not None:  # foxglove.JointStates
            return tuple(str(joint.name) for joint in joints), [float(joint.position) for joint in joints]
        names, values = _strings(message.name), _floats(message.position)
    elif kind == "trajectory":
        points = list(message.points)
        names, values = _strings(message.joint_names), _floats(points[0].positions) if points else []
    elif kind == "twist":
        names, values = SPEED, _speed(getattr(message, "twist", message))
    elif kind == "odometry":
        names, values = POSE + SPEED, _pose(message.pose.pose) + _speed(message.twist.twist)
    elif kind == "pose":
        names, values = POSE, _pose(message.pose)
    elif kind == "planar":
        names, values = PLANAR, [float(getattr(message, name)) for name in PLANAR]
    elif kind == "custom":
        named = next((getattr(message, name) for name in NAME_FIELDS if hasattr(message, name)), ())
        names = _strings([named] if isinstance(named, str) else named)
        values = _floats(next(getattr(message, name) for name in VALUE_FIELDS if hasattr(message, name)))
    else:
        values = _floats(message.data)
    return (names if len(names) == len(values) and len(set(names)) == len(names) else (), values) if values else None


def _strings(found: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in found)


def _floats(found: Any) -> list[float]:
    return [float(value) for value in found] if np.ndim(found) else [float(found)]


def _pose(pose: Any) -> list[float]:
    at, turned = pose.position, pose.orientation
    return [float(value) for value in (at.x, at.y, at.z, turned.x, turned.y, turned.z, turned.w)]


def _speed(twist: Any) -> list[float]:
    return [float(value) for value in (twist.linear.x, twist.linear.y, twist.linear.z, twist.angular.x, twist.angular.y, twist.angular.z)]


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


def is_depth(kind: str, message: Any) -> bool:
    """Whether an image message measures distance."""
    label = str(getattr(message, "encoding" if kind == "image" else "format", "")).lower()
    return "compresseddepth" in label or label.split(";")[0].strip() in DEPTHS


def picture(data: bytes, limits: Limits) -> Image.Image:
    """A compressed picture, opened and not decoded. Raises one of BROKEN_IMAGE, and ValueError where it is too large."""
    image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "BMP", "TIFF"))
    checked_size(image.width, image.height, limits)
    return image


def pixels(kind: str, message: Any, data: bytes, limits: Limits) -> tuple[np.ndarray, str]:
    """([h, w, c] or [h, w] u8, FFmpeg layout) of an image message. Raises one of UNREADABLE or BROKEN_IMAGE."""
    if kind == "compressed":
        return np.asarray(picture(data, limits).convert("RGB")), "rgb24"
    encoding = str(message.encoding).lower()
    if encoding not in LAYOUTS:
        raise ValueError(f"image encoding {message.encoding} is no colour, grey or depth picture")
    layout, width = LAYOUTS[encoding]
    rows = _rows(message, data, np.dtype(np.uint8), limits)[:, : int(message.width) * width]
    found = rows if width == 1 else rows.reshape(int(message.height), int(message.width), width)
    if layout == "uyvy422":  # PyAV takes the other order alone
        return found[:, :, ::-1], "yuyv422"
    return found, layout


def _rows(message: Any, data: bytes, kind: np.dtype, limits: Limits) -> np.ndarray:
    height, width, step = int(message.height), int(message.width), int(message.step)
    checked_size(width, height, limits)
    step = step or len(data) // max(height, 1)
    return np.frombuffer(data, np.uint8, count=height * step).reshape(height, step)[:, : step // kind.itemsize * kind.itemsize].view(kind)


def depth(kind: str, message: Any, data: bytes, limits: Limits) -> np.ndarray:
    """[h, w] u16, millimetres (what 16UC1 counts, REP 118), 0 where nothing was measured.

    32FC1 is rounded to millimetres. Raises one of UNREADABLE or BROKEN_IMAGE.
    """
    if kind == "image":
        stored = np.dtype(DEPTHS[str(message.encoding).lower()])
        stored = stored.newbyteorder(">") if getattr(message, "is_bigendian", 0) else stored
        return millimetres(_rows(message, data, stored, limits)[:, : int(message.width)])
    metres = str(message.format).lower().startswith("32fc1")
    if "compresseddepth" not in str(message.format).lower():
        return millimetres(np.asarray(picture(data, limits)))
    _, a, b = DEPTH_HEAD.unpack_from(data)
    found = np.asarray(picture(data[DEPTH_HEAD.size :], limits))
    if not metres:
        return millimetres(found)
    coded = found.astype(np.float32)
    return millimetres(np.where(coded > 0, a / np.maximum(coded - b, 1e-6), 0.0).astype(np.float32))


def millimetres(found: np.ndarray) -> np.ndarray:
    if found.ndim != 2:
        raise ValueError(f"a depth picture of {found.ndim} dimensions")
    if np.issubdtype(found.dtype, np.floating):
        with np.errstate(invalid="ignore", over="ignore"):
            found = np.clip(np.nan_to_num(np.asarray(found, np.float32) * MILLIMETRES, nan=0.0, posinf=0.0, neginf=0.0), 0, 65535).round()
    return found.astype(np.uint16)
