"""The normalised episode at rest."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ray_jobs import episode as at_rest
from ray_jobs.episode import Episode, EpisodeMeta, Stream, open_clip, read_episode, read_meta, write_episode
from ray_jobs.seam.errors import NotFound
from ray_jobs.seam.store import Store

META = EpisodeMeta(episode_id="ab" * 16, robot="arm-1", task="t", fps=10, state_names=(), action_names=(), cameras={}, source="mcap", upload="a")


def stream(values: np.ndarray) -> Stream:
    times = np.arange(len(values), dtype=np.int64) * 100
    return Stream(times, times + 7, values)


@given(
    state=arrays.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 5)), elements=st.floats(width=32, allow_nan=True)),
    frames=st.integers(1, 50),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(store: Store, monkeypatch: pytest.MonkeyPatch, state: np.ndarray, frames: int) -> None:
    monkeypatch.setattr(at_rest, "ROW_GROUP", 16)  # so that a stream spans several
    written = {"state": stream(state), "camera:front": stream(np.zeros((frames, 0), np.float32)), "action": stream(state[:1, :1])}
    write_episode(store, Episode(META, written), {})
    read = read_episode(store, META.episode_id)
    assert read.meta == META and list(read.streams) == list(written)
    for name, expected in written.items():
        assert np.array_equal(read.streams[name].values, expected.values, equal_nan=True)
        assert np.array_equal(read.streams[name].t_ns, expected.t_ns) and np.array_equal(read.streams[name].log_ns, expected.log_ns)


def test_an_episode_that_was_not_written_whole_is_not_found(store: Store, tmp_path: Path) -> None:
    clip = tmp_path / "front.mp4"
    clip.write_bytes(b"mp4")
    write_episode(store, Episode(META, {"state": stream(np.zeros((2, 1), np.float32))}), {"front": clip})
    with open_clip(store, META.episode_id, "front") as path:
        assert path.read_bytes() == b"mp4"
    store.delete(f"episodes/ab/{META.episode_id}/episode.json")
    with pytest.raises(NotFound):
        read_meta(store, META.episode_id)
