"""The packer: what it writes is LeRobot v3.0, the same input gives the same bytes, and a bad episode is named, never fatal."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ray_jobs.alignment import align
from ray_jobs.driver import Execution
from ray_jobs.episode import clip_key, read_episode, write_episode
from ray_jobs.packing import features
from ray_jobs.packing.dataset import DatasetWriter
from ray_jobs.packing.job import run
from ray_jobs.packing.manifest import NAME, file_sha256, read_manifest
from ray_jobs.packing.prepare import prepare
from ray_jobs.packing.view import episodes_of, iter_episodes, iter_frames, read_episode_arrays
from ray_jobs.seam.configs import DayDataset, PackConfig
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.layout import episode_prefix
from ray_jobs.seam.results import DayResult
from ray_jobs.seam.store import Store, StoreConfig
from tests.oracle.board import number_in
from tests.packing.made import DAY, add_episode, pack_config, packed


def pack(store: Store, rows: list[dict[str, Any]], execution: Execution, rejected: tuple[str, ...] = ()) -> DayResult:
    return run(pack_config(store, rows, rejected), execution)[DAY]


def read_json(store: Store, dataset: DayDataset, path: str) -> Any:
    return json.loads(store.get(f"{dataset.prefix}/{path}"))


def read_table(store: Store, dataset: DayDataset, path: str) -> Any:
    return pq.read_table(io.BytesIO(store.get(f"{dataset.prefix}/{path}")))


def test_round_trip(store: Store, tmp_path: Path, execution: Execution) -> None:
    rows = [add_episode(store, tmp_path, name, count=count) for name, count in (("a", 20), ("b", 7), ("c", 31))]
    result = pack(store, rows, execution)
    assert result.counts["episodes"] == 3 and result.counts["frames"] == 58
    assert (result.counts["remuxed"], result.counts["transcoded"], result.counts["left_out"]) == (3, 0, 0)
    seen = {arrays.episode_id: arrays for arrays in iter_episodes(store, packed(result))}
    assert list(seen) == sorted(row["episode_id"] for row in rows)
    for row in rows:
        streams = read_episode(store, row["episode_id"]).streams
        arrays = seen[row["episode_id"]]
        np.testing.assert_array_equal(arrays.state, streams["state"].values)
        np.testing.assert_array_equal(arrays.action, streams["action"].values)
        assert [number_in(frame) for frame in arrays.frames["front"]] == list(range(row["states"]))
        assert arrays.task == row["task"] and arrays.fps == 10
    second = episodes_of(store, packed(result))[1]
    assert [number_in(frame) for frame in iter_frames(store, second, "front")] == list(range(7))
    for chosen in (1, second):
        np.testing.assert_array_equal(read_episode_arrays(store, packed(result), chosen).state, seen[second.episode_id].state)


def test_kept_packets_decode_to_the_recorded_pixels(store: Store, tmp_path: Path, execution: Execution) -> None:
    row = add_episode(store, tmp_path, "a")
    (arrays,) = iter_episodes(store, packed(pack(store, [row], execution)))
    import av

    with av.open(tmp_path / "a-front.mp4") as container:
        recorded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(arrays.frames["front"], recorded)


def test_what_leRobot_expects(store: Store, tmp_path: Path, execution: Execution) -> None:
    rows = [
        add_episode(store, tmp_path, "a", task="lift"),
        add_episode(store, tmp_path, "b", task="push", count=11),
        add_episode(store, tmp_path, "c", task="lift"),
    ]
    dataset = packed(pack(store, rows, execution))
    info = read_json(store, dataset, "meta/info.json")
    assert info["codebase_version"] == "v3.0" and info["fps"] == 10 and isinstance(info["fps"], int)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 51, 2)
    assert info["splits"] == {"train": "0:3"} and info["chunks_size"] == 1000
    assert info["video_path"] == "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert set(info["features"]) == {"observation.state", "action", "observation.images.front", "timestamp", *features.COUNTERS}
    assert info["features"]["observation.images.front"]["shape"] == [96, 96, 3]
    assert info["features"]["observation.images.front"]["info"]["video.codec"] == "h264"
    tasks = pd.read_parquet(io.BytesIO(store.get(f"{dataset.prefix}/meta/tasks.parquet")))
    assert list(tasks.index) == ["lift", "push"] and list(tasks.columns) == ["task_index"] and list(tasks["task_index"]) == [0, 1]

    stats = read_json(store, dataset, "meta/stats.json")
    assert set(stats) == set(info["features"])
    for key, feature in info["features"].items():
        shape = (3, 1, 1) if feature["dtype"] == "video" else tuple(feature["shape"])
        for name in ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99"):
            assert np.shape(stats[key][name]) == shape, (key, name)
        assert np.shape(stats[key]["count"]) == (1,)
    assert np.min(stats["observation.images.front"]["min"]) >= 0.0 and np.max(stats["observation.images.front"]["max"]) <= 1.0

    frames = read_table(store, dataset, "data/chunk-000/file-000.parquet")
    assert frames["index"].to_pylist() == list(range(51))
    assert frames["frame_index"].to_pylist() == [*range(20), *range(11), *range(20)]
    assert frames["task_index"].to_pylist() == [0] * 20 + [1] * 11 + [0] * 20
    np.testing.assert_allclose(frames["timestamp"].to_numpy(), np.array([*range(20), *range(11), *range(20)]) / 10, atol=1e-6)

    episodes = read_table(store, dataset, "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["tasks"] for row in episodes] == [["lift"], ["push"], ["lift"]]
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in episodes] == [(0, 20), (20, 31), (31, 51)]
    spans = [(row["videos/observation.images.front/from_timestamp"], row["videos/observation.images.front/to_timestamp"]) for row in episodes]
    np.testing.assert_allclose(spans, [(0, 2.0), (2.0, 3.1), (3.1, 5.1)], atol=1e-9)
    assert episodes[1]["stats/observation.state/count"] == [11] and np.shape(episodes[1]["stats/observation.images.front/mean"]) == (3, 1, 1)
    provenance = read_table(store, dataset, "meta/flywheel_episodes.parquet").to_pylist()
    assert [row["episode_id"] for row in provenance] == [row["episode_id"] for row in rows]
    assert provenance[0]["upload"] == "arm-1/a.mcap" and provenance[0]["alignment"] == "one-to-one"
    assert all(episode.scores == {"state.span": 2.0, "value.rank": 0.333333} for episode in episodes_of(store, dataset))
    assert [episode.tags for episode in episodes_of(store, dataset)] == [{"scene": f"drawer {row['upload']}", "tags.by": "me"} for row in rows]


def test_same_input_same_bytes_in_whatever_order(store: Store, tmp_path: Path, execution: Execution) -> None:
    rows = [add_episode(store, tmp_path, "a"), add_episode(store, tmp_path, "b", lead_in=2), add_episode(store, tmp_path, "c", dropped=(3,))]
    first = pack(store, rows, execution)
    again = pack(store, rows[::-1], execution)
    assert again.output == first.output and again.output_digest == first.output_digest
    dataset = packed(first)
    for entry in list(store.list(dataset.prefix)):
        store.delete(entry.key)
    elsewhere = pack(store, rows[1:] + rows[:1], execution)
    assert elsewhere.output_digest == first.output_digest
    manifest, _ = read_manifest(store, dataset)
    for file in manifest.files:
        with store.local_copy(f"{dataset.prefix}/{file.path}") as path:
            assert (path.stat().st_size, file_sha256(path)) == (file.size, file.sha256)
    listed = {entry.key.removeprefix(dataset.prefix + "/") for entry in store.list(dataset.prefix + "/")}
    assert listed == {file.path for file in manifest.files} | {NAME}
    assert manifest.total_bytes == sum(file.size for file in manifest.files) == first.counts["bytes"]


def test_an_unchanged_day_writes_nothing_again(store: Store, tmp_path: Path, execution: Execution) -> None:
    rows = [add_episode(store, tmp_path, "a")]
    dataset = packed(pack(store, rows, execution))
    before = {entry.key: entry.etag for entry in store.list(dataset.prefix)}
    pack(store, rows, execution)
    assert {entry.key: entry.etag for entry in store.list(dataset.prefix)} == before


def test_packing_again_restores_what_was_lost(store: Store, tmp_path: Path, execution: Execution) -> None:
    """Killed before the manifest, or a file lost or cut short after it: the same command makes the dataset whole."""
    rows = [add_episode(store, tmp_path, "a")]
    dataset = packed(pack(store, rows, execution))
    data = f"{dataset.prefix}/{features.DATA_PATH.format(chunk_index=0, file_index=0)}"
    whole = store.get(data)
    for harm in (lambda: store.delete(data), lambda: store.put(data, whole[:100]), lambda: store.delete(f"{dataset.prefix}/{NAME}")):
        harm()
        assert packed(pack(store, rows, execution)) == dataset
        assert store.get(data) == whole and store.exists(f"{dataset.prefix}/{NAME}")
        assert len(list(iter_episodes(store, dataset))) == 1
    store.put(data, whole[:100])
    with pytest.raises(DataError, match="is damaged: delete it and pack"):
        read_episode_arrays(store, dataset, 0)


def test_a_changed_verdict_makes_another_dataset_and_leaves_the_first(store: Store, tmp_path: Path, execution: Execution) -> None:
    rows = [add_episode(store, tmp_path, "a"), add_episode(store, tmp_path, "b")]
    both, one = pack(store, rows, execution), pack(store, rows, execution, rejected=(rows[0]["episode_id"],))
    assert both.output_digest != one.output_digest
    assert [episode.episode_id for episode in episodes_of(store, packed(one))] == [rows[1]["episode_id"]]
    assert len(episodes_of(store, packed(both))) == 2


def test_days_with_nothing(store: Store, tmp_path: Path, execution: Execution) -> None:
    row = add_episode(store, tmp_path, "a")
    nothing = pack(store, [row], execution, rejected=(row["episode_id"],))
    assert (nothing.status, nothing.reason, nothing.output) == ("ok", "nothing kept", {"dataset": None})
    absent = run(PackConfig(store=store.config, days=("2026-09-22",), episodes={}, verdicts={}), execution)["2026-09-22"]
    assert (absent.status, absent.counts["episodes"], absent.output) == ("ok", 0, {"dataset": None})
    lost = run(PackConfig(store=store.config, days=(DAY,), episodes={DAY: "no.parquet"}, verdicts={DAY: "no.parquet"}), execution)[DAY]
    assert lost.status == "failed" and "no.parquet" in (lost.reason or "")
    assert not list(store.list("datasets/"))


def test_several_days_each_have_their_own(store: Store, tmp_path: Path, execution: Execution) -> None:
    config = pack_config(store, [add_episode(store, tmp_path, "a")])
    both = config.model_copy(update={"days": (DAY, "2026-09-22"), "verdicts": config.verdicts, "episodes": config.episodes})
    results = run(both, execution)
    assert results[DAY].counts["episodes"] == 1 and results["2026-09-22"].output == {"dataset": None}


def test_shapes_that_cannot_share_a_dataset_get_one_each(store: Store, tmp_path: Path, execution: Execution) -> None:
    rows = [
        add_episode(store, tmp_path, "a"),
        add_episode(store, tmp_path, "b", state=7),
        add_episode(store, tmp_path, "c", fps=20),
        add_episode(store, tmp_path, "d", cameras=("front", "wrist")),
        add_episode(store, tmp_path, "e", action=0),
        add_episode(store, tmp_path, "f"),
        add_episode(store, tmp_path, "g", cameras=()),
        add_episode(store, tmp_path, "h", state=1, size=48),
    ]
    dataset = packed(pack(store, rows, execution))
    assert dataset.episodes == 8
    packed_episodes = episodes_of(store, dataset)
    folders: dict[str, list[str]] = {}
    for episode in packed_episodes:
        folders.setdefault(episode.dataset, []).append(episode.upload.removeprefix("arm-1/")[0])
        assert episode.dataset.startswith(f"{dataset.prefix}/shape-")
    assert sorted("".join(names) for names in folders.values()) == ["af", "b", "c", "d", "e", "g", "h"]
    for arrays, episode in zip(iter_episodes(store, dataset), packed_episodes, strict=True):
        recorded = read_episode(store, arrays.episode_id)
        np.testing.assert_array_equal(arrays.state, recorded.streams["state"].values)
        assert arrays.action.shape == (20, 0 if episode.upload.endswith("e.mcap") else 4)
        assert set(arrays.frames) == set(recorded.meta.cameras)
        for frames in arrays.frames.values():
            assert [number_in(frame) for frame in frames] == list(range(20))
    blind = json.loads(store.get(next(e.dataset for e in packed_episodes if e.upload.endswith("g.mcap")) + "/meta/info.json"))
    assert blind["video_path"] is None and "observation.images.front" not in blind["features"]
    assert "action" not in json.loads(store.get(next(e.dataset for e in packed_episodes if e.upload.endswith("e.mcap")) + "/meta/info.json"))["features"]


def test_other_codec_parameters_start_another_video_file(store: Store, tmp_path: Path, execution: Execution) -> None:
    rows = [
        add_episode(store, tmp_path, "a"),
        add_episode(store, tmp_path, "b", profile="high", preset="medium", refs="3"),
        add_episode(store, tmp_path, "c"),
        add_episode(store, tmp_path, "d", lead_in=1),
    ]
    dataset = packed(pack(store, rows, execution))
    episodes = episodes_of(store, dataset)
    files = [episode.cameras["front"].file.rsplit("-", 1)[1] for episode in episodes]
    assert files == ["000.mp4", "001.mp4", "000.mp4", "002.mp4"], "one file per parameter set"
    assert {episode.file for episode in episodes} == {f"{dataset.prefix}/data/chunk-000/file-000.parquet"}
    for arrays in iter_episodes(store, dataset):
        assert [number_in(frame) for frame in arrays.frames["front"]] == list(range(20))


def test_files_rotate_by_size_each_on_its_own(store: Store, tmp_path: Path) -> None:
    rows = [add_episode(store, tmp_path, name) for name in "abcdef"]
    prepared = [prepare(store, row, tmp_path) for row in rows]
    clip = prepared[0].cameras["front"].segment.size
    writer = DatasetWriter(tmp_path / "set", features.Shape.of(prepared[0]), data_limit=9000, video_limit=int(clip * 2.5))
    for episode in prepared:
        writer.append(episode)
    writer.finish()
    table = pq.read_table(tmp_path / "set" / features.EPISODES_PATH).to_pylist()
    assert [row["videos/observation.images.front/file_index"] for row in table] == [0, 0, 1, 1, 2, 2]
    assert [row["videos/observation.images.front/from_timestamp"] for row in table] == [0, 2, 0, 2, 0, 2]
    data = [row["data/file_index"] for row in table]
    assert data != [0] * 6 and data == sorted(data) and data != [0, 0, 1, 1, 2, 2]
    lengths = [pq.ParquetFile(path).metadata.num_rows for path in sorted((tmp_path / "set" / "data").rglob("*.parquet"))]
    assert lengths == [20 * data.count(index) for index in range(max(data) + 1)]


def test_an_episode_that_cannot_be_packed_is_named(store: Store, tmp_path: Path, execution: Execution) -> None:
    rows = [add_episode(store, tmp_path, name) for name in "abcdefg"]
    broken = bytearray(store.get(clip_key(rows[0]["episode_id"], "front")))
    start = broken.find(b"mdat") + 200
    broken[start : start + 3000] = bytes(3000)
    store.put(clip_key(rows[0]["episode_id"], "front"), bytes(broken))
    store.put(clip_key(rows[1]["episode_id"], "front"), b"not a video")
    store.delete(clip_key(rows[2]["episode_id"], "front"))
    sick = read_episode(store, rows[3]["episode_id"])
    state = sick.streams["state"]
    values = state.values.copy()
    values[4, 1] = np.nan
    write_episode(store, replace(sick, streams={**sick.streams, "state": replace(state, values=values)}), {})
    store.put(f"{episode_prefix(rows[4]['episode_id'])}/streams.parquet", b"PAR1 no")
    store.put(f"{episode_prefix(rows[5]['episode_id'])}/episode.json", b"{}")
    result = pack(store, rows, execution)
    assert result.status == "ok" and result.counts["episodes"] == 1 and result.counts["left_out"] == 6
    told = str(result.shown["left_out"].value)
    for row, words in zip(
        rows, ("front.mp4", "Invalid data", "no such object", "its state is not finite", "ingest the day again", "ingest the day again"), strict=False
    ):
        line = next(line for line in told.splitlines() if row["episode_id"] in line)
        assert words in line, told
    assert [episode.episode_id for episode in episodes_of(store, packed(result))] == [rows[6]["episode_id"]]
    none = pack(store, rows[:2], execution)
    assert none.output == {"dataset": None} and none.counts["left_out"] == 2 and "could be packed" in (none.reason or "")


def test_a_dataset_without_its_mark_is_not_read(store: Store, tmp_path: Path, execution: Execution) -> None:
    dataset = packed(pack(store, [add_episode(store, tmp_path, "a")], execution))
    store.put(f"{dataset.prefix}/{NAME}", b"{}")
    with pytest.raises(DataError, match="not the manifest that was packed"):
        episodes_of(store, dataset)


def test_what_a_person_sees(store: Store, tmp_path: Path, execution: Execution) -> None:
    result = pack(store, [add_episode(store, tmp_path, name) for name in "ab"], execution)
    sheet = str(result.shown["kept_clips"].value)
    assert sheet.startswith("![") and "data:image/jpeg;base64," in sheet and len(sheet) < 200_000
    assert result.shown["robot_minutes"].value == pytest.approx(4 / 60, abs=0.01)


@pytest.mark.parametrize("set_name", ["lerobot30-so101-frozen-sim", "lerobot21-g1-bottle", "lerobot20-gr00t-robot-sim"])
def test_recorded_lerobot_video_is_kept_where_it_can_be(shared_data: Path, tmp_path: Path, set_name: str) -> None:
    """AV1 of two real sets is copied packet by packet; the third has B-frames and is encoded."""
    from ray_jobs.packing.video import can_keep, decoded, scan, transcode

    clip = min((shared_data / set_name / "videos").rglob("*.mp4"))
    seen = scan(clip)
    frames = np.arange(60)
    kept = can_keep(seen, 0, frames)
    assert kept == (set_name != "lerobot20-gr00t-robot-sim")
    if not kept:
        segment = transcode(clip, 0, frames, 20, tmp_path / "made.mp4")
        assert sum(1 for _ in decoded(segment.path)) == 60 and segment.parameters.codec == "h264"


FULL = """
import resource, sys
from ray_jobs.driver import Execution
from ray_jobs.packing.job import run
from ray_jobs.seam.configs import PackConfig
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.store import Store
config = PackConfig.model_validate_json(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    run(config, Execution(Store(config.store), "attempts/b/a1/x", report=lambda message: None))
except StoreError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.parametrize("limit", [2_000, 9_000, 17_000])
def test_a_full_disk_is_one_line_and_publishes_nothing(store: Store, tmp_path: Path, limit: int) -> None:
    """A process that may not write files of more than `limit` bytes: it fails in the encoder, in a table, or in the video."""
    config = pack_config(store, [add_episode(store, tmp_path, name, count=40, lead_in=name == "b") for name in "ab"])
    arguments = [sys.executable, "-c", FULL, config.model_dump_json(), str(limit)]
    ended = subprocess.run(arguments, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ended.returncode == 3, (ended.stdout, ended.stderr[-2000:])
    assert len(ended.stdout.strip().splitlines()) == 1
    assert not [entry.key for entry in store.list("datasets/") if entry.key.endswith(NAME)]


def test_alignment_is_the_packed_truth(store: Store, tmp_path: Path, execution: Execution) -> None:
    """Dropped frames: the packed picture of each step is the one that the alignment chose."""
    row = add_episode(store, tmp_path, "a", count=40, dropped=(5, 6, 17))
    result = pack(store, [row], execution)
    (arrays,) = iter_episodes(store, packed(result))
    episode = read_episode(store, row["episode_id"])
    aligned = align(episode, 10)
    seen = [step for step in range(40) if step not in (5, 6, 17)]
    assert [number_in(frame) for frame in arrays.frames["front"]] == [seen[index] for index in aligned.frame_index["front"]]
    np.testing.assert_array_equal(arrays.state, aligned.state)


def test_a_remote_like_store_fetches_each_file_once(store: Store, tmp_path: Path, execution: Execution) -> None:
    dataset = packed(pack(store, [add_episode(store, tmp_path, name) for name in "abc"], execution))
    fetched: list[str] = []

    class Remote(Store):
        def local_copy(self, key: str) -> Any:
            fetched.append(key)
            return super().local_copy(key)

    assert len(list(iter_episodes(Remote(StoreConfig(url=store.config.url)), dataset))) == 3
    assert len(fetched) == len(set(fetched)) == 2
