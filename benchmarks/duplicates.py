"""What a look into the history costs as it grows to a million episodes, and whether what was planted is found.

Synthetic landmarks: as many as an episode has, of which some are shared by a twentieth of all episodes, as a home pose is. One episode a
day is an original with a track; queries are its cut copies, with a third of its landmarks, and episodes that are copies of nothing.
"""

import sys
import tempfile
import time
from datetime import date, timedelta
from typing import Any

import numpy as np

from benchmarks.results import figure, write
from orchestration.curation.history import Print, candidates, remember
from orchestration.curation.likeness import Track
from ray_jobs.seam.store import Store, StoreConfig

SIZES = (1_000, 10_000, 100_000, 1_000_000)
DAYS = 360  # of the largest
LANDMARKS, SHARED, KINDS, LEFT = 37, 3, 60, 12
QUERIES = 40
FIRST = date(2025, 1, 1)


class Counting(Store):
    """Counts what is read."""

    bytes_read, requests = 0, 0

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.bytes_read, self.requests = self.bytes_read + length, self.requests + 1
        return super().get_range(key, start, length)


def day_prints(number: int, count: int) -> list[Print]:
    """One day of episodes; the first is an original."""
    draw = np.random.default_rng(number)
    keys = draw.integers(0, 2**64, (count, LANDMARKS), dtype=np.uint64)
    keys[:, :SHARED] = draw.integers(0, KINDS, (count, SHARED)).astype(np.uint64) << np.uint64(58)
    day = (FIRST + timedelta(days=number)).isoformat()
    track = Track(np.arange(5), draw.normal(size=(64, 5)), draw.normal(size=(64, 16)))
    return [Print(f"{number * 10**6 + row:032x}", day, "x", np.unique(keys[row]), track if row == 0 else None) for row in range(count)]


def asked(store: Counting, days: int, per_day: int) -> dict[str, float]:
    """Bytes, requests and milliseconds of one query, and the shares of copies found and of others wrongly suspected."""
    found, suspected = 0, 0
    store.bytes_read = store.requests = 0
    today = (FIRST + timedelta(days=days)).isoformat()
    started = time.perf_counter()
    for number in range(QUERIES):
        original = day_prints(number * days // QUERIES, per_day)[0]
        copy = Print(f"{10**12 + number:032x}", today, "copy", original.keys[-LEFT:], original.track)
        found += any(other.episode_id == original.episode_id for other in candidates(store, "v", [copy], today)[copy.episode_id])
        fresh = day_prints(10**6 + number, 1)[0]
        suspected += len(candidates(store, "v", [fresh], today)[fresh.episode_id])
    spent = time.perf_counter() - started
    asked = 2 * QUERIES
    return {
        "bytes": store.bytes_read / asked,
        "requests": store.requests / asked,
        "ms": 1000 * spent / asked,
        "found": found / QUERIES,
        "suspected": suspected / QUERIES,
    }


def main() -> None:
    largest = int(sys.argv[2]) if len(sys.argv) > 2 else SIZES[-1]
    sizes = [size for size in SIZES if size <= largest]
    per_day = max(1, sizes[-1] // DAYS)
    measured: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Counting(StoreConfig.local(folder))
        writing, day, episodes = 0.0, 0, 0
        for size in sizes:
            while episodes < size:
                prints = day_prints(day, min(per_day, size - episodes))
                started = time.perf_counter()
                remember(store, "v", prints)
                writing += time.perf_counter() - started
                day, episodes = day + 1, episodes + len(prints)
            entries = list(store.list("duplicates/v/keys"))
            measured[size] = {**asked(store, day, per_day), "files": float(len(entries)), "index_bytes": float(sum(entry.size for entry in entries))}
            print(size, {name: round(value, 3) for name, value in measured[size].items()}, flush=True)
    few, many = measured[sizes[0]], measured[sizes[-1]]
    growth = many["bytes"] / few["bytes"]
    grown = sizes[-1] / sizes[0]
    figures: list[dict[str, Any]] = [
        figure(
            "bytes read by a query",
            many["bytes"],
            "B",
            (f"{sizes[0]} episodes", few["bytes"]),
            growth,
            f"at {grown:.0f} times the episodes less than {grown**0.5:.0f} times",
            growth < grown**0.5,
        ),
        figure(
            "bytes read by a query, of the whole index",
            many["bytes"] / many["index_bytes"],
            "share",
            None,
            None,
            "below 0.01",
            many["bytes"] < 0.01 * many["index_bytes"],
        ),
        figure("requests of a query", many["requests"], "reads", (f"{sizes[0]} episodes", few["requests"]), many["requests"] / few["requests"], "none", True),
        figure("time of a query on a local disk", many["ms"], "ms", (f"{sizes[0]} episodes", few["ms"]), many["ms"] / few["ms"], "none", True),
        figure("planted copies among the candidates", many["found"], "share", None, None, "1", many["found"] == 1),
        figure("candidates of an episode that is no copy", many["suspected"], "episodes", None, None, "none", True),
        figure("time to enter an episode, merging included", 1000 * writing / sizes[-1], "ms", None, None, "none", True),
    ]
    write("duplicates", figures, sizes={str(size): {name: round(value, 4) for name, value in row.items()} for size, row in measured.items()})
