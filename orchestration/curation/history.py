"""The index of all episodes ever measured, in the store: by their landmarks, for whoever looks for an earlier copy of an episode.

duplicates/<version>/rows/<day>-<digest>          the tracks of one day's episodes
duplicates/<version>/keys/<level>-<digest>        sorted landmarks of one day (level 0), or of FANOUT files of the level below

Every file is immutable and named by its content. A lookup reads, of each keys file, one bucket per landmark: two small ranges. There are at
most FANOUT files on a level and every level holds FANOUT times the one below, so what a lookup reads grows with the logarithm of the history,
up to MOST_ENTRIES, above which files are no longer merged. A landmark that very many have in common tells nothing, and its bucket is not read.

A file may name an episode that its day no longer has; the reader asks the day's published table about the few that are alike.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from orchestration.curation.likeness import Track
from ray_jobs.seam.errors import NotFound
from ray_jobs.seam.store import Store

ENTRY = np.dtype([("key", "<u8"), ("file", "<u8"), ("day", "<u4"), ("row", "<u4")])
HEAD = np.dtype([("magic", "S8"), ("buckets", "<u8"), ("entries", "<u8"), ("first_day", "<u8")])
MAGIC = b"FWKEYS1"
PER_BUCKET = 32  # entries, on average
CROWDED = 256  # entries of a bucket above which it is not read
FANOUT = 8
MOST_ENTRIES = 1 << 24  # of a merged file: 400 MB in memory while it is made
NEAR_BYTES = 4 * 1024  # ranges that lie closer are read as one
READERS = 16  # reads of one file at once: a store answers each in some 20 ms
CANDIDATES = 8  # of one episode: those that share landmarks which few others have
FEWEST_SHARED = 2


@dataclass(frozen=True)
class Print:
    """What an episode is found by. keys: u64 landmarks; track None: only the very same content is found."""

    episode_id: str
    day: str
    upload: str
    keys: np.ndarray
    track: Track | None

    @classmethod
    def of(cls, row: dict[str, Any], vectors: dict[str, Any]) -> "Print":
        """From a row of EPISODES and the ledger's vectors of the embedding stage."""
        found = [_key(b"id", row["episode_id"].encode())]
        for kind in ("state", "picture"):
            halves = np.asarray(vectors.get(f"landmarks.{kind}") or [], np.uint64).reshape(-1, 2)
            found += [_key(kind.encode(), half.tobytes()) for half in halves]
        return cls(row["episode_id"], row["day"], row["upload"], np.array(sorted(set(found)), np.uint64), Track.of(vectors))


def _key(kind: bytes, value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8, person=kind).digest(), "little")


def remember(store: Store, version: str, prints: list[Print]) -> None:
    """Add one day's episodes; the same again changes nothing. Merges where a level is full."""
    if not prints:
        return
    ordered = sorted(prints, key=lambda item: item.episode_id)
    rows = rows_bytes(ordered)
    name = hashlib.sha256(rows).hexdigest()[:16]
    day = ordered[0].day
    store.put(f"{_prefix(version)}/rows/{day}-{name}", rows)
    parts = [(keys, row) for row, keys in enumerate(item.keys for item in ordered)]
    entries = np.zeros(sum(len(keys) for keys, _ in parts), ENTRY)
    entries["key"] = np.concatenate([keys for keys, _ in parts])
    entries["row"] = np.concatenate([np.full(len(keys), row) for keys, row in parts])
    entries["file"], entries["day"] = int(name, 16), date.fromisoformat(day).toordinal()
    _put_keys(store, version, 0, entries)
    compact(store, version)


def compact(store: Store, version: str) -> None:
    """Merge each full level into one file of the next. The merged are removed last: a reader may see both, and a crash leaves both."""
    for level in range(16):
        full = sorted(entry.key for entry in store.list(f"{_prefix(version)}/keys/") if _level(entry.key) == level)[:FANOUT]
        if len(full) < FANOUT:
            continue
        tables = []
        for key in full:
            data = store.find(key)
            if data is None:
                return  # somebody else merges
            tables.append(_entries(data))
        if sum(len(table) for table in tables) > MOST_ENTRIES:
            return
        _put_keys(store, version, level + 1, np.concatenate(tables))
        for key in full:
            store.delete(key)


def _put_keys(store: Store, version: str, level: int, entries: np.ndarray) -> None:
    data = keys_bytes(entries)
    store.put(f"{_prefix(version)}/keys/{level}-{hashlib.sha256(data).hexdigest()[:16]}", data)


def keys_bytes(entries: np.ndarray) -> bytes:
    """HEAD, where each bucket begins (u64 [buckets + 1]), and the entries by key. A bucket holds the keys with the same first bits."""
    distinct = _distinct(entries)
    bits = max(0, (len(distinct) // PER_BUCKET).bit_length())
    head = np.array([(MAGIC, 1 << bits, len(distinct), int(distinct["day"].min()))], HEAD)
    begins = np.searchsorted(_bucket(distinct["key"], 1 << bits), np.arange((1 << bits) + 1)).astype("<u8")
    return head.tobytes() + begins.tobytes() + distinct.tobytes()


def _distinct(entries: np.ndarray) -> np.ndarray:
    """Sorted by key, day, file and row, each once. Column by column: NumPy compares whole records slowly."""
    ordered = entries[np.lexsort([entries[name] for name in ("row", "file", "day", "key")])]
    new = np.ones(len(ordered), bool)
    new[1:] = np.any([ordered[name][1:] != ordered[name][:-1] for name in ENTRY.names or ()], axis=0)
    return ordered[new]


def _bucket(keys: np.ndarray, buckets: int) -> np.ndarray:
    bits = buckets.bit_length() - 1
    return np.asarray(keys >> np.uint64(64 - bits) if bits else np.zeros(len(keys), np.uint64)).astype(np.int64)


def _entries(data: bytes) -> np.ndarray:
    head = np.frombuffer(data, HEAD, 1)[0]
    return np.frombuffer(data, ENTRY, int(head["entries"]), HEAD.itemsize + 8 * (int(head["buckets"]) + 1))


def _level(key: str) -> int:
    return int(key.rsplit("/", 1)[1].split("-", 1)[0])


def _prefix(version: str) -> str:
    return f"duplicates/{version}"


def candidates(store: Store, version: str, prints: list[Print], before: str) -> dict[str, list[Print]]:
    """Episode -> the prints of earlier days that share landmarks with it, the rarest first, or all of its content. Raises StoreError."""
    found = _votes(store, version, np.unique(np.concatenate([item.keys for item in prints])) if prints else np.zeros(0, np.uint64), before)
    by_key = {int(key): group for key, group in _groups(found)}
    chosen: dict[str, list[tuple[int, int, int]]] = {}
    for item in prints:
        same = _key(b"id", item.episode_id.encode())
        votes: dict[tuple[int, int, int], int] = {}
        weight: dict[tuple[int, int, int], float] = {}
        for key in item.keys:
            group = by_key.get(int(key), ())
            for entry in group:
                place = (int(entry["day"]), int(entry["file"]), int(entry["row"]))
                votes[place] = votes.get(place, 0) + (FEWEST_SHARED if key == same else 1)
                weight[place] = weight.get(place, 0.0) + (1e6 if key == same else 1 / len(group))
        ranked = sorted((place for place, count in votes.items() if count >= FEWEST_SHARED), key=lambda place: (-weight[place], place))
        chosen[item.episode_id] = ranked[:CANDIDATES]
    loaded = _load(store, version, {place for places in chosen.values() for place in places})
    return {episode_id: _once([loaded[place] for place in places if place in loaded]) for episode_id, places in chosen.items()}


def _once(prints: list[Print]) -> list[Print]:
    """An episode that several files of its day name counts once."""
    return list({(item.day, item.episode_id): item for item in reversed(prints)}.values())[::-1]


def _groups(entries: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    if not len(entries):
        return
    keys, first = np.unique(entries["key"], return_index=True)
    for key, group in zip(keys, np.split(entries, first[1:]), strict=True):
        yield int(key), group


def _votes(store: Store, version: str, keys: np.ndarray, before: str) -> np.ndarray:
    """The entries of these keys from days before, sorted and distinct."""
    limit, parts = date.fromisoformat(before).toordinal(), [np.zeros(0, ENTRY)]
    for _ in range(3):  # a file that was merged meanwhile is looked for again
        try:
            parts += [_lookup(store, entry.key, keys, limit) for entry in store.list(f"{_prefix(version)}/keys/")]
            return _distinct(np.concatenate(parts))
        except NotFound:
            parts = parts[:1]
    raise NotFound(f"the index {_prefix(version)} was merged three times while it was read; judge the day again")


def _lookup(store: Store, name: str, keys: np.ndarray, limit: int) -> np.ndarray:
    head = np.frombuffer(store.get_range(name, 0, HEAD.itemsize), HEAD)[0]
    buckets = int(head["buckets"])
    if int(head["first_day"]) >= limit or not len(keys):
        return np.zeros(0, ENTRY)
    wanted = np.unique(_bucket(keys, buckets))
    spans = [np.frombuffer(data, "<u8") for data in ranges(store, name, [(HEAD.itemsize + 8 * int(bucket), 16) for bucket in wanted])]
    start = HEAD.itemsize + 8 * (buckets + 1)
    places = [(start + ENTRY.itemsize * int(low), ENTRY.itemsize * int(high - low)) for low, high in spans if 0 < high - low <= CROWDED]
    found = [np.frombuffer(data, ENTRY) for data in ranges(store, name, places)]
    table = np.concatenate(found) if found else np.zeros(0, ENTRY)
    return table[np.isin(table["key"], keys) & (table["day"] < limit)]


def ranges(store: Store, name: str, places: list[tuple[int, int]]) -> list[bytes]:
    """The (start, length) pieces of an object, given by rising start; neighbours are read together, and several reads run at once."""
    groups: list[list[tuple[int, int]]] = []
    for place in places:
        if groups and place[0] - sum(groups[-1][-1]) <= NEAR_BYTES:
            groups[-1].append(place)
        else:
            groups.append([place])

    def read(group: list[tuple[int, int]]) -> list[bytes]:
        begin = group[0][0]
        data = store.get_range(name, begin, sum(group[-1]) - begin)
        return [data[start - begin : start - begin + length] for start, length in group]

    with ThreadPoolExecutor(READERS) as pool:
        return [piece for pieces in pool.map(read, groups) for piece in pieces]


def rows_bytes(prints: Iterable[Print]) -> bytes:
    """How many (u64), where each begins (u64 [n + 1]), and each as an npz of its facts and its track in f16."""
    parts = [_pack(item) for item in prints]
    begins = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype("<u8")
    return np.uint64(len(parts)).astype("<u8").tobytes() + begins.tobytes() + b"".join(parts)


def _pack(item: Print) -> bytes:
    sink = io.BytesIO()
    facts = json.dumps([item.episode_id, item.day, item.upload]).encode()
    tracks = {} if item.track is None else {name: value for name, value in vars(item.track).items() if value is not None}
    packed = {name: value.astype(np.int32 if name == "axes" else np.float32) for name, value in tracks.items()}
    np.savez(sink, allow_pickle=False, facts=np.frombuffer(facts, np.uint8), **packed)
    return sink.getvalue()


def _load(store: Store, version: str, places: set[tuple[int, int, int]]) -> dict[tuple[int, int, int], Print]:
    loaded = {}
    for day, file in sorted({place[:2] for place in places}):
        name = f"{_prefix(version)}/rows/{date.fromordinal(day).isoformat()}-{file:016x}"
        rows = sorted(row for other, number, row in places if (other, number) == (day, file))
        count = int.from_bytes(store.get_range(name, 0, 8), "little")
        spans = [np.frombuffer(data, "<u8") for data in ranges(store, name, [(8 + 8 * row, 16) for row in rows])]
        start = 8 + 8 * (count + 1)
        for row, data in zip(rows, ranges(store, name, [(start + int(low), int(high - low)) for low, high in spans]), strict=True):
            loaded[day, file, row] = _unpack(data)
    return loaded


def _unpack(data: bytes) -> Print:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = dict(archive)
    episode_id, day, upload = json.loads(arrays.pop("facts").tobytes())
    track = Track(*(arrays.get(name) for name in ("axes", "path", "picture"))) if arrays else None
    return Print(episode_id, day, upload, np.zeros(0, np.uint64), track)
