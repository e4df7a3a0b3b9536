"""MCAP at the level of records: everything that can still be read, and notes of what was lost.

The reader of the mcap library stops at the first damage and drops the chunk it is in; a recorder that was switched off
leaves exactly such a file, so records are walked here (https://mcap.dev/spec), and a cut chunk is read as far as it goes.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel, Message, Metadata, Schema

from ray_jobs.ingest.log import Record, Survey
from ray_jobs.seam.configs import Limits
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store

MAGIC = b"\x89MCAP0\r\n"
# What damaged bytes raise in the library and in the decompressors.
DAMAGE = (McapError, struct.error, ValueError, KeyError, OverflowError, zstandard.ZstdError, RuntimeError)
PEEK_BYTES = 16 << 20  # walked at most where there is no summary
PEEK_RECORDS = 4096
BLOCK = 256 << 10


def records(source: IO[bytes], notes: list[str], limits: Limits) -> Iterator[Record]:
    """Schemas, channels, messages and metadata of the data section in file order, chunks opened one at a time.

    What cannot be read is skipped, and said in `notes`. Raises DataError where this is no MCAP file at all.
    """
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    if source.read(8) != MAGIC:
        raise DataError("not an MCAP file: it does not begin with MCAP's magic bytes")
    while True:
        at = source.tell()
        head = source.read(9)
        if len(head) < 9:
            notes.append(f"truncated: the file ends at byte {at} without its footer")
            return
        opcode, length = struct.unpack("<BQ", head)
        if opcode in (Opcode.DATA_END, Opcode.FOOTER):
            return
        left = size - at - 9
        if length > left:
            if opcode == Opcode.CHUNK:
                if left > limits.chunk_mb << 20:
                    notes.append(f"a chunk at byte {at} has {length} bytes, more than limits.chunk_mb ({limits.chunk_mb}), and was skipped")
                else:
                    yield from _chunk(source.read(left), at, notes, limits, cut=True)
            notes.append(f"truncated: the file ends within a record, {length - left} bytes of it are missing")
            return
        if length > limits.chunk_mb << 20:
            if opcode == Opcode.CHUNK or opcode == Opcode.MESSAGE:
                notes.append(f"a record at byte {at} has {length} bytes, more than limits.chunk_mb ({limits.chunk_mb}), and was skipped")
            source.seek(length, io.SEEK_CUR)
        elif opcode == Opcode.CHUNK:
            yield from _chunk(source.read(length), at, notes, limits, cut=False)
        elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.METADATA):
            record = _record(opcode, source.read(length), at, notes)
            if record is not None:
                yield record
        else:
            source.seek(length, io.SEEK_CUR)


def _record(opcode: int, body: bytes, at: int, notes: list[str]) -> Record | None:
    try:
        if opcode == Opcode.MESSAGE:
            channel, sequence, logged, published = struct.unpack_from("<HIQQ", body)
            return Message(channel_id=channel, sequence=sequence, log_time=logged, publish_time=published, data=body[22:])
        stream = ReadDataStream(io.BytesIO(body))
        if opcode == Opcode.SCHEMA:
            return Schema.read(stream)
        if opcode == Opcode.CHANNEL:
            return Channel.read(stream)
        if opcode == Opcode.METADATA:
            return Metadata.read(stream)
    except DAMAGE as error:
        notes.append(f"a damaged record at byte {at} was skipped: {error}")
    return None


def _chunk(body: bytes, at: int, notes: list[str], limits: Limits, cut: bool) -> Iterator[Record]:
    try:
        _, _, size, crc, name_length = struct.unpack_from("<QQQII", body)
        compression = body[32 : 32 + name_length].decode()
        packed = memoryview(body)[40 + name_length :]
        data = _unpacked(compression, packed, size, limits)
    except DAMAGE as error:
        notes.append(f"a damaged chunk at byte {at} was skipped: {error}")
        return
    if not cut and crc and zlib.crc32(data) != crc:
        notes.append(f"a damaged chunk at byte {at} was skipped: its checksum does not match")
        return
    inside = 0
    while inside + 9 <= len(data):
        opcode, length = struct.unpack_from("<BQ", data, inside)
        end = inside + 9 + length
        if end > len(data):
            break
        if opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE):
            record = _record(opcode, bytes(data[inside + 9 : end]), at, notes)
            if record is not None:
                yield record
        inside = end


def _unpacked(compression: str, packed: memoryview, size: int, limits: Limits) -> bytes | memoryview:
    """At most the size that the chunk claims, whatever its packed bytes claim; less where the chunk is cut."""
    if size > limits.chunk_mb << 20:
        raise ValueError(f"it claims {size} bytes, more than limits.chunk_mb ({limits.chunk_mb})")
    if compression == "":
        return packed
    if compression == "zstd":
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            return reader.read(size)
    if compression == "lz4":
        return lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=size)
    raise ValueError(f"the compression {compression!r} is not known")


def summarised(source: IO[bytes]) -> Survey | None:
    """The survey from the summary section alone, or None where there is no complete one."""
    survey = Survey()
    try:
        summary = SeekingReader(source).get_summary() if source.seek(0, io.SEEK_END) > 64 and source.seek(0) == 0 else None
        if summary is None:
            return None
        for index in summary.metadata_indexes:
            source.seek(index.offset + 9)
            survey.add(Metadata.read(ReadDataStream(source)))
        statistics = summary.statistics
        if statistics is not None and statistics.metadata_count > len(summary.metadata_indexes):
            survey.metadata |= _walked(source, 0).metadata
    except (*DAMAGE, OSError, MemoryError):  # an offset beyond what can be sought, a length beyond what there is
        return None
    if statistics is not None and statistics.message_count:
        survey.span(statistics.message_start_time, statistics.message_end_time)
    elif statistics is None:
        for chunk in summary.chunk_indexes:
            survey.span(chunk.message_start_time, chunk.message_end_time)
    if statistics is None and survey.start_ns is None:
        return None
    survey.schemas, survey.channels = summary.schemas, summary.channels
    survey.counts = dict(statistics.channel_message_counts) if statistics is not None else {}
    return survey


def surveyed(source: IO[bytes], limits: Limits) -> Survey:
    """The survey from the summary, or by reading the file once where the summary does not count the messages."""
    found = summarised(source)
    if found is not None and found.channels and (found.counts or found.start_ns is None):
        return found
    survey = Survey()
    for record in records(source, survey.notes, limits):
        survey.add(record)
    return survey


def peeked(source: IO[bytes], modified_ns: int) -> Survey:
    """Times and metadata from a bounded number of bytes, as the index wants them.

    Without a summary, records are hopped over (a chunk names its times in its first bytes). Where that would take too
    long, the end is bounded by the file's own last change, at most a day after its start: naming a day too many is harmless.
    """
    found = summarised(source)
    if found is not None:
        return found
    return _walked(source, modified_ns)


def _walked(source: IO[bytes], modified_ns: int) -> Survey:
    """Times and metadata by hopping from record to record, as far as PEEK_RECORDS and PEEK_BYTES allow."""
    survey = Survey()
    size = source.seek(0, io.SEEK_END)
    at, spent = 8, 0
    for _ in range(PEEK_RECORDS):
        if at >= size:
            return survey
        source.seek(at)
        head = source.read(9 + 16)
        if len(head) < 9:
            return survey
        opcode, length = struct.unpack_from("<BQ", head)
        spent += len(head)
        if opcode in (Opcode.DATA_END, Opcode.FOOTER):
            return survey
        if opcode == Opcode.CHUNK and len(head) == 25:
            start_ns, end_ns = struct.unpack_from("<QQ", head, 9)
            if end_ns:  # an empty chunk says 0, 0
                survey.span(start_ns, end_ns)
        elif opcode == Opcode.MESSAGE and len(head) >= 23:
            logged = struct.unpack_from("<Q", head, 15)[0]
            survey.span(logged, logged)
        elif opcode == Opcode.METADATA and at + 9 + length <= size and length < BLOCK:
            source.seek(at + 9)
            record = _record(opcode, source.read(length), at, [])
            if record is not None:
                survey.add(record)
            spent += length
        at += 9 + length
        if spent > PEEK_BYTES:
            break
    if survey.start_ns is not None:
        survey.span(survey.start_ns, max(survey.start_ns, min(modified_ns, survey.start_ns + 86_400 * 1_000_000_000)))
    return survey


class Ranged(io.RawIOBase):
    """A stored object as a file that is read in blocks, so that a peek moves a few blocks and not the object."""

    def __init__(self, store: Store, key: str, size: int):
        self.store, self.key_name, self.size, self.at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(0, offset + (0 if whence == io.SEEK_SET else self.at if whence == io.SEEK_CUR else self.size))
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self.size - self.at)
        if length <= 0:
            return 0
        buffer[:length] = self.store.get_range(self.key_name, self.at, length)
        self.at += length
        return length


def ranged(store: Store, key: str, size: int) -> io.BufferedReader:
    return io.BufferedReader(Ranged(store, key, size), BLOCK)
