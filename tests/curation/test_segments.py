"""A segment read alone is what a cut of the whole recording would be, and frames picked are frames decoded."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs import episode as at_rest
from ray_jobs.curation.images import joints_at
from ray_jobs.curation.rows import Rows
from ray_jobs.curation.segments import bounds, decode, read_rows, read_segment, with_frames
from ray_jobs.curation.stage import Picks
from ray_jobs.episode import Clip, Episode, EpisodeMeta, Stream, clip_key, read_episode, read_meta, write_episode
from ray_jobs.seam.ranges import AHEAD_BYTES, WHOLE_BYTES, _Ranges, readable
from ray_jobs.seam.store import Store, StoreConfig
from tests.curation.synthetic import START_NS, make, save

ID = "0" * 32


def recording(lengths: dict[str, int], skew_s: float) -> Episode:
    """Streams over ten seconds each; the camera's times start `skew_s` later than the others'."""
    cameras = {"front": Clip(codec="h264", width=8, height=8, frames=lengths["camera:front"])} if lengths.get("camera:front") else {}
    meta = EpisodeMeta(episode_id=ID, robot="r", task="", fps=10, state_names=("a",), action_names=("b",), cameras=cameras, source="mcap", upload="u")
    streams = {}
    for name, count in lengths.items():
        times = START_NS + (np.arange(count) * 1e10 / max(count, 1) + (skew_s * 1e9 if name.startswith("camera") else 0)).astype(np.int64)
        values = np.sin(np.arange(count * 2).reshape(count, 2) / 7).astype(np.float32)
        streams[name] = Stream(times, times + 5, values if not name.startswith("camera") else values[:, :0])
    return Episode(meta, streams)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries({"state": st.integers(1, 90), "action": st.integers(1, 40), "camera:front": st.integers(1, 60)}),
    st.integers(1, 7),
    st.sampled_from([0.0, 3.0, -20.0]),
)
def test_the_parts_of_a_recording_are_the_recording(tmp_path_factory: pytest.TempPathFactory, lengths: dict[str, int], count: int, skew_s: float) -> None:
    store = Store(StoreConfig.local(tmp_path_factory.mktemp("store")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at_rest, "ROW_GROUP", 16)  # so that a stream spans several
        write_episode(store, recording(lengths, skew_s), {"front": Path("/dev/null")})
    whole = read_episode(store, ID)
    parts = [read_segment(store, whole.meta, index, count) for index in range(count)]
    for name, stream in whole.streams.items():
        for field in ("t_ns", "log_ns", "values"):
            joined = np.concatenate([getattr(segment.streams[name], field) for segment in parts])
            assert np.array_equal(joined, getattr(stream, field)), (name, field)
    rows, times = read_rows(store, ID), whole.streams["camera:front"].t_ns
    for name, stream in whole.streams.items():
        assert np.array_equal(rows.clocks[name], (stream.t_ns, stream.log_ns)) and np.array_equal(rows.tables[name].rows(0, len(stream.t_ns)), stream.values)
    assert np.array_equal(joints_at(rows, times).rows(0, len(times)), joints_at(Rows.of(whole.streams), times).rows(0, len(times)))


def test_picks_are_every_so_many_frames_whatever_the_segments(store: Store) -> None:
    save(store, make(count=50), ID)
    meta, picks = read_meta(store, ID), [Picks(px=32, fps=2), Picks(px=64, fps=100)]
    every = decode(str(Path(str(store.root)) / clip_key(ID, "front")), 0, 50, 32)
    for count in (1, 3):
        seen = []
        for index in range(count):
            segment = read_segment(store, meta, index, count)
            full = with_frames(segment, store, 48, picks)
            first, last = bounds(50, index, count)
            assert len(full.views["front"].frames) == last - first == len(full.picked[picks[1]]["front"].frames)
            assert full.views["front"].frames.shape[1] == 48
            seen.append(full.picked[picks[0]]["front"])
            alone = with_frames(segment, store, None, picks[:1])
            assert not alone.views and np.array_equal(alone.picked[picks[0]]["front"].frames, seen[-1].frames)
        assert np.array_equal(np.concatenate([view.frames for view in seen]), every[::5])
        assert np.array_equal(np.concatenate([view.t_ns for view in seen]), make(count=50).t_ns[::5])


def test_a_part_of_a_large_object_is_read_without_the_rest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).bytes(3 * WHOLE_BYTES)
    store.put("big", data)
    fetched: list[int] = []
    get_range = Store.get_range

    def counted(self: Store, key: str, start: int, length: int) -> bytes:
        fetched.append(length)
        return get_range(self, key, start, length)

    monkeypatch.setattr(Store, "get_range", counted)
    with io.BufferedReader(_Ranges(store, "big", len(data)), AHEAD_BYTES) as file:
        file.seek(-100, io.SEEK_END)
        assert file.read() == data[-100:]
        file.seek(12345)
        assert file.read(1000) == data[12345:13345] and file.tell() == 13345
        assert sum(fetched) <= AHEAD_BYTES + 100
        file.seek(0)
        assert file.read() == data
    with readable(store, "big") as source:  # a local store: no copy at all
        assert source == str(Path(str(store.root)) / "big")
