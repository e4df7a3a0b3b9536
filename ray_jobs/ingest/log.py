"""A recorded log, whatever its container: schemas, channels and messages, as MCAP's own records.

The well-known encodings of the MCAP specification name what ROS 1 and ROS 2 bags hold, too ("ros1msg", "ros2msg"), so a
container only has to say what it holds in these words; what they mean is decided once, in topics.py and recorder.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mcap.records import Channel, Message, Metadata, Schema

Record = Schema | Channel | Message | Metadata
LATEST_NS = 1 << 62  # the year 2116; later times are damage, and would not fit the arithmetic on them


@dataclass
class Survey:
    """What a file holds. counts: messages by channel id. Times: log time in ns, None where there is no message."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    start_ns: int | None = None
    end_ns: int | None = None
    notes: list[str] = field(default_factory=list)  # what was lost, where the whole file had to be walked

    def add(self, record: Record) -> None:
        if isinstance(record, Message):
            self.counts[record.channel_id] = self.counts.get(record.channel_id, 0) + 1
            self.span(record.log_time, record.log_time)
        elif isinstance(record, Channel):
            self.channels[record.id] = record
        elif isinstance(record, Schema):
            self.schemas[record.id] = record
        else:
            self.metadata[record.name] = dict(record.metadata)

    def span(self, start_ns: int, end_ns: int) -> None:
        if max(start_ns, end_ns) >= LATEST_NS:
            return
        self.start_ns = start_ns if self.start_ns is None else min(self.start_ns, start_ns)
        self.end_ns = end_ns if self.end_ns is None else max(self.end_ns, end_ns)


class Log(Protocol):
    """One recording that is open for reading."""

    def survey(self) -> Survey:
        """What it holds. Raises DataError where nothing can be read."""

    def records(self, losses: list[str]) -> Iterator[Record]:
        """Its records in recorded order, in bounded memory. What cannot be read is skipped, and said in `losses`."""
