"""ROS 2 bags in SQLite (rosbag2_storage_sqlite3, schemas 1 to 4): a foreign database, read without trust and without writing."""

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcap.records import Channel, Message, Schema

from ray_jobs.ingest.decoders import known_definition
from ray_jobs.ingest.log import Record, Survey
from ray_jobs.seam.configs import Limits
from ray_jobs.seam.errors import DataError

MAGIC = b"SQLite format 3\x00"
DAMAGE = (sqlite3.Error, UnicodeDecodeError)  # the second where the database's own error text is damaged
STEPS, PATIENCE = 1_000_000, 200  # SQLite's own instructions between two looks, and looks that one row may take


class SqliteLog:
    """One .db3 file as a Log. journal: its write-ahead log, where the recorder was cut off before folding it in."""

    def __init__(self, path: Path, limits: Limits, journal: Path | None = None):
        self.path, self.limits, self.journal = path, limits, journal

    def survey(self) -> Survey:
        with self._opened() as database:
            return self._surveyed(database)

    def _surveyed(self, database: sqlite3.Connection) -> Survey:
        survey = Survey()
        try:
            for record in self._declared(database):
                survey.add(record)
        except (*DAMAGE, ValueError, TypeError, IndexError) as error:
            raise DataError(f"the bag's tables cannot be read: {error}") from error
        try:
            for number, count, start_ns, end_ns in database.execute(
                "SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages GROUP BY topic_id"
            ):
                survey.counts[int(number)] = int(count)
                survey.span(_time(start_ns), _time(end_ns))
        except (*DAMAGE, ValueError, TypeError) as error:
            survey.counts = {}
            survey.notes.append(f"the messages cannot be counted: {error}")
            for record in self._messages(database, survey.notes):
                survey.add(record)
        return survey

    def span(self) -> tuple[int, int] | None:
        """Times of the first and the last message in ns, by two rows and not by all; None without any. Raises DataError."""
        with self._opened() as database:
            rows = [database.execute(f"SELECT timestamp FROM messages ORDER BY id {way} LIMIT 1").fetchone() for way in ("ASC", "DESC")]
        try:
            return (_time(rows[0][0]), _time(rows[1][0])) if all(rows) else None
        except ValueError as error:
            raise DataError(str(error)) from error

    def records(self, losses: list[str]) -> Iterator[Record]:
        with self._opened() as database:
            yield from self._messages(database, losses)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Read only and immutable; with a journal, a copy that SQLite may fold it into. Raises DataError."""
        with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
            path, how = self.path, "?mode=ro&immutable=1"
            if self.journal is not None:
                path, how = Path(folder) / "bag.db3", "?mode=rw"
                shutil.copyfile(self.path, path)
                shutil.copyfile(self.journal, path.with_name("bag.db3-wal"))
            try:
                database = sqlite3.connect(path.resolve().as_uri() + how, uri=True)
            except DAMAGE as error:
                raise DataError(f"not a SQLite database: {error}") from error
            try:
                database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self.limits.message_mb << 20)
                database.text_factory = lambda raw: raw.decode("utf-8", "replace")
                database.execute("PRAGMA trusted_schema=OFF")
                tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if not {"messages", "topics"} <= tables:
                    raise DataError("a SQLite database, and no ROS 2 bag: it has no tables `topics` and `messages`")
                yield database
            except DAMAGE as error:
                raise DataError(f"the SQLite database is damaged: {error}") from error
            finally:
                database.close()

    def _declared(self, database: sqlite3.Connection) -> Iterator[Record]:
        """Schemas and channels. Bags before ROS 2 Iron carry no definitions: those are the ones that ROS 2 itself ships."""
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        own: dict[str, tuple[str, bytes]] = {}
        if "message_definitions" in tables:
            for name, encoding, text in database.execute("SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"):
                own[str(name)] = (str(encoding), str(text).encode())
        for number, topic, kind, encoding in database.execute("SELECT id, name, type, serialization_format FROM topics ORDER BY id").fetchmany(65_536):
            how, text = own.get(str(kind), ("", b""))
            if not text and re.fullmatch(r"\w+/msg/\w+", str(kind)):
                how, text = "ros2msg", known_definition(str(kind)) or b""
            yield Schema(id=int(number), name=str(kind), encoding=how, data=text)
            yield Channel(id=int(number), topic=str(topic), message_encoding=str(encoding), metadata={}, schema_id=int(number))

    def _messages(self, database: sqlite3.Connection, notes: list[str]) -> Iterator[Message]:
        """In the order in which they were written; what is damaged ends it, and is noted."""
        looks = 0

        def bored() -> bool:
            nonlocal looks
            looks += 1
            return looks > PATIENCE

        count, odd = 0, 0
        database.set_progress_handler(bored, STEPS)
        try:
            for number, stamp, data in database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id"):
                looks = 0
                if not isinstance(data, bytes) or not isinstance(number, int) or not isinstance(stamp, int) or not 0 <= stamp < 1 << 63:
                    odd += 1
                    continue
                count += 1
                yield Message(channel_id=number, sequence=0, log_time=stamp, publish_time=stamp, data=data)
        except DAMAGE as error:
            notes.append(f"truncated: the database cannot be read beyond message {count}: {error}")
        if odd:
            notes.append(f"{odd} messages without a time, a topic or data were skipped")


def _time(stamp: object) -> int:
    if not isinstance(stamp, int) or not 0 <= stamp < 1 << 63:
        raise ValueError(f"a message's time is {stamp!r}")
    return stamp
