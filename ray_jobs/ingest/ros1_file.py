"""ROS 1 bags (format 2.0, http://wiki.ros.org/Bags/Format/2.0) at the level of records: everything that can still be read.

The reader of the rosbags library refuses a bag without its index and stops at the first damage, which is how a recorder
that was switched off leaves one; so records are walked here, and the library decodes what the messages hold.
"""

import bz2
import heapq
import io
import struct
from collections.abc import Iterator
from typing import IO

import lz4.frame
from mcap.records import Channel, Message, Schema

from ray_jobs.ingest.log import Record, Survey
from ray_jobs.seam.configs import Limits
from ray_jobs.seam.errors import DataError

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG, INDEX, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 4, 5, 6, 7
LARGEST_HEADER = 1 << 20
PEEK_BYTES = 16 << 20  # unpacked at most, where there is no index
DAMAGE = (struct.error, ValueError, KeyError, RuntimeError, OSError, EOFError)
Fields = dict[bytes, bytes]


def _fields(raw: bytes) -> Fields:
    """Raises one of DAMAGE."""
    found, at = {}, 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        name, equals, value = raw[at + 4 : at + 4 + length].partition(b"=")
        if not equals or at + 4 + length > len(raw):
            raise ValueError("a header's field cannot be read")
        found[name] = value
        at += 4 + length
    return found


def _u32(fields: Fields, name: bytes) -> int:
    return int(struct.unpack("<I", fields[name])[0])


def _time(raw: bytes) -> int:
    seconds, nanos = struct.unpack("<II", raw)
    return int(seconds) * 1_000_000_000 + int(nanos)


class _Walk:
    """Records of the file or of an unpacked chunk, one after the other, with what ends it in `ended`."""

    def __init__(self, source: IO[bytes], size: int, limits: Limits):
        self.source, self.size, self.limits, self.ended = source, size, limits, ""

    def __iter__(self) -> Iterator[tuple[int, int, Fields, int]]:
        """(position, opcode, header, length of the data, at which the source stands)."""
        while True:
            at = self.source.tell()
            head = self.source.read(4)
            if len(head) < 4:
                self.ended = f"{len(head)} bytes of a record are left" if head else ""
                return
            (length,) = struct.unpack("<I", head)
            raw = self.source.read(length) if length <= LARGEST_HEADER else b""
            size = self.source.read(4)
            if len(raw) < length or len(size) < 4:
                self.ended = f"the record at byte {at} is cut off or damaged"
                return
            try:
                fields = _fields(raw)
                opcode = fields[b"op"][0]
            except (*DAMAGE, IndexError):
                self.ended = f"the record at byte {at} is damaged"
                return
            data = self.source.tell()
            (length,) = struct.unpack("<I", size)
            yield at, opcode, fields, length
            self.source.seek(data + length)


def records(source: IO[bytes], notes: list[str], limits: Limits) -> Iterator[Record]:
    """Schemas, channels and messages in order of time as far as chunks tell it, chunks opened one at a time.

    What cannot be read is skipped, and said in `notes`. Raises DataError where this is no ROS 1 bag at all.
    """
    size = _opened(source)
    order = _chunk_order(source, size, limits)
    told: set[int] = set()
    if order is not None:
        yield from _in_time(source, order, size, notes, limits, told)
        return
    source.seek(len(MAGIC))
    walk = _Walk(source, size, limits)
    for position, opcode, fields, length in walk:
        if source.tell() + length > size:
            notes.append(f"truncated: the file ends within a record, {source.tell() + length - size} bytes of it are missing")
        if opcode == CHUNK:
            yield from _chunk(source, position, fields, length, size, notes, limits, told)
        elif opcode in (CONNECTION, MESSAGE):
            yield from _plain(source, position, opcode, fields, length, size, notes, limits, told)
    notes.append("the bag has no index: read from end to end" + (f"; truncated: {walk.ended}" if walk.ended else ""))


def _in_time(source: IO[bytes], order: list[tuple[int, int]], size: int, notes: list[str], limits: Limits, told: set[int]) -> Iterator[Record]:
    """The records of the chunks, (start ns, position) each: where chunks overlap, a message waits for those that begin before it."""
    pending: list[tuple[int, int, Message]] = []
    waiting, count = 0, 0  # bytes, and messages ever, by which those of one time keep their order
    for start_ns, at in order:
        while pending and (pending[0][0] < start_ns or waiting > limits.chunk_mb << 20):
            message = heapq.heappop(pending)[2]
            waiting -= len(message.data)
            yield message
        for record in _indexed(source, at, size, notes, limits, told):
            if not isinstance(record, Message):
                yield record
                continue
            heapq.heappush(pending, (record.log_time, count, record))
            waiting, count = waiting + len(record.data), count + 1
    while pending:
        yield heapq.heappop(pending)[2]


def _indexed(source: IO[bytes], at: int, size: int, notes: list[str], limits: Limits, told: set[int]) -> Iterator[Record]:
    """The records of the chunk at which the index points."""
    source.seek(at)
    for position, opcode, fields, length in _Walk(source, size, limits):
        if opcode == CHUNK:
            yield from _chunk(source, position, fields, length, size, notes, limits, told)
        else:
            notes.append(f"the index names a chunk at byte {position} where there is none")
        return
    notes.append(f"truncated: the chunk at byte {at} is missing or damaged")


def _opened(source: IO[bytes]) -> int:
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    if source.read(len(MAGIC)) != MAGIC:
        raise DataError("not a ROS 1 bag of format 2.0: it does not begin with its magic line")
    return size


def _index(source: IO[bytes], size: int, limits: Limits) -> tuple[list[Record], list[tuple[int, int, int, dict[int, int]]]] | None:
    """(schemas and channels, (start ns, end ns, position, counts by connection) of each chunk); None without a whole index."""
    source.seek(len(MAGIC))
    connections: list[Record] = []
    chunks: list[tuple[int, int, int, dict[int, int]]] = []
    try:
        for _, opcode, fields, _length in _Walk(source, size, limits):
            if opcode != BAG:
                return None
            (position,) = struct.unpack("<Q", fields[b"index_pos"])
            wanted, expected = _u32(fields, b"conn_count"), _u32(fields, b"chunk_count")
            break
        else:
            return None
        if not len(MAGIC) < position <= size:
            return None
        source.seek(position)
        for _, opcode, fields, length in _Walk(source, size, limits):
            if opcode == CONNECTION and length <= limits.definition_kb << 11:
                connections += _connection(fields, source.read(length))
            elif opcode == CHUNK_INFO and length <= size:
                raw = source.read(length)
                counts = dict(struct.iter_unpack("<II", raw[: _u32(fields, b"count") * 8]))
                (chunk,) = struct.unpack("<Q", fields[b"chunk_pos"])
                chunks.append((_time(fields[b"start_time"]), _time(fields[b"end_time"]), chunk, counts))
            else:
                return None
    except DAMAGE:
        return None
    return (connections, chunks) if len(connections) == 2 * wanted and len(chunks) == expected else None


def _chunk_order(source: IO[bytes], size: int, limits: Limits) -> list[tuple[int, int]] | None:
    found = _index(source, size, limits)
    return sorted((start_ns, position) for start_ns, _, position, _ in found[1]) if found is not None else None


def _connection(fields: Fields, raw: bytes) -> list[Record]:
    """Raises one of DAMAGE."""
    number, inner = _u32(fields, b"conn"), _fields(raw)
    name = inner[b"type"].decode("utf-8", "replace")
    schema = Schema(id=number + 1, name=name, encoding="ros1msg", data=inner.get(b"message_definition", b""))
    topic = "/" + "/".join(part for part in fields[b"topic"].decode("utf-8", "replace").split("/") if part)
    return [schema, Channel(id=number, topic=topic, message_encoding="ros1", metadata={}, schema_id=number + 1)]


def _plain(
    source: IO[bytes], at: int, opcode: int, fields: Fields, length: int, size: int, notes: list[str], limits: Limits, told: set[int]
) -> Iterator[Record]:
    if source.tell() + length > size:
        return
    if length > limits.message_mb << 20:
        notes.append(f"a record at byte {at} has {length} bytes, more than limits.message_mb ({limits.message_mb}), and was skipped")
        return
    raw = source.read(length)
    try:
        if opcode == CONNECTION:
            if _u32(fields, b"conn") not in told:
                yield from _connection(fields, raw)
                told.add(_u32(fields, b"conn"))
        else:
            logged = _time(fields[b"time"])
            yield Message(channel_id=_u32(fields, b"conn"), sequence=0, log_time=logged, publish_time=logged, data=raw)
    except DAMAGE as error:
        notes.append(f"a damaged record at byte {at} was skipped: {error}")


def _chunk(source: IO[bytes], at: int, fields: Fields, length: int, size: int, notes: list[str], limits: Limits, told: set[int]) -> Iterator[Record]:
    """A chunk's connections in their order, then its messages in the order of their times."""
    cut = source.tell() + length > size
    largest = limits.chunk_mb << 20
    if length > largest and not cut:
        notes.append(f"a chunk at byte {at} has {length} bytes, more than limits.chunk_mb ({limits.chunk_mb}), and was skipped")
        return
    try:
        claimed = _u32(fields, b"size")
        if claimed > largest:
            raise ValueError(f"it claims {claimed} bytes, more than limits.chunk_mb ({limits.chunk_mb})")
        data = _unpacked(fields[b"compression"], source.read(min(length, largest)), claimed)
    except DAMAGE as error:
        notes.append(f"a damaged chunk at byte {at} was skipped: {error}")
        return
    inside = io.BytesIO(data)
    walk = _Walk(inside, len(data), limits)
    found: list[Message] = []
    for position, opcode, header, part in walk:
        if opcode not in (CONNECTION, MESSAGE):
            continue
        if inside.tell() + part > len(data):
            walk.ended = f"the record at byte {position} of it is cut off"
            break
        for record in _plain(inside, at, opcode, header, part, len(data), notes, limits, told):
            if isinstance(record, Message):
                found.append(record)
            else:
                yield record
    if (walk.ended or len(data) < claimed) and not cut:
        notes.append(f"a chunk at byte {at} is damaged and was read in part: {walk.ended or f'{claimed - len(data)} bytes are missing'}")
    yield from sorted(found, key=lambda message: message.log_time)


def _unpacked(compression: bytes, packed: bytes, size: int) -> bytes:
    """At most `size` bytes; less where the chunk is cut or damaged. Raises one of DAMAGE."""
    if compression == b"none":
        return packed
    if compression == b"bz2":
        return bz2.BZ2Decompressor().decompress(packed, max_length=size)
    if compression == b"lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=size))
    raise ValueError(f"the compression {compression.decode('utf-8', 'replace')!r} is not known")


def surveyed(source: IO[bytes], limits: Limits) -> Survey:
    """What the bag holds: from its index, or by reading it once. Raises DataError where this is no ROS 1 bag."""
    size = _opened(source)
    found, survey = _index(source, size, limits), Survey()
    if found is None:
        for record in records(source, survey.notes, limits):
            survey.add(record)
        return survey
    for record in found[0]:
        survey.add(record)
    for start_ns, end_ns, _, counts in found[1]:
        if any(counts.values()):
            survey.span(start_ns, end_ns)
        for number, count in counts.items():
            survey.counts[number] = survey.counts.get(number, 0) + count
    return survey


def peeked(source: IO[bytes], modified_ns: int, limits: Limits) -> Survey:
    """Times from the index; without one, from the first chunks, and the end from the file's own last change (a day at most)."""
    size = _opened(source)
    found, survey = _index(source, size, limits), Survey()
    if found is not None:
        for start_ns, end_ns, _, counts in found[1]:
            if any(counts.values()):
                survey.span(start_ns, end_ns)
        return survey
    for record in records(source, [], limits.model_copy(update={"chunk_mb": PEEK_BYTES >> 20})):
        if isinstance(record, Message):
            survey.span(record.log_time, record.log_time)
        if survey.start_ns is not None or source.tell() > PEEK_BYTES:
            break
    if survey.start_ns is not None:
        survey.span(survey.start_ns, max(survey.start_ns, min(modified_ns, survey.start_ns + 86_400 * 1_000_000_000)))
    return survey
