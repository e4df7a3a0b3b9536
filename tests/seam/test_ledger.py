"""The ledger: one row per key whatever was appended, and compaction that no reader, writer, crash or other compaction can tell from none."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.seam import ledger
from ray_jobs.seam.errors import NotFound
from ray_jobs.seam.ledger import GRACE_S, MERGED, QUIET_S, Due, append, compact, due, read, read_days
from ray_jobs.seam.store import Entry, Store, StoreConfig
from ray_jobs.seam.tables import LEDGER, to_bytes

DAY, NEXT = "2026-03-01", "2026-03-02"
NOW = 1_000_000.0
OLD = NOW - GRACE_S - 1


def fact(episode: int, score: float = 1.0, at: int = 5, error: str | None = None) -> dict[str, Any]:
    row = {"episode_id": f"{episode:032x}", "stage": "s", "version": "1", "scores": {} if error else {"x": score}, "vectors": {}, "tags": {}}
    return {**row, "picture": b"jpeg", "error": error, "seconds": 0.25, "measured_ns": at}


def age(store: Store, seconds: float) -> None:
    """Everything that is there was written so much earlier."""
    for entry in store.list("ledger"):
        path = Path(str(store.root)) / entry.key
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def files(store: Store) -> list[str]:
    return sorted(entry.key.rsplit("/", 1)[1] for entry in store.list("ledger"))


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        (fact(1, error="bad", at=1), fact(1, 2.0, at=9), 2.0),  # a result before an error
        (fact(1, 1.0, at=9), fact(1, 2.0, at=3), 2.0),  # the earlier
        (fact(1, 2.0), fact(1, 1.0), 1.0),  # the same instant: still always the same one
    ],
)
def test_of_two_rows_the_same_one_counts_whatever_the_order(tmp_path: Path, one: dict[str, Any], other: dict[str, Any], counts: float) -> None:
    for number, order in enumerate(((one, other), (other, one))):
        store = Store(StoreConfig.local(tmp_path / str(number)))
        for row in order:
            append(store, "s", "1", DAY, [row])
        assert read(store, "s", "1", [DAY])[one["episode_id"]]["scores"] == {"x": counts}


def test_only_the_wanted_days_stage_and_columns_are_read(store: Store) -> None:
    append(store, "s", "1", DAY, [fact(1)])
    append(store, "s", "1", NEXT, [fact(2)])
    append(store, "s", "2", DAY, [fact(3)])
    append(store, "st", "1", DAY, [fact(4)])
    assert set(read(store, "s", "1", [DAY])) == {fact(1)["episode_id"]}
    days = [f"2026-03-{number:02d}" for number in range(1, 29)]
    many = read_days(store, "s", "1", days, ["seconds"])
    assert {day: len(rows) for day, rows in many.items() if rows} == {DAY: 1, NEXT: 1} and len(many) == 28
    assert set(many[DAY][fact(1)["episode_id"]]) == {"episode_id", "error", "seconds", "measured_ns"}


def test_rows_of_an_earlier_schema_are_read_as_todays(store: Store) -> None:
    early = pa.schema([field for field in LEDGER if field.name != "tags"])
    store.put(f"ledger/s@1/{DAY}/old.parquet", to_bytes([{name: value for name, value in fact(1).items() if name != "tags"}], early))
    append(store, "s", "1", DAY, [fact(2)])
    assert [row["tags"] for row in read(store, "s", "1", [DAY]).values()] == [{}, {}]
    age(store, QUIET_S + 1)
    compact(store, 60)
    assert [row["tags"] for row in read(store, "s", "1", [DAY]).values()] == [{}, {}]


@pytest.mark.parametrize(
    ("written", "covers", "wanted"),
    [
        ({"a": OLD}, {}, Due()),  # alone is merged enough
        ({"a": OLD, "b": OLD}, {}, Due(("a", "b"), ("a", "b"))),
        ({"a": OLD, "b": NOW}, {}, Due()),  # somebody is writing there
        ({"a": OLD, "b": OLD, "m": NOW}, {"m": ["a", "b"]}, Due()),  # somebody may still read them
        ({"a": OLD, "b": OLD, "m": OLD}, {"m": ["a", "b"]}, Due(delete=("a", "b"))),
        ({"a": OLD, "c": OLD, "m": OLD}, {"m": ["a", "b"]}, Due(("c", "m"), ("c", "m"), ("a",))),
        ({"m": OLD, "n": OLD}, {"m": ["a"], "n": ["b"]}, Due(("m", "n"), ("m", "n"))),  # two compactions met
        ({"a": OLD, "m": OLD, "n": NOW}, {"m": ["a"], "n": ["a", "m"]}, Due(delete=("a",))),
        ({"n": OLD, "m": OLD}, {"m": ["a"], "n": ["m"]}, Due(delete=("m",))),
    ],
)
def test_what_a_round_does(written: dict[str, float], covers: dict[str, list[str]], wanted: Due) -> None:
    assert due(written, covers, NOW) == wanted


def test_many_files_become_one_and_say_the_same(store: Store) -> None:
    for number in range(20):
        append(store, "s", "1", DAY, [fact(number), fact(number + 1, 2.0, at=number % 3, error="bad" if number % 4 == 0 else None)])
    store.put(f"ledger/ingest@1/ab/{'0' * 32}.parquet", b"not ours")
    store.put(f"ledger/ingest@1/ab/{'1' * 32}.parquet", b"not ours")
    before = read(store, "s", "1", [DAY])
    assert compact(store, 60) == [] and len(files(store)) == 22  # too young
    age(store, QUIET_S + 1)
    assert compact(store, 60) == ["ledger: 20 files became fewer, 0 that others stand for were deleted"]
    assert read(store, "s", "1", [DAY]) == before and len(files(store)) == 23
    assert read_days(store, "s", "1", [DAY], ["error"])[DAY].keys() == before.keys()
    age(store, GRACE_S + 1)
    compact(store, 60)
    assert [name.startswith(MERGED) for name in files(store)] == [False, False, True]
    assert read(store, "s", "1", [DAY]) == before
    assert compact(store, 60) == []


def test_what_a_round_has_no_time_for_waits(store: Store) -> None:
    for day in (DAY, NEXT):
        for number in range(2):
            append(store, "s", "1", day, [fact(number)])
    age(store, QUIET_S + 1)
    assert compact(store, -1.0) == ["ledger: 2 folders wait for the next round"]


def test_large_files_are_read_by_column(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**fact(number), "picture": np.random.default_rng(number).bytes(4000)} for number in range(200)]
    key = append(store, "s", "1", DAY, rows)
    assert store.head(key).size > ledger.WHOLE_BYTES
    monkeypatch.setattr(Store, "get", lambda self, key: pytest.fail("the whole file was read"))
    assert len(read(store, "s", "1", [DAY], ["error"])) == 200


class Died(Exception):
    pass


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_no_interleaving_of_rounds_crashes_and_writers_loses_a_row(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Rounds that die after any write or delete, rounds that work on an old listing, writers in between: a reader always finds every key."""
    store = Store(StoreConfig.local(tmp_path_factory.mktemp("store")))
    written: dict[str, list[dict[str, Any]]] = {}
    stale: list[Entry] = []
    for _ in range(data.draw(st.integers(3, 12))):
        match data.draw(st.sampled_from(["append", "compact", "die", "stale", "list", "age"])):
            case "append":
                rows = [fact(data.draw(st.integers(0, 5)), data.draw(st.sampled_from([1.0, 2.0])), data.draw(st.integers(1, 3)))]
                append(store, "s", "1", DAY, rows)
                for row in rows:
                    written.setdefault(row["episode_id"], []).append(row)
            case "age":
                age(store, data.draw(st.sampled_from([QUIET_S + 1, GRACE_S + 1])))
            case "list":
                stale = list(store.list("ledger"))
            case "compact":
                compact(store, 60)
            case "stale":  # a round that listed long ago and only now goes on
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(store, "list", lambda prefix="", entries=stale: iter(entries))
                    compact(store, 60)
            case "die":
                left = data.draw(st.integers(0, 2))

                def dying(do: Any, left: list[int] = [left]) -> Any:  # noqa: B006 - shared by put and delete on purpose
                    def act(*args: Any) -> Any:
                        left[0] -= 1
                        if left[0] < 0:
                            raise Died
                        return do(*args)

                    return act

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(store, "put", dying(store.put))
                    patch.setattr(store, "delete", dying(store.delete))
                    with contextlib.suppress(Died):
                        compact(store, 60)
        found = read(store, "s", "1", [DAY])
        assert found.keys() == written.keys()
        for episode_id, rows in written.items():
            first = min(row["measured_ns"] for row in rows)
            assert found[episode_id]["measured_ns"] == first
            assert found[episode_id]["scores"]["x"] == min(row["scores"]["x"] for row in rows if row["measured_ns"] == first)


def test_a_reader_whose_listing_is_older_than_the_grace_lists_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        append(store, "s", "1", DAY, [fact(number)])
    listed = list(store.list("ledger"))
    age(store, QUIET_S + 1)
    compact(store, 60)
    age(store, GRACE_S + 1)
    compact(store, 60)
    real, first = Store.list, [listed]
    monkeypatch.setattr(Store, "list", lambda self, prefix="": iter(first.pop()) if first else real(self, prefix))
    assert len(read(store, "s", "1", [DAY])) == 3


def test_a_file_that_is_listed_and_never_there_is_an_error_of_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ghost = Entry(key=f"ledger/s@1/{DAY}/ghost.parquet", size=1, etag="", modified_ns=time.time_ns())
    monkeypatch.setattr(Store, "list", lambda self, prefix="": iter([ghost]))
    with pytest.raises(NotFound, match="try again"):
        read(store, "s", "1", [DAY])
