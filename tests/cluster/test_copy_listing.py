"""A million objects: the plan of a copy, and the look at a destination that holds them all, against a server that only lists."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

COUNT, PAGE = 1_000_000, 1000
PREFIX = "datasets/2026-01-05-million"


class Lists(BaseHTTPRequestHandler):
    """ListObjectsV2 of a million made-up keys, a thousand at a time, as S3 pages them."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        start = int(query.get("continuation-token", ["0"])[0])
        items = "".join(
            f"<Contents><Key>{PREFIX}/data/{number:07d}</Key><LastModified>2026-01-05T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{number}</Size></Contents>"
            for number in range(start, start + PAGE)
        )
        more = start + PAGE < COUNT
        token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        body = (
            f"<?xml version='1.0'?><ListBucketResult><Name>bucket</Name><KeyCount>{PAGE}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{items}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Lists)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


PLAN = """
import resource, sys
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.transfer import receipts
from ray_jobs.transfer.plan import Item, freeze, listing, strays
store = Store(StoreConfig(url="s3://bucket", endpoint=sys.argv[1], region="us-east-1", credentials="LISTING"))
prefix, count = sys.argv[2], int(sys.argv[3])
items = [Item(f"data/{n:07d}", f"{prefix}/data/{n:07d}", n, f"{n:064x}", "") for n in range(count)]
there = listing(store, prefix)
known = {receipts.receipt(item, f'"{n:032x}"') for n, item in enumerate(items) if n % 1000}
todo = [item for item in items if not receipts.proven(item, there.get(item.key), known)]
frozen = freeze(store, prefix, todo)
assert len(there) == count and not strays(prefix, items, there)
assert [item.size for item in frozen] == list(range(0, count, 1000)) and all(item.etag for item in frozen)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_million_keys(endpoint: str) -> None:
    """999,000 objects are proven at the destination and 1,000 are not: exactly those are planned, within 2 GiB."""
    started = time.monotonic()
    environment = {"LISTING_ACCESS_KEY_ID": "listing", "LISTING_SECRET_ACCESS_KEY": "listing", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", PLAN, endpoint, PREFIX, str(COUNT)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr
    kib = int(ended.stdout)
    print(f"{time.monotonic() - started:.0f} s, {kib / 2**10:.0f} MiB")
    assert kib < 2 * 2**20, f"{kib} KiB"
