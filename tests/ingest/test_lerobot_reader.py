"""LeRobot folders that are not as they say."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ray_jobs.ingest.clips import cut
from ray_jobs.ingest.reader import Refused
from ray_jobs.seam.configs import IngestSettings, Limits
from ray_jobs.seam.store import Store
from tests.ingest.recorded import Taken, picture, write

Take = Callable[..., list[Taken | Refused]]
LENGTHS = (12, 9)
FPS = 10


def movie(path: Path, frames: int, gop: int = 4, b_frames: int = 0) -> Path:
    """An mp4 of `picture(n)` at FPS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=FPS, options={"g": str(gop), "bf": str(b_frames), "b-adapt": "0", "sc_threshold": "0", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        output.mux(stream.encode(None))
    return path


def v3(root: Path, gop: int = 4, images: bool = False) -> Path:
    """A v3.0 set of two episodes in one data file and one video."""
    total = sum(LENGTHS)
    camera = {"dtype": "image" if images else "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}
    features = {"observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}}, "action": {"dtype": "float32", "shape": [2]}}
    info = {"codebase_version": "v3.0", "robot_type": "so101", "fps": FPS, "features": {**features, "observation.images.top": camera}}
    paths = {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    paths["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    totals = {"total_episodes": 2, "total_frames": total, "total_tasks": 1}
    write(root / "meta/info.json", json.dumps({**info, **paths, **totals}).encode())
    write(root / "meta/stats.json", b"{}")
    rows, episodes, begin = [], [], 0
    for number, length in enumerate(LENGTHS):
        for step in range(length):
            row = {"observation.state": [number, step], "action": [step, number], "timestamp": step / FPS, "episode_index": number, "task_index": 0}
            if images:
                sink = io.BytesIO()
                Image.fromarray(picture(begin + step)).save(sink, "png")
                row["observation.images.top"] = {"bytes": sink.getvalue(), "path": None}
            rows.append(row)
        episodes.append({"episode_index": number, "tasks": ["pick"], "length": length, "data/chunk_index": 0, "data/file_index": 0})
        if not images:
            span = {"from_timestamp": begin / FPS, "to_timestamp": (begin + length) / FPS}
            episodes[-1] |= {f"videos/observation.images.top/{name}": value for name, value in {"chunk_index": 0, "file_index": 0, **span}.items()}
        begin += length
    for name, table in (("data/chunk-000/file-000", rows), ("meta/episodes/chunk-000/file-000", episodes)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(table), root / f"{name}.parquet")
    pq.write_table(pa.table({"task_index": [0], "__index_level_0__": ["pick"]}), root / "meta/tasks.parquet")
    if not images:
        movie(root / "videos/observation.images.top/chunk-000/file-000.mp4", total, gop)
    return root


def check(found: list[Taken | Refused], notes: tuple[str, ...] = ()) -> None:
    for number, (item, length, begin) in enumerate(zip(found, LENGTHS, (0, LENGTHS[0]), strict=True)):
        assert isinstance(item, Taken) and item.meta.notes == notes, item
        clip, shown = item.meta.cameras["top"], item.pictures["top"]
        assert (clip.frames, len(shown)) == (length, length + clip.lead_in)
        truth = np.stack([picture(begin + step) for step in range(length)]).astype(float)
        assert np.abs(shown[clip.lead_in :] - truth).mean() < 6, "the frames are those of the episode"
        assert item.streams["state"].values.tolist() == [[number, step] for step in range(length)]
        assert item.meta.state_names == ("x", "y") and item.meta.action_names == ("action_0", "action_1") and item.meta.task == "pick"


@pytest.mark.parametrize("gop", [2, 4, 5, 12, 100])
def test_episodes_are_cut_out_wherever_the_keyframes_are(raw: Store, tmp_path: Path, take: Take, gop: int) -> None:
    v3(tmp_path / "raw/set", gop)
    found = take(raw, "set")
    check(found)
    assert isinstance(found[1], Taken) and found[1].meta.cameras["top"].lead_in == LENGTHS[0] % gop if gop < 100 else LENGTHS[0]


def test_the_raw_store_may_itself_be_the_set(raw: Store, tmp_path: Path, take: Take) -> None:
    v3(tmp_path / "raw")
    check(take(raw, "."))


def test_images_in_the_table_are_encoded(raw: Store, tmp_path: Path, take: Take) -> None:
    v3(tmp_path / "raw/set", images=True)
    check(take(raw, "set"))


def test_missing_statistics_are_a_note(raw: Store, tmp_path: Path, take: Take) -> None:
    (v3(tmp_path / "raw/set") / "meta/stats.json").unlink()
    check(take(raw, "set"), ("no stats: meta/stats.json is missing",))


def test_a_video_that_ends_early_gives_fewer_frames_and_says_so(raw: Store, tmp_path: Path, take: Take) -> None:
    movie(v3(tmp_path / "raw/set") / "videos/observation.images.top/chunk-000/file-000.mp4", LENGTHS[0] + 5)
    first, second = take(raw, "set")
    assert isinstance(first, Taken) and first.meta.notes == ()
    assert isinstance(second, Taken) and second.meta.notes == ("fewer frames than states: 5 of 9 (top)",)
    assert len(second.streams["camera:top"].t_ns) == 5 and len(second.streams["state"].t_ns) == 9


def test_what_is_missing_costs_what_needs_it(raw: Store, tmp_path: Path, take: Take) -> None:
    root = v3(tmp_path / "raw/set")
    (root / "videos/observation.images.top/chunk-000/file-000.mp4").rename(root / "videos/observation.images.top/chunk-000/file-001.mp4")
    for item in take(raw, "set"):
        assert isinstance(item, Taken) and item.meta.notes == ("its video file is missing: top",) and not item.meta.cameras
    (root / "data/chunk-000/file-000.parquet").unlink()
    for number, item in enumerate(take(raw, "set")):
        assert isinstance(item, Refused) and item.part == f"episode {number}" and "its data file is missing" in item.reason


FILES = (
    "data/chunk-000/file-000.parquet",
    "meta/episodes/chunk-000/file-000.parquet",
    "videos/observation.images.top/chunk-000/file-000.mp4",
    "meta/info.json",
)


@given(name=st.sampled_from(FILES), share=st.floats(0, 0.99), flip=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_become_rows_with_reasons(raw: Store, tmp_path: Path, take: Take, name: str, share: float, flip: bool) -> None:
    file = v3(tmp_path / "raw/set") / name
    content = bytearray(file.read_bytes())
    at = int(len(content) * share)
    if flip:
        content[at] ^= 0x55
    file.write_bytes(bytes(content if flip else content[:at]))
    assert take(raw, "set", decode=False)


def test_a_cut_through_b_frames_is_re_encoded_and_right(tmp_path: Path) -> None:
    source = movie(tmp_path / "b.mp4", 40, gop=40, b_frames=3)
    crossed = 0
    for end in range(14, 20):
        made = cut(source, tmp_path / "out.mp4", Limits(), 5 / FPS, end / FPS)
        assert made is not None and made.clip.frames == end - 5 == len(made.times_ns)
        crossed += bool(made.notes)
        with av.open(str(tmp_path / "out.mp4")) as container:
            shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(shown) == made.clip.lead_in + made.clip.frames
        truth = np.stack([picture(number) for number in range(5, end)]).astype(float)
        assert np.abs(np.stack(shown[made.clip.lead_in :]) - truth).mean() < 6
    assert crossed, "some of these ends lie between a B-frame and what it refers to"


def edited(root: Path, **changes: Any) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    for name, value in changes.items():
        info[name] = value
    (root / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_path": "../../../etc/passwd"}, "its data file is missing"),
        ({"data_path": "/etc/passwd"}, "its data file is missing"),
        ({"data_path": "data/{episode_index:900000000d}.parquet"}, "data_path of meta/info.json is no path template"),
        ({"data_path": "data/{episode_index.__class__.__mro__}.parquet"}, "data_path of meta/info.json is no path template"),
        ({"data_path": None}, "its data file is missing"),
        ({"fps": 0}, "fps is 0.0"),
        ({"fps": "NaN"}, "fps is nan"),
        ({"fps": 1e300}, "fps is 1e+300"),
        ({"features": {"observation.state": 3}}, "it has no features"),
        ({"features": []}, "it has no features"),
    ],
)
def test_documents_that_trick_are_refused(raw: Store, tmp_path: Path, take: Take, changes: dict[str, Any], reason: str) -> None:
    edited(v3(tmp_path / "raw/set"), **changes)
    found = take(raw, "set")
    assert found and all(isinstance(item, Refused) and reason in item.reason for item in found), found


def test_a_camera_is_no_path(raw: Store, tmp_path: Path, take: Take) -> None:
    root = v3(tmp_path / "raw/set", images=True)
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    name = "observation.images.../../../../tmp/escaped"
    pq.write_table(table.rename_columns([name if "top" in column else column for column in table.column_names]), root / "data/chunk-000/file-000.parquet")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    edited(root, features={name if "top" in key else key: feature for key, feature in features.items()})
    for item in take(raw, "set"):
        assert isinstance(item, Taken)
        (camera,) = item.meta.cameras
        assert "/" not in camera and not camera.startswith("."), camera


def test_few_bytes_that_stand_for_many_are_not_unpacked(raw: Store, tmp_path: Path, take: Take) -> None:
    root = v3(tmp_path / "raw/set")
    rows = 4_000_000
    zeros = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([0.0])).cast(pa.float64())
    table = pa.table({"timestamp": zeros, "episode_index": pa.array(np.zeros(rows, np.int64)), "action": zeros})
    pq.write_table(table, root / "data/chunk-000/file-000.parquet", compression="zstd")
    assert (root / "data/chunk-000/file-000.parquet").stat().st_size < 100_000
    for item in take(raw, "set", IngestSettings(limits=Limits(episode_mb=64))):
        assert isinstance(item, Refused) and "limits.episode_mb (64)" in item.reason
    for item in take(raw, "set", IngestSettings(limits=Limits(document_mb=0))):
        assert isinstance(item, Refused) and "limits.document_mb (0)" in item.reason


def test_absurd_timestamps_give_way_to_the_rate(raw: Store, tmp_path: Path, take: Take) -> None:
    root = v3(tmp_path / "raw/set")
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    at = table.column_names.index("timestamp")
    pq.write_table(table.set_column(at, "timestamp", pa.array(np.full(len(table), 1e300))), path)
    for item in take(raw, "set"):
        assert isinstance(item, Taken) and "absurd timestamps: rows taken at the set's rate" in item.meta.notes
        assert np.allclose(np.diff(item.streams["state"].t_ns), 1e9 / FPS)


def test_a_depth_camera_stands_apart(raw: Store, tmp_path: Path, take: Take) -> None:
    root = v3(tmp_path / "raw/set")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["observation.images.top"]["info"] = {"video.is_depth_map": True}
    edited(root, features=features)
    for item in take(raw, "set", decode=False):
        assert isinstance(item, Taken) and list(item.meta.depth) == ["top"] and not item.meta.cameras and "depth:top" in item.streams
