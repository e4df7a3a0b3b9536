"""The ingest job over days: counts that add up, nothing read twice, and failures that are not facts."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.record import record_day
from ray_jobs.driver import Execution
from ray_jobs.episode import Episode, read_episode, read_meta
from ray_jobs.ingest import job
from ray_jobs.ingest.days import DAY_NS, HOUR_NS
from ray_jobs.ingest.index import IndexResult, index
from ray_jobs.ingest.job import read_upload, run
from ray_jobs.seam.configs import IngestConfig, IngestSettings, Limits, UploadsConfig
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.results import DayResult
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes
from tests.ingest.bags import ros1, ros2
from tests.ingest.faults import die, fail, hang
from tests.ingest.recorded import HZ, NOON, SECOND, episode, joints, mcap, write
from tests.ingest.test_lerobot_reader import movie

DAY, NEXT = "2026-01-05", "2026-01-06"
Row = dict[str, Any]


class Loop:
    """Index and ingest over one store, as the assets do it. `read` does in this process what the Ray tasks do."""

    def __init__(self, store: Store, raw: Store):
        self.store, self.raw = store, raw
        self.previous: str | None = None
        self.settings = IngestSettings()

    def put(self, path: str, content: bytes, modified_ns: int = NOON + HOUR_NS) -> None:
        assert self.raw.root is not None
        os.utime(write(self.raw.root / path, content), ns=(modified_ns, modified_ns))

    def index(self) -> IndexResult:
        result = index(UploadsConfig(store=self.store.config, raw=self.raw.config, previous=self.previous))
        self.previous = result.key
        return result

    def read(self) -> None:
        assert self.previous
        for row in from_bytes(self.store.get(self.previous)):
            if row["status"] == "ok":
                read_upload(self.store, self.raw, row, self.settings)

    def run(self, *days: str) -> dict[str, DayResult]:
        assert self.previous
        config = IngestConfig(store=self.store.config, raw=self.raw.config, days=days, uploads=self.previous, settings=self.settings)
        return run(config, Execution(self.store, "attempts/test/a1/e1", report=lambda message: None))

    def rows(self, result: DayResult) -> list[Row]:
        rows = from_bytes(self.store.get(result.output["episodes"]))
        assert result.counts["uploaded"] == len(rows) == sum(result.counts[name] for name in ("ok", "quarantined", "superseded"))
        assert Counter(row["status"] for row in rows) == {name: count for name, count in result.counts.items() if count and name != "uploaded"}
        return rows

    def day(self, day: str = DAY) -> list[Row]:
        return self.rows(self.run(day)[day])


@pytest.fixture
def loop(store: Store, raw: Store, monkeypatch: pytest.MonkeyPatch) -> Loop:
    monkeypatch.setattr(job, "connect", lambda: pytest.fail("this test has nothing left to read, and Ray is not needed for that"))
    return Loop(store, raw)


def test_a_day_without_data_is_a_success_that_says_so(loop: Loop) -> None:
    loop.index()
    result = loop.run(DAY)[DAY]
    assert (result.status, result.reason) == ("ok", "no data") and loop.rows(result) == []


def test_rows_say_what_was_recorded_and_the_episode_can_be_read(loop: Loop) -> None:
    loop.put("arm-1/a.mcap", mcap(episode(task="pick")))
    loop.index()
    loop.read()
    (row,) = loop.day()
    assert {name: row[name] for name in ("day", "day_source", "robot", "task", "upload", "status", "states", "actions", "frames", "cameras", "fps")} == {
        **{"day": DAY, "day_source": "recording", "robot": "arm-9", "task": "pick", "upload": "arm-1/a.mcap", "status": "ok"},
        **{"states": 20, "actions": 20, "frames": 20, "cameras": ["front"], "fps": float(HZ)},
    }
    assert (row["start_ns"], row["end_ns"]) == (NOON + 3_000_000, NOON + 19 * SECOND // HZ + 3_000_000)
    stored = read_episode(loop.store, row["episode_id"])
    assert stored.meta.ingest == job.VERSION and len(stored.streams["camera:front"].t_ns) == 20


def test_nothing_is_read_twice_even_with_the_raw_folder_moved_away(loop: Loop, tmp_path: Path) -> None:
    loop.put("a.mcap", mcap(episode()))
    loop.put("b.mcap", b"")
    loop.put("c.mcap", mcap([]))
    loop.index()
    loop.read()
    first = loop.run(DAY)
    shutil.move(tmp_path / "raw", tmp_path / "cold")
    assert loop.run(DAY) == first and first[DAY].counts == {"uploaded": 3, "ok": 1, "quarantined": 2, "superseded": 0}
    assert not (tmp_path / "raw").exists()


def test_other_settings_read_anew(loop: Loop) -> None:
    loop.put("a.mcap", mcap(episode()))
    loop.index()
    loop.read()
    assert len(loop.day()) == 1
    upload = from_bytes(loop.store.get(loop.previous or ""))[0]
    assert job.recall(loop.store, upload, loop.settings) and job.recall(loop.store, upload, IngestSettings(quiet_s=9))
    assert job.recall(loop.store, upload, IngestSettings(day_starts_at_hour=4)) is None


def test_a_recording_over_midnight_gives_each_day_its_own(loop: Loop) -> None:
    midnight = (NOON // DAY_NS + 1) * DAY_NS
    loop.put("a.mcap", mcap(episode(midnight - 60 * SECOND, seed=1) + episode(midnight + 60 * SECOND, seed=2)), midnight + HOUR_NS)
    loop.index()
    loop.read()
    days = loop.run(DAY, NEXT)
    assert [loop.rows(days[day])[0]["day"] for day in (DAY, NEXT)] == [DAY, NEXT]
    assert [days[day].counts["ok"] for day in (DAY, NEXT)] == [1, 1]


def test_a_clock_at_1970_takes_the_uploads_day(loop: Loop) -> None:
    loop.put("a.mcap", mcap(episode(1_000 * SECOND)))
    loop.index()
    loop.read()
    (row,) = loop.day()
    assert (row["day"], row["day_source"], row["status"]) == (DAY, "upload", "ok")


def test_a_replaced_upload_is_superseded_row_by_row(loop: Loop) -> None:
    two = episode(seed=1) + episode(NOON + 60 * SECOND, seed=2)
    loop.put("a.mcap", mcap(two))
    loop.index()
    loop.read()
    before = {row["episode_id"] for row in loop.day()}
    loop.put("a.mcap", mcap(two + episode(NOON + 120 * SECOND, seed=3)), NOON + 2 * HOUR_NS)
    loop.index()
    loop.read()
    rows = loop.day()
    assert Counter(row["status"] for row in rows) == {"ok": 3, "superseded": 2}
    assert {row["episode_id"] for row in rows if row["status"] == "superseded"} == before < {row["episode_id"] for row in rows if row["status"] == "ok"}
    assert {row["reason"] for row in rows if row["status"] == "superseded"} == {"replaced by newer content"}


def test_an_upload_replaced_before_it_was_read_is_one_superseded_row(loop: Loop) -> None:
    loop.put("a.mcap", mcap(episode(seed=1)))
    loop.index()
    loop.put("a.mcap", mcap(episode(seed=2)), NOON + 2 * HOUR_NS)
    loop.index()
    loop.read()
    assert Counter(row["status"] for row in loop.day()) == {"ok": 1, "superseded": 1}


def test_the_same_episode_twice_is_two_rows_of_one_id(loop: Loop) -> None:
    loop.put("a.mcap", mcap(episode()))
    loop.put("copy/again.mcap", mcap(episode(), chunk_bytes=999))
    loop.index()
    loop.read()
    first, second = loop.day()
    assert first["episode_id"] == second["episode_id"] and [first["upload"], second["upload"]] == ["a.mcap", "copy/again.mcap"]
    assert first["status"] == second["status"] == "ok"


def test_of_two_uploads_read_at_once_the_earlier_logged_is_stored(loop: Loop) -> None:
    said = episode()
    loop.put("a-later.mcap", mcap([type(m)(m.topic, m.type, m.log_ns + HOUR_NS // 60, m.fields, m.stamp_ns, m.published_ns) for m in said]))
    loop.put("b-first.mcap", mcap(said))
    loop.index()
    uploads = from_bytes(loop.store.get(loop.previous or ""))
    facts = {(u["path"], u["digest"]): read_upload(loop.store, loop.raw, u, loop.settings) for u in uploads}
    (episode_id,) = {rows[0]["episode_id"] for rows in facts.values()}
    assert read_meta(loop.store, episode_id).upload == "a-later.mcap"
    config = IngestConfig(store=loop.store.config, raw=loop.raw.config, days=(DAY,), uploads=loop.previous or "")
    job._settle_duplicates(uploads, facts, config, loop.store)
    assert read_meta(loop.store, episode_id).upload == "b-first.mcap"
    assert read_episode(loop.store, episode_id).streams["state"].log_ns[0] == NOON + 3_000_000


def test_an_upload_that_went_before_it_was_read_is_a_row_and_a_missing_store_is_not(loop: Loop) -> None:
    loop.put("a.mcap", mcap(episode(seed=1)))
    loop.put("b.mcap", mcap(episode(seed=2)))
    loop.index()
    row = from_bytes(loop.store.get(loop.previous or ""))[0]
    loop.raw.delete("a.mcap")
    (gone,) = read_upload(loop.store, loop.raw, row, loop.settings)
    assert (gone["status"], gone["reason"]) == ("quarantined", "gone from the raw store before it was read")
    loop.raw.delete("b.mcap")
    with pytest.raises(StoreError, match="is it mounted"):
        read_upload(loop.store, loop.raw, row, loop.settings)


def test_a_full_disk_is_a_store_error_and_no_row(loop: Loop, tmp_path: Path) -> None:
    loop.put("a.mcap", mcap(episode(steps=200)))
    loop.index()
    program = (
        "import resource, sys\n"
        "from ray_jobs.ingest.job import read_upload\n"
        "from ray_jobs.seam.configs import IngestSettings\n"
        "from ray_jobs.seam.errors import StoreError\n"
        "from ray_jobs.seam.store import Store, StoreConfig\n"
        "from ray_jobs.seam.tables import from_bytes\n"
        "store, raw = (Store(StoreConfig(url=url)) for url in sys.argv[1:3])\n"
        "row = from_bytes(store.get(sys.argv[3]))[0]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    read_upload(store, raw, row, IngestSettings())\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    before = sorted(entry.key for entry in loop.store.list())
    command = [sys.executable, "-c", program, loop.store.config.url, loop.raw.config.url, loop.previous or ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot ") and len(done.stdout.splitlines()) == 1
    assert sorted(entry.key for entry in loop.store.list() if not entry.key.endswith(".mp4")) == before, "no facts and no episode"


def test_a_long_recording_is_read_in_flat_memory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.ingest.long_recording", str(tmp_path), "120"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["frames"] == measured["recorded"] == 1200 and measured["states"] == 12_000
    assert measured["growth_bytes"]["reading"] < 24_000_000, measured
    assert measured["growth_bytes"]["storing"] < 150_000_000, "the store's own parts in flight (12 of 8 MiB), however long the clip"


def test_a_day_of_the_fleet_on_ray(store: Store, raw: Store, local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert raw.root is not None
    record_day(raw.root, tmp_path / "truth", DAY, ("arm-1",), 8, seed=3, damaged=0.5, planted=("truncated_file", "duplicate_upload"))
    loop = Loop(store, raw)
    loop.put("arm-1/broken.mcap", b"\x89MCAP0\r\n" + b"\x05" * 40)
    loop.index()
    rows = loop.day()
    assert {row["robot"] for row in rows if row["status"] == "ok"} == {"arm-1"} and {row["day"] for row in rows} == {DAY}
    ids = Counter(row["episode_id"] for row in rows if row["status"] == "ok")
    assert max(ids.values()) == 2, "a planted duplicate has the id of what it copies"
    assert [row["upload"] for row in rows if row["status"] == "quarantined"] == ["arm-1/broken.mcap"]
    assert any("no end marker" in note for row in rows for note in row["notes"]), "a planted truncation"
    for episode_id in ids:
        stored: Episode = read_episode(store, episode_id)
        assert stored.meta.cameras["front"].frames == len(stored.streams["camera:front"].t_ns)
    monkeypatch.setattr(job, "connect", lambda: pytest.fail("everything was read"))
    assert loop.day() == rows


def test_a_store_that_fails_in_a_task_fails_the_job_in_one_line(store: Store, raw: Store, local_ray: None, tmp_path: Path) -> None:
    loop = Loop(store, raw)
    loop.put("a.mcap", mcap(episode()))
    loop.index()
    shutil.rmtree(tmp_path / "raw")
    (tmp_path / "raw").mkdir()
    with pytest.raises(job.FlywheelError, match="is it mounted") as caught:
        loop.run(DAY)
    assert caught.value.failure_class == "infrastructure" and "\n" not in str(caught.value)


@pytest.mark.parametrize(("fault", "why"), [(die, "worker died unexpectedly"), (fail, "ZeroDivisionError: a reader's own mistake")])
def test_a_reader_that_dies_or_fails_costs_its_upload_alone(
    store: Store, raw: Store, local_ray: None, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None], why: str
) -> None:
    loop = Loop(store, raw)
    loop.put("a.mcap", mcap([joints("/joint_states", NOON, [1.0])]))
    loop.index()
    monkeypatch.setattr(job, "_task", fault)
    (row,) = loop.day()
    assert row["status"] == "quarantined" and row["reason"].startswith("the reader failed: ") and why in row["reason"]
    monkeypatch.undo()
    assert [row["status"] for row in loop.day()] == ["ok"], "what failed for no fault of the upload is tried again"


def test_a_reader_that_hangs_costs_its_upload_alone(store: Store, raw: Store, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(store, raw)
    loop.settings = IngestSettings(limits=Limits(read_s=5))
    loop.put("a.mcap", mcap([joints("/joint_states", NOON, [1.0])]))
    loop.index()
    monkeypatch.setattr(job, "_task", hang)
    (row,) = loop.day()
    assert (row["status"], row["reason"]) == ("quarantined", "reading it took longer than limits.read_s (5 s)")


@pytest.mark.parametrize("kind", ["folder", "split", "video"])
def test_an_upload_of_several_files_is_found_again_by_its_digest(loop: Loop, tmp_path: Path, kind: str) -> None:
    said = episode(steps=30, marked=False)
    if kind == "folder":
        ros2(tmp_path / "raw/x/rec", said)
    elif kind == "split":
        loop.put("x/rec_0.bag", ros1(tmp_path / "made/0.bag", said[:45]).read_bytes())
        loop.put("x/rec_1.bag", ros1(tmp_path / "made/1.bag", said[45:]).read_bytes())
    else:
        loop.put("x/rec.mcap", mcap([message for message in said if "camera" not in message.topic]))
        loop.put("x/rec.mp4", movie(tmp_path / "made/rec.mp4", 30).read_bytes())
    loop.index()
    loop.read()
    (upload,) = from_bytes(loop.store.get(loop.previous or ""))
    (row,) = loop.rows(loop.run(*upload["days"])[upload["days"][-1]])
    assert (row["status"], row["states"], row["robot"]) == ("ok", 30, "x" if kind != "video" else "arm-9")
    assert row["frames"] in (30, 31) and row["cameras"]


def test_the_raw_store_may_itself_be_a_bag(loop: Loop, tmp_path: Path) -> None:
    ros2(tmp_path / "made/raw", episode(steps=30, marked=False))
    shutil.copytree(tmp_path / "made/raw", tmp_path / "raw", dirs_exist_ok=True)
    loop.index()
    loop.read()
    (upload,) = from_bytes(loop.store.get(loop.previous or ""))
    (row,) = loop.rows(loop.run(*upload["days"])[upload["days"][-1]])
    assert (upload["path"], upload["format"], row["status"], row["states"]) == (".", "rosbag2", "ok", 30)
