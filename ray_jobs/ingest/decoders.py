"""Decoders of one recording's messages: CDR, ROS 1, protobuf and JSON, by the definitions that the recording carries."""

import json
import re
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

from google.protobuf.message import DecodeError
from mcap.exceptions import McapError
from mcap.records import Channel, Schema
from mcap_protobuf.decoder import DecoderFactory as ProtobufDecoders
from mcap_ros2._vendor.rosidl_adapter.parser import InvalidSpecification, InvalidValue
from mcap_ros2.decoder import DecoderFactory as Ros2Decoders
from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ray_jobs.ingest.values import UNREADABLE
from ray_jobs.seam.configs import Limits

ENCODINGS = ("cdr", "ros1", "protobuf", "json")
# What a message that does not fit its schema raises in the decoders, and in what is asked of it afterwards.
UNDECODABLE = (*UNREADABLE, McapError, InvalidSpecification, InvalidValue, DecodeError, SerdeError, TypesysError, SyntaxError)
# rosbags unrolls arrays of messages into code, so that one line of a definition could fill the memory.
LARGEST_FIXED_ARRAY = 10_000
# Where a bag carries no definitions (rosbag2 before Iron), a type is looked up in these, the newest first.
DISTRIBUTIONS = (Stores.ROS2_JAZZY, Stores.ROS2_HUMBLE, Stores.ROS2_GALACTIC, Stores.ROS2_FOXY)


class Decoders:
    """Decoders of one recording's channels."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._factories = (Ros2Decoders(), ProtobufDecoders())

    def find(self, channel: Channel, schema: Schema | None) -> Callable[[bytes], Any]:
        """Raises one of UNDECODABLE with a reason where the channel's encoding or schema is not understood."""
        if schema is not None and len(schema.data) > self._limits.definition_kb << 10:
            raise ValueError(f"the definition of {channel.topic} has {len(schema.data)} bytes, more than limits.definition_kb ({self._limits.definition_kb})")
        if channel.message_encoding == "json":
            return lambda data: json.loads(data, object_hook=lambda fields: SimpleNamespace(**fields))
        if schema is not None and (channel.message_encoding, schema.encoding) in (("ros1", "ros1msg"), ("cdr", "ros2idl")):
            return _generated(schema)
        for factory in self._factories:
            decoder = factory.decoder_for(channel.message_encoding, schema)
            if decoder is not None:
                return decoder
        if channel.message_encoding in ENCODINGS:
            raise ValueError(f"schema encoding {(schema.encoding if schema else '') or 'none'} of {channel.topic} is not read")
        raise ValueError(f"message encoding {channel.message_encoding or 'none'} of {channel.topic} is not read")


def _generated(schema: Schema) -> Callable[[bytes], Any]:
    """A decoder that rosbags generates from a ROS 1 or IDL definition. Its names come from the library's own grammar."""
    ros1 = schema.encoding == "ros1msg"
    text = schema.data.decode("utf-8", "replace")
    name = _full_name(schema.name)
    if any(int(size) > LARGEST_FIXED_ARRAY for size in re.findall(r"[\[,]\s*(\d{1,12})\s*[\]>]", text)):
        raise ValueError(f"the definition of {schema.name} has an array of more than {LARGEST_FIXED_ARRAY} fixed elements")
    types = get_types_from_msg(text, name) if ros1 else _idl_types(text)
    for _, fields in types.values():
        for _, (kind, rest) in fields:
            inner = rest[0] if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE) else None
            if inner is not None and inner[0] == Nodetype.NAME and not types.get(str(inner[1]), ((), (None,)))[1]:
                raise ValueError(f"the definition of {schema.name} has a list of messages without fields")
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    decode = store.deserialize_ros1 if ros1 else store.deserialize_cdr

    def decoded(data: bytes) -> Any:
        store.max_sequence_length = max(1, len(data))  # no list has more elements than the message has bytes
        return decode(data, name)

    store.get_msgdef(name)
    return decoded


def _idl_types(text: str) -> Typesdict:
    """Types of an IDL definition, or of several behind lines of = and of "IDL: name", as rosbag2 writes them."""
    types: Typesdict = {}
    for part in re.split(r"^={80}\n", text, flags=re.MULTILINE):
        types |= get_types_from_idl(re.sub(r"\AIDL: .*\n", "", part)) if part.strip() else {}
    return types


def _full_name(name: str) -> str:
    """pkg/msg/Type of the two forms in which ROS writes a type."""
    parts = name.split("/")
    return name if len(parts) != 2 else f"{parts[0]}/msg/{parts[1]}"


def known_definition(type_name: str) -> bytes | None:
    """The ros2msg definition of a type that ROS 2 itself ships, or None."""
    for distribution in DISTRIBUTIONS:
        store = _distribution(distribution)
        if type_name in store.fielddefs:
            return store.generate_msgdef(type_name, ros_version=2)[0].encode()
    return None


@cache
def _distribution(name: Stores) -> Typestore:
    return get_typestore(name)
