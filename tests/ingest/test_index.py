"""The index of uploads: complete, replaced, vanished, foreign, and on which day."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.ingest import mcap_file
from ray_jobs.ingest.days import DAY_NS, HOUR_NS, day_of, episode_day, upload_days
from ray_jobs.ingest.index import IndexResult, index
from ray_jobs.ingest.job import read_upload
from ray_jobs.seam.configs import IngestSettings, UploadsConfig
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import from_bytes
from tests.ingest.recorded import NOON, SECOND, Layout, episode, joints, mcap, write

Step = Callable[..., tuple[IndexResult, dict[tuple[str, str], Any]]]
DAY = "2026-01-05"


@pytest.fixture
def step(raw: Store, store: Store) -> Step:
    """One run of the index after the last: its result, and its rows by (path, status)."""
    last: list[str] = []

    def go(settings: IngestSettings | None = None, now_ns: int | None = None) -> tuple[IndexResult, dict[tuple[str, str], Any]]:
        config = UploadsConfig(store=store.config, raw=raw.config, previous=last[-1] if last else None, settings=settings or IngestSettings())
        result = index(config, now_ns)
        last.append(result.key)
        return result, {(row["path"], row["status"]): row for row in from_bytes(store.get(result.key))}

    return go


def put(raw: Store, path: str, content: bytes, modified_ns: int = NOON + HOUR_NS) -> None:
    assert raw.root is not None
    os.utime(write(raw.root / path, content), ns=(modified_ns, modified_ns))


def test_an_empty_folder_is_an_empty_index(step: Step) -> None:
    result, rows = step()
    assert rows == {} and result.days == {} and result.counts["uploads"] == 0


def test_a_second_run_opens_nothing_and_writes_the_same(raw: Store, step: Step) -> None:
    put(raw, "arm-1/a.mcap", mcap(episode(), robot=None))
    first, rows = step()
    second, _ = step()
    assert first.counts["opened"] == 1 and second.counts["opened"] == 0
    assert (first.key, first.days) == (second.key, second.days)
    assert rows["arm-1/a.mcap", "ok"]["robot"] == "arm-1" and rows["arm-1/a.mcap", "ok"]["days"] == [DAY]


def test_replaced_content_is_a_new_row_and_the_old_one_stays(raw: Store, step: Step) -> None:
    put(raw, "a.mcap", mcap(episode()))
    first, before = step()
    put(raw, "a.mcap", mcap(episode(NOON + DAY_NS)), NOON + 2 * DAY_NS)
    second, rows = step()
    assert rows["a.mcap", "superseded"] == {**before["a.mcap", "ok"], "status": "superseded", "reason": "replaced by newer content"}
    assert rows["a.mcap", "ok"]["days"] == ["2026-01-06"] and second.counts["uploads"] == 2
    assert second.days[DAY] != first.days[DAY], "the old day must be looked at again"
    put(raw, "a.mcap", mcap(episode()))
    _, rows = step()
    assert len(rows) == 3 or rows["a.mcap", "ok"]["days"] == [DAY]


def test_an_upload_that_vanished_stays_on_record(raw: Store, step: Step) -> None:
    put(raw, "a.mcap", mcap(episode()))
    first, _ = step()
    raw.delete("a.mcap")
    second, rows = step()
    assert second == first.model_copy(update={"counts": first.counts | {"opened": 0}}) and ("a.mcap", "ok") in rows


def test_a_late_upload_changes_its_day_alone(raw: Store, step: Step) -> None:
    put(raw, "a.mcap", mcap(episode()))
    put(raw, "b.mcap", mcap(episode(NOON + DAY_NS)), NOON + 2 * DAY_NS)
    first, _ = step()
    put(raw, "late.mcap", mcap(episode(NOON + HOUR_NS, seed=5)), NOON + 9 * DAY_NS)
    second, _ = step()
    assert {day for day in second.days if second.days[day] != first.days.get(day)} == {DAY}


@pytest.mark.parametrize("name", ["a.mcap.part", "a.mcap.tmp", ".a.mcap", ".hidden/a.mcap", "a.mcap.f3b2.partial", "a.mcap~"])
def test_what_is_not_whole_yet_waits(raw: Store, step: Step, name: str) -> None:
    put(raw, name, mcap(episode()))
    assert step()[1] == {}


def test_a_young_upload_waits_until_it_is_quiet(raw: Store, step: Step) -> None:
    put(raw, "a.mcap", mcap(episode()), NOON)
    settings = IngestSettings(quiet_s=60)
    result, rows = step(settings, NOON + 59 * SECOND)
    assert rows == {} and result.counts["waiting"] == 1
    assert len(step(settings, NOON + 60 * SECOND)[1]) == 1


FOREIGN = {
    "notes.txt": (b"hello", "an unknown format"),
    "picture.mcap": (b"\xff\xd8\xff\xe0JFIF", "not an MCAP file although it is named so: a JPEG picture"),
    "nothing.mcap": (b"", "an empty file (0 bytes)"),
    "old.bag": (b"#ROSBAG V1.2\n", "not a ROS 1 bag of format 2.0: it does not begin with its magic line"),
    "policy.pkl": (b"\x80\x04\x95", "a pickle: never opened, because that runs what it holds"),
    "model.xml": (b"<mujoco model='x'>", "a robot's model, and no recording"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_rows_with_a_reason_on_their_uploads_day(raw: Store, step: Step, name: str) -> None:
    content, reason = FOREIGN[name]
    put(raw, f"arm-1/{name}", content)
    _, rows = step()
    row = rows[f"arm-1/{name}", "quarantined"]
    assert (row["reason"], row["days"], row["format"], row["robot"]) == (reason, [DAY], "ros1" if name == "old.bag" else "unknown", "arm-1")


def test_a_renamed_mcap_is_known_by_its_content_and_sidecars_are_no_uploads(raw: Store, step: Step) -> None:
    put(raw, "bag/data.bin", mcap(episode()))
    for name in ("bag/metadata.yaml", "bag/LICENSE", "README.md", "bag/x.db3-wal"):
        put(raw, name, b"text")
    _, rows = step()
    assert list(rows) == [("bag/data.bin", "ok")] and rows["bag/data.bin", "ok"]["format"] == "mcap"


def lerobot(raw: Store, folder: str, info: dict[str, Any] | bytes) -> None:
    put(raw, f"{folder}/meta/info.json", info if isinstance(info, bytes) else json.dumps(info).encode())
    put(raw, f"{folder}/data/chunk-000/file-000.parquet", b"PAR1")


def test_a_lerobot_folder_is_one_upload_and_takes_over_its_files(raw: Store, step: Step) -> None:
    put(raw, "set/data/chunk-000/file-000.parquet", b"PAR1")
    _, rows = step()
    assert list(rows) == [("set/data/chunk-000/file-000.parquet", "quarantined")]
    lerobot(raw, "set", {"codebase_version": "v3.0", "features": {}, "robot_type": "so101"})
    _, rows = step()
    assert rows["set", "ok"]["robot"] == "so101" and rows["set", "ok"]["format"] == "lerobot"
    assert rows["set/data/chunk-000/file-000.parquet", "superseded"]["reason"] == "now part of the set set"


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (b"{", "meta/info.json is not JSON"),
        ({"features": {}, "codebase_version": "v1.6"}, "LeRobot v1.6 is not read, only v2.0, v2.1, v3.0"),
        ([1], "meta/info.json is not a LeRobot document"),
    ],
)
def test_a_lerobot_folder_that_is_none_is_quarantined(raw: Store, step: Step, info: Any, reason: str) -> None:
    lerobot(raw, "set", info)
    _, rows = step()
    assert rows["set", "quarantined"]["reason"].startswith(reason)


MIDNIGHT = (NOON // DAY_NS + 1) * DAY_NS
SPANS: dict[str, tuple[Layout, float]] = {
    "with a summary": (Layout(), 1),
    "chunked without": (Layout(summary=False, indexed=False), 1),
    "unchunked without": (Layout(summary=False, indexed=False, chunked=False), 1),
    "truncated": (Layout(chunk_bytes=512), 0.7),
}


@pytest.mark.parametrize("name", SPANS)
def test_a_recording_over_midnight_names_both_days(raw: Store, step: Step, name: str) -> None:
    layout, share = SPANS[name]
    said = [joints("/joint_states", MIDNIGHT + (n - 30) * SECOND, [float(n)] * 3) for n in range(90)]
    content = mcap(said, layout)
    put(raw, "a.mcap", content[: int(len(content) * share)], MIDNIGHT + HOUR_NS)
    _, rows = step()
    assert rows["a.mcap", "ok"]["days"] == [DAY, "2026-01-06"]
    assert rows["a.mcap", "ok"]["robot"] == "arm-9"


@pytest.mark.parametrize("start_ns", [1_000 * SECOND, NOON + 400 * DAY_NS], ids=["1970", "the future"])
def test_an_absurd_clock_gives_way_to_the_uploads_day(raw: Store, step: Step, start_ns: int) -> None:
    put(raw, "a.mcap", mcap(episode(start_ns)))
    _, rows = step()
    assert rows["a.mcap", "ok"]["days"] == [DAY]


def test_a_peek_reads_a_bounded_part_of_a_long_recording(raw: Store, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [joints("/joint_states", NOON + n * SECOND // 100, [float(n % 7)] * 3) for n in range(20_000)]
    put(raw, "a.mcap", mcap(said, Layout(chunked=False, summary=False, indexed=False)))
    read: list[int] = []
    monkeypatch.setattr(mcap_file, "PEEK_RECORDS", 500)
    ranged = Store.get_range
    monkeypatch.setattr(Store, "get_range", lambda self, key, start, length: read.append(length) or ranged(self, key, start, length))  # type: ignore[func-returns-value]
    _, rows = step()
    assert sum(read) < 0.4 * rows["a.mcap", "ok"]["size"] and rows["a.mcap", "ok"]["days"] == [DAY]


def test_a_raw_store_that_cannot_be_opened_is_one_line(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path / "raw-is-a-file", b"x")
    with pytest.raises(StoreError, match="cannot open the store") as caught:
        index(UploadsConfig(store=store.config, raw=StoreConfig.local(file)))
    assert "\n" not in str(caught.value)


def test_the_command_prints_the_result_as_its_last_line(raw: Store, store: Store, tmp_path: Path) -> None:
    put(raw, "a.mcap", mcap(episode()))
    config = UploadsConfig(store=store.config, raw=raw.config)
    file = write(tmp_path / "config.json", config.model_dump_json().encode())
    command = [sys.executable, "-m", "ray_jobs.ingest.index", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert IndexResult.model_validate_json(done.stdout.splitlines()[-1]).days.keys() == {DAY}
    file.write_text(json.dumps({**config.model_dump(), "unknown": 1}))
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 1 and "unknown" in wrong.stderr and "Traceback" not in wrong.stderr


@given(start=st.integers(NOON - 40 * DAY_NS, NOON), length=st.integers(0, 3 * DAY_NS), inside=st.floats(0, 1), hour=st.integers(0, 23))
def test_an_episodes_day_is_one_that_the_index_names(start: int, length: int, inside: float, hour: int) -> None:
    settings = IngestSettings(day_starts_at_hour=hour)
    named = upload_days(start, start + length, NOON + 5 * DAY_NS, settings)
    day, source = episode_day(start + int(inside * length), NOON + 5 * DAY_NS, named, settings)
    assert day in named and source == "recording" and day == day_of(start + int(inside * length), settings)
    assert len(named) == len(set(named)) and named == sorted(named)


def test_a_day_may_begin_at_another_hour() -> None:
    assert day_of(MIDNIGHT + 3 * HOUR_NS, IngestSettings(day_starts_at_hour=4)) == DAY
    assert day_of(MIDNIGHT + 4 * HOUR_NS, IngestSettings(day_starts_at_hour=4)) == "2026-01-06"


def test_a_raw_store_in_s3_is_indexed_and_read(store: Store, moto_s3: StoreConfig) -> None:
    raw = Store(moto_s3)
    content = mcap(episode(), chunk_bytes=1 << 20)
    raw.put("arm-1/a.mcap", content)
    raw.put("arm-1/b.mcap", b"")
    result = index(UploadsConfig(store=store.config, raw=moto_s3))
    rows = {row["path"]: row for row in from_bytes(store.get(result.key))}
    assert rows["arm-1/a.mcap"]["robot"] == "arm-9" and rows["arm-1/b.mcap"]["reason"] == "an empty file (0 bytes)"
    assert index(UploadsConfig(store=store.config, raw=moto_s3, previous=result.key)).counts["opened"] == 0
    (read,) = read_upload(store, raw, rows["arm-1/a.mcap"], IngestSettings())
    assert (read["status"], read["states"], read["frames"]) == ("ok", 20, 20)


def test_what_earlier_readers_could_not_read_is_looked_at_again_once(raw: Store, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    put(raw, "arm-1/a.bin", mcap(episode()))
    put(raw, "arm-1/b.bin", b"still unknown")
    with monkeypatch.context() as before:
        before.setattr("ray_jobs.ingest.index.READERS", ())
        before.setattr("ray_jobs.ingest.index.READERS_DIGEST", "others")
        _, rows = step()
        assert rows["arm-1/a.bin", "quarantined"]["reason"] == "an unknown format"
        assert step()[0].counts["opened"] == 0, "the same readers do not look twice"
    result, rows = step()
    assert result.counts["opened"] == 2 and set(rows) == {("arm-1/a.bin", "ok"), ("arm-1/b.bin", "quarantined")}
    assert rows["arm-1/a.bin", "ok"]["format"] == "mcap" and rows["arm-1/a.bin", "ok"]["days"] == [DAY]
    assert step()[0].counts["opened"] == 0


def test_a_part_that_arrives_makes_one_upload_of_what_were_two(raw: Store, step: Step) -> None:
    said = episode(steps=30, marked=False)
    put(raw, "rec/rec_0.mcap", mcap(said[:45]))
    step()
    put(raw, "rec/rec_1.mcap", mcap(said[45:]))
    _, rows = step()
    assert rows["rec/rec_0.mcap", "ok"]["size"] == len(mcap(said[:45])) + len(mcap(said[45:]))
    assert rows["rec/rec_0.mcap", "superseded"]["reason"] == "replaced by newer content" and len(rows) == 2


def test_a_file_that_becomes_a_companion_is_superseded(raw: Store, step: Step) -> None:
    put(raw, "run.mp4", b"\0\0\0\x18ftypmp42")
    _, rows = step()
    assert rows["run.mp4", "quarantined"]["reason"] == "a video without a recording beside it"
    put(raw, "run.mcap", mcap(episode()))
    _, rows = step()
    assert rows["run.mp4", "superseded"]["reason"] == "now part of the set run.mcap" and ("run.mcap", "ok") in rows
