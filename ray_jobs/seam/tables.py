"""The tables that cross the seam, as Arrow schemas, and the one way to write and read them.

Times are ns since 1970 UTC. Ids are lower-case hex. A day is YYYY-MM-DD.
"""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

UPLOADS = pa.schema(
    [
        ("path", pa.string()),  # key below the raw store: a file, or the folder of a LeRobot set or ROS 2 bag
        ("format", pa.string()),  # mcap | ros1 | rosbag2 | hdf5 | lerobot | unknown
        ("digest", pa.string()),  # of (key, size, etag) of its files: another content, another digest
        ("size", pa.int64()),
        ("modified_ns", pa.int64()),
        ("robot", pa.string()),
        ("days", pa.list_(pa.string())),
        ("status", pa.string()),  # ok | quarantined | superseded
        ("reason", pa.string()),
        ("readers", pa.string()),  # digest of the readers that looked at it: others look at what these could not read
    ]
)

EPISODES = pa.schema(
    [
        ("episode_id", pa.string()),  # sha256[:32] of the content; of (path, digest) where an upload is unreadable
        ("day", pa.string()),
        ("day_source", pa.string()),  # recording | upload (no clock, or an absurd one)
        ("robot", pa.string()),
        ("task", pa.string()),
        ("upload", pa.string()),
        ("upload_digest", pa.string()),
        ("status", pa.string()),  # ok | quarantined | superseded
        ("reason", pa.string()),
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("states", pa.int64()),
        ("actions", pa.int64()),
        ("frames", pa.int64()),
        ("cameras", pa.list_(pa.string())),
        ("fps", pa.float64()),
        ("notes", pa.list_(pa.string())),  # quirks and losses that a person should know of
    ]
)

LEDGER = pa.schema(
    [
        ("episode_id", pa.string()),
        ("stage", pa.string()),
        ("version", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("vectors", pa.map_(pa.string(), pa.list_(pa.float32()))),
        ("tags", pa.map_(pa.string(), pa.string())),  # what it shows, in words, with who says so
        ("picture", pa.binary()),  # a small JPEG strip for contact sheets, or null
        ("error", pa.string()),  # why the content itself cannot be measured, or null
        ("seconds", pa.float64()),
        ("measured_ns", pa.int64()),
    ]
)

VERDICTS = pa.schema(
    [
        ("episode_id", pa.string()),
        ("day", pa.string()),
        ("robot", pa.string()),
        ("task", pa.string()),
        ("upload", pa.string()),
        ("verdict", pa.string()),  # kept | rejected | quarantined | superseded
        ("reasons", pa.list_(pa.string())),  # first the check's name, then evidence: "frozen_camera: 0.91 of frames …"
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("duration_s", pa.float64()),
        ("tags", pa.map_(pa.string(), pa.string())),
        ("machine_verdict", pa.string()),  # what `verdict` would be without a person's override
        ("override", pa.string()),  # "override: keep by …", or null
    ]
)


def to_bytes(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Parquet bytes of the rows; the same rows give the same bytes."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def from_bytes(data: bytes, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a table written by to_bytes, or these columns of them; maps come back as dicts."""
    return rows_of(pq.read_table(io.BytesIO(data), columns=columns))


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    maps = [field.name for field in table.schema if pa.types.is_map(field.type)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in maps:
            row[name] = dict(row[name] or [])
    return rows
