"""Videos beside a recording: found by name, put on its clock, and said how."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs.ingest.reader import Refused
from ray_jobs.ingest.sidecar import _absolute
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store
from tests.ingest.bags import ros1
from tests.ingest.recorded import NOON, SECOND, Taken, episode, joints, picture, write
from tests.ingest.test_hdf5_reader import robomimic
from tests.ingest.test_lerobot_reader import FPS, movie

Take = Callable[..., list[Taken | Refused]]
FRAMES = 30


def states(root: Path, seconds: float = 3.0) -> None:
    ros1(root / "run.bag", [joints("/joint_states", NOON + n * SECOND // 50, [n], lag_ns=0) for n in range(int(seconds * 50))])


def one(found: list[Taken | Refused]) -> Taken:
    (item,) = found
    assert isinstance(item, Taken)
    return item


def test_without_times_the_video_begins_with_the_recording(raw: Store, tmp_path: Path, take: Take) -> None:
    states(tmp_path / "raw")
    movie(tmp_path / "raw/run_front.mp4", FRAMES)
    item = one(take(raw, "run.bag"))
    assert list(item.meta.cameras) == ["front"] and item.meta.fps == FPS and len(item.pictures["front"]) == FRAMES
    assert np.array_equal(item.streams["camera:front"].t_ns, NOON + np.arange(FRAMES) * SECOND // FPS)
    assert "camera from the video beside it, run_front.mp4: times from its own frames, as if it began with the recording" in item.meta.notes


def of(unit: float, offset: float = 0.0) -> list[float]:
    return [offset + (0.5 + n / FPS) * unit for n in range(FRAMES)]


TIMES: dict[str, tuple[str, Callable[[], str]]] = {
    "ns since 1970": ("csv", lambda: "frame,timestamp_ns\n" + "\n".join(f"{n},{NOON + round(t)}" for n, t in enumerate(of(1e9)))),
    "s since 1970": ("txt", lambda: "\n".join(repr(NOON / 1e9 + t) for t in of(1))),
    "ms since 1970": ("json", lambda: json.dumps([NOON / 1e6 + t for t in of(1e3)])),
    "s since the start": ("csv", lambda: "idx;time\n" + "\n".join(f"{n};{t}" for n, t in enumerate(of(1)))),
    "ms since the start": ("txt", lambda: "# timecode format v2\n" + "\n".join(map(str, of(1e3)))),
    "us, in a document": ("json", lambda: json.dumps({"fps": 10, "timestamps": of(1e6)})),
}


@pytest.mark.parametrize("how", TIMES)
def test_times_beside_the_video_count_in_every_unit(raw: Store, tmp_path: Path, take: Take, how: str) -> None:
    suffix, text = TIMES[how]
    states(tmp_path / "raw", 6)
    movie(tmp_path / "raw/run/top.mp4", FRAMES)
    write(tmp_path / f"raw/run/top_timestamps.{suffix}", text().encode())
    item = one(take(raw, "run.bag"))
    expected = NOON + SECOND // 2 + np.arange(FRAMES) * SECOND // FPS
    assert np.abs(item.streams["camera:top"].t_ns - expected).max() < 2_000
    assert any(note.endswith(f"top.mp4: times from top_timestamps.{suffix}") for note in item.meta.notes)


def test_each_episode_takes_its_own_stretch(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [m for start in (NOON, NOON + 5 * SECOND) for m in episode(start, 20) if "camera" not in m.topic]
    ros1(tmp_path / "raw/run.bag", said)
    movie(tmp_path / "raw/run.mp4", 80, gop=4)
    for item, first in zip(take(raw, "run.bag"), (0, 50), strict=True):
        assert isinstance(item, Taken)
        clip = item.meta.cameras["camera"]
        assert 19 <= clip.frames <= 22 and len(item.pictures["camera"]) == clip.frames + clip.lead_in
        shown = item.pictures["camera"][clip.lead_in].astype(float)
        begins = round((int(item.streams["camera:camera"].t_ns[0]) - NOON) * FPS / SECOND)
        assert abs(begins - first) <= 1 and np.abs(shown - picture(begins)).mean() < 6


def test_a_recording_with_a_camera_keeps_its_own(raw: Store, tmp_path: Path, take: Take) -> None:
    ros1(tmp_path / "raw/run.bag", episode())
    movie(tmp_path / "raw/run.mp4", FRAMES)
    assert list(one(take(raw, "run.bag")).meta.cameras) == ["front"]


def test_a_video_that_cannot_be_used_is_noted_and_the_states_stay(raw: Store, tmp_path: Path, take: Take) -> None:
    states(tmp_path / "raw")
    write(tmp_path / "raw/run_a.mp4", b"not a video")
    movie(tmp_path / "raw/run_b.mp4", FRAMES)
    write(tmp_path / "raw/run_b.csv", b"name\nanna\nbert\n")
    movie(tmp_path / "raw/run_c.mp4", FRAMES)
    write(tmp_path / "raw/run_c.json", json.dumps([NOON + 3600 * SECOND + n for n in range(FRAMES)]).encode())
    item = one(take(raw, "run.bag"))
    assert not item.meta.cameras and len(item.streams["state"].t_ns) == 150
    notes = [note for note in item.meta.notes if note.startswith("the video")]
    assert len(notes) == 3 and "run_b.csv holds no list of times" in notes[1] and notes[2].endswith("shows nothing of its time")


def test_a_recording_without_a_clock_takes_it_where_it_is_one_episode(raw: Store, tmp_path: Path, take: Take) -> None:
    for name, lengths in (("one", (20,)), ("two", (20, 20))):
        robomimic(tmp_path / f"raw/{name}.hdf5", lengths, images=False, control_freq=10)
        movie(tmp_path / f"raw/{name}.mp4", 20)
    item = one(take(raw, "one.hdf5"))
    assert item.meta.cameras["camera"].frames == 20 and item.streams["camera:camera"].t_ns[0] == 0
    assert [item.meta.cameras for item in take(raw, "two.hdf5") if isinstance(item, Taken)] == [{}, {}]


@pytest.mark.parametrize("raw_times", [[1e300, 2e300], [0.0, 1e17, 2e17]])
def test_absurd_times_are_refused(raw_times: Any) -> None:
    with pytest.raises(DataError):
        _absolute(np.array(raw_times), NOON)
