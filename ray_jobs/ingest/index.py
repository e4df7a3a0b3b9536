"""The index of uploads: what lies in the raw store, of which robot and days, without reading whole files.

`python -m ray_jobs.ingest.index --config uploads.json` prints one IndexResult as its last line. No Ray.
"""

import argparse
import hashlib
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from ray_jobs.ingest.days import day_of, upload_days
from ray_jobs.ingest.formats import HEAD_BYTES, READERS, READERS_DIGEST, foreign_reason
from ray_jobs.ingest.gather import UNFINISHED, gather, is_unfinished
from ray_jobs.ingest.reader import Upload, UploadFacts
from ray_jobs.seam.configs import IngestSettings, UploadsConfig
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.model import Strict, digest
from ray_jobs.seam.store import Entry, Store
from ray_jobs.seam.tables import UPLOADS, from_bytes, to_bytes

PEEK_THREADS = 8


class IndexResult(Strict):
    """key: of the UPLOADS table. digest: of its bytes. days: day -> digest of the uploads that name it."""

    key: str
    digest: str
    counts: dict[str, int]
    days: dict[str, str]


def index(config: UploadsConfig, now_ns: int | None = None) -> IndexResult:
    """List the raw store and write the new index. An upload whose path and digest stand in the previous one is not opened,
    unless it could not be read then and other readers look at it now.

    A path with other content than before: a new row, and the old one stays as superseded. What has gone from the raw
    store stays in the index. Raises StoreError where either store cannot be used.
    """
    store, raw = Store(config.store), Store(config.raw)
    previous = from_bytes(store.get(config.previous)) if config.previous else []
    entries = list(raw.list())
    found = gather(entries)
    now_ns = time.time_ns() if now_ns is None else now_ns
    quiet_ns = int(config.settings.quiet_s * 1e9)
    whole = {path: upload for path, upload in found.items() if upload.modified_ns + quiet_ns <= now_ns and not _growing(upload, entries)}
    known = {
        (row["path"], row["digest"]) for row in previous if row["status"] == "ok" or (row["status"] == "quarantined" and row.get("readers") == READERS_DIGEST)
    }
    fresh = [upload for upload in whole.values() if (upload.path, upload.digest) not in known]
    with ThreadPoolExecutor(PEEK_THREADS) as pool:
        made = list(pool.map(lambda upload: describe(raw, upload, config.settings), fresh))
    rows = merge(previous, list(whole.values()), made)
    data = to_bytes(rows, UPLOADS)
    content = hashlib.sha256(data).hexdigest()
    key = f"uploads/{content}.parquet"
    store.put(key, data)
    status = Counter(row["status"] for row in rows)
    counts = {"uploads": len(rows), **{name: status[name] for name in ("ok", "quarantined", "superseded")}}
    return IndexResult(key=key, digest=content, counts=counts | {"opened": len(fresh), "waiting": len(found) - len(whole)}, days=day_digests(rows))


def _growing(upload: Upload, entries: list[Entry]) -> bool:
    """A folder into which something unfinished is being written."""
    inside = "" if upload.path == "." else upload.path + "/"
    is_folder = len(upload.files) > 1 or upload.files[0].key != upload.path
    return is_folder and any(entry.key.startswith(inside) and is_unfinished(entry.key) and entry.key.lower().endswith(UNFINISHED) for entry in entries)


def describe(raw: Store, upload: Upload, settings: IngestSettings) -> dict[str, Any]:
    """The UPLOADS row of one upload, from a bounded number of its bytes."""
    first = upload.first
    head = raw.get_range(first.key, 0, min(HEAD_BYTES, first.size)) if first.size else b""
    reader = next((reader for reader in READERS if reader.recognises(upload, head)), None)
    facts = reader.peek(raw, upload) if reader is not None else UploadFacts(reason=foreign_reason(upload.path, upload.size, head))
    parts = PurePosixPath(upload.path).parts
    days = upload_days(facts.start_ns, facts.end_ns, upload.modified_ns, settings)
    return {
        "path": upload.path,
        "format": reader.name if reader is not None else "unknown",
        "digest": upload.digest,
        "size": upload.size,
        "modified_ns": upload.modified_ns,
        "robot": facts.robot or (parts[0] if len(parts) > 1 else "unknown"),
        "days": days or [day_of(upload.modified_ns, settings)],
        "status": "quarantined" if facts.reason else "ok",
        "reason": facts.reason,
        "readers": READERS_DIGEST,
    }


def merge(previous: list[dict[str, Any]], current: Sequence[Upload], made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The new index from the old one, the uploads that lie in the raw store, and the rows of what is new. Pure."""
    rows = {(row["path"], row["digest"]): row for row in previous}
    digests = {upload.path: upload.digest for upload in current}
    owner = {entry.key: upload.path for upload in current for entry in upload.files}
    for (path, content), row in rows.items():
        folder = owner.get(path) or next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in digests), None)
        if digests.get(path, content) != content:
            rows[path, content] = {**row, "status": "superseded", "reason": "replaced by newer content"}
        elif folder is not None and path not in digests:
            rows[path, content] = {**row, "status": "superseded", "reason": f"now part of the set {folder}"}
    rows |= {(row["path"], row["digest"]): row for row in made}
    return sorted(rows.values(), key=lambda row: (row["path"], row["modified_ns"], row["digest"]))


def day_digests(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Day -> digest of the uploads that name it: it changes when one is added, replaced or judged anew."""
    named: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in rows:
        for day in row["days"]:
            named[day].append((row["path"], row["digest"], row["status"]))
    return {day: digest(sorted(uploads)) for day, uploads in sorted(named.items())}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.ingest.index")
    parser.add_argument("--config", type=Path, required=True, help="an UploadsConfig document")
    arguments = parser.parse_args()
    try:
        result = index(UploadsConfig.model_validate_json(arguments.config.read_text()))
    except (ValidationError, OSError) as error:
        sys.exit(f"the config of uploads is not valid: {error}")
    except FlywheelError as error:
        sys.exit(str(error))
    print(result.model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
