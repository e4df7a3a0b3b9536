"""One grid for streams of different rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.alignment import ONE_TO_ONE, RESAMPLED, align
from ray_jobs.episode import Episode, EpisodeMeta, Stream

START = 1_767_614_400_000_000_000
MS = 1_000_000


def made(fps: float, **times_ms: np.ndarray) -> Episode:
    """Streams at these times; the first value of each sample is its row."""
    streams = {}
    for name, times in times_ms.items():
        t_ns = START + np.round(np.asarray(times, float) * MS).astype(np.int64)
        rows = np.arange(len(t_ns), dtype=np.float32).reshape(-1, 1)
        is_camera = name not in ("state", "action")
        streams[f"camera:{name}" if is_camera else name] = Stream(t_ns, t_ns + 2 * MS, rows[:, :0] if is_camera else rows)
    meta = EpisodeMeta(episode_id="0" * 32, robot="r", task="", fps=fps, state_names=(), action_names=(), cameras={}, source="mcap", upload="u")
    return Episode(meta, streams)


def every(period_ms: float, count: int, offset_ms: float = 0) -> np.ndarray:
    return offset_ms + np.arange(count) * period_ms


def test_streams_side_by_side_are_one_to_one() -> None:
    aligned = align(made(10, state=every(100, 30), action=every(100, 30, 4), front=every(100, 30)))
    assert aligned.method == ONE_TO_ONE and aligned.fps == 10 and aligned.notes == ()
    rows = np.arange(30)
    assert np.array_equal(aligned.state[:, 0], rows) and aligned.action is not None and np.array_equal(aligned.action[:, 0], rows)
    assert np.array_equal(aligned.frame_index["front"], rows) and np.allclose(aligned.t_s, rows / 10)
    assert aligned.frame_index["front"].dtype == np.int32 and aligned.state.dtype == np.float32


def test_fast_states_are_taken_at_the_frames_times() -> None:
    aligned = align(made(10, state=every(10, 300, 3), front=every(100, 30)))
    assert aligned.method == ONE_TO_ONE and len(aligned.t_s) == 30
    assert np.array_equal(aligned.state[:, 0], np.arange(30) * 10), "the newest not later than the frame, within half a period"


def test_a_slower_second_camera_repeats_its_frames() -> None:
    aligned = align(made(10, state=every(100, 20), a=every(100, 20), b=every(200, 10)))
    assert aligned.frame_index["b"].tolist() == [n // 2 for n in range(19)], "up to the last sample of every stream"


def test_a_lost_frame_means_a_uniform_grid_that_repeats_the_one_before() -> None:
    times = np.delete(every(100, 20), 7)
    aligned = align(made(10, state=every(100, 20), front=times))
    assert aligned.method == RESAMPLED and len(aligned.t_s) == 20
    assert aligned.frame_index["front"].tolist() == [0, 1, 2, 3, 4, 5, 6, 6, *range(7, 19)]
    assert np.array_equal(aligned.state[:, 0], np.arange(20))


def test_another_rate_resamples() -> None:
    aligned = align(made(30, state=every(1000 / 30, 90), front=every(1000 / 30, 90)), fps=10)
    assert aligned.method == RESAMPLED and aligned.frame_index["front"].tolist() == list(range(0, 90, 3))


def test_only_the_common_interval_counts() -> None:
    aligned = align(made(10, state=every(100, 20, 500), front=every(100, 20), action=every(100, 20, 300)))
    assert aligned.frame_index["front"].tolist() == list(range(5, 20)) and aligned.state[:, 0].tolist() == list(range(15))


def test_streams_that_never_meet_give_no_steps_and_a_note() -> None:
    aligned = align(made(10, state=every(100, 5), front=every(100, 5, 9000)))
    assert len(aligned.t_s) == 0 and "the streams do not overlap in time" in aligned.notes


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000], ids=["forward", "back"])
def test_a_clock_that_steps_is_replaced_by_the_loggers(step_ms: int) -> None:
    plain = made(10, state=every(100, 20), front=every(100, 20))
    stepped = {name: Stream(s.t_ns + (np.arange(20) > 9) * step_ms * MS, s.log_ns, s.values) for name, s in plain.streams.items()}
    aligned = align(Episode(plain.meta, stepped))
    assert aligned.method == ONE_TO_ONE and len(aligned.t_s) == 20
    assert any("aligned on log time" in note for note in aligned.notes)


def shifted(episode: Episode, which: str, publish_ms: np.ndarray | int = 0, log_ms: np.ndarray | int = 0) -> Episode:
    moved = {n: Stream(s.t_ns + publish_ms * MS, s.log_ns + log_ms * MS, s.values) if n == which else s for n, s in episode.streams.items()}
    return Episode(episode.meta, moved)


def test_streams_stamped_by_two_clocks_are_put_on_the_loggers() -> None:
    plain = made(10, state=every(100, 20), front=every(100, 20))
    for apart_ms in (-4_000, 86_400_000, -int(START / MS)):  # the last: stamps that count from a camera's start
        aligned = align(shifted(plain, "camera:front", apart_ms))
        assert aligned.frame_index["front"].tolist() == list(range(20)) and np.array_equal(aligned.state[:, 0], np.arange(20))
        assert any(note.startswith("aligned on log time: ") and "clocks" in note for note in aligned.notes)
    assert align(shifted(plain, "camera:front", -400)).notes == (), "a slow camera is no second clock"


def test_a_logger_whose_clock_was_set_does_not_outvote_steady_stamps() -> None:
    plain = made(10, state=every(100, 20), front=every(100, 20))
    late = (np.arange(20) > 9) * 3_600_000
    aligned = align(shifted(shifted(plain, "state", log_ms=late), "camera:front", log_ms=late))
    assert aligned.notes == () and aligned.method == ONE_TO_ONE and np.array_equal(aligned.state[:, 0], np.arange(20))


def test_where_both_clocks_run_backwards_it_is_said() -> None:
    plain = made(10, state=every(100, 20), front=every(100, 20))
    back = (np.arange(20) > 9) * -5_000
    aligned = align(shifted(plain, "state", back, back))
    assert any("logger's clock runs backwards, too, in state" in note for note in aligned.notes)


def test_depth_takes_no_part() -> None:
    plain = made(10, state=every(100, 20), front=every(100, 20))
    depth = Stream(plain.streams["state"].t_ns[5:9], plain.streams["state"].log_ns[5:9], np.zeros((4, 0), np.float32))
    aligned = align(Episode(plain.meta, {**plain.streams, "depth:front": depth}))
    assert len(aligned.t_s) == 20 and list(aligned.frame_index) == ["front"]


def test_no_camera_and_no_state_and_nothing() -> None:
    assert align(made(10, state=every(100, 5))).method == ONE_TO_ONE
    camera_only = align(made(10, front=every(100, 5)))
    assert camera_only.state.shape == (5, 0) and camera_only.action is None
    assert len(align(made(10)).t_s) == 0
    assert len(align(made(0, state=every(100, 1))).t_s) == 0


@given(
    rate=st.sampled_from([5, 10, 30, 50]),
    count=st.integers(2, 60),
    jitter=st.floats(0, 0.24),
    lag=st.floats(0, 0.2),
    seed=st.integers(0, 99),
)
def test_jitter_below_a_quarter_period_keeps_rows_side_by_side(rate: int, count: int, jitter: float, lag: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    period = 1000 / rate

    def jittered(offset: float) -> np.ndarray:
        return every(period, count, offset * period) + draw.uniform(-jitter / 2, jitter / 2, count) * period

    aligned = align(made(rate, state=jittered(0), front=jittered(0), action=jittered(lag)))
    assert aligned.method == ONE_TO_ONE
    assert np.array_equal(aligned.frame_index["front"], np.arange(count)) and np.array_equal(aligned.state[:, 0], np.arange(count))
    assert aligned.action is not None and np.array_equal(aligned.action[:, 0], np.arange(count))


@given(state=st.integers(2, 80), frames=st.integers(2, 80), state_ms=st.floats(5, 90), frame_ms=st.floats(20, 90), fps=st.sampled_from([5.0, 12.5, 30.0]))
def test_every_index_is_valid_and_never_goes_back(state: int, frames: int, state_ms: float, frame_ms: float, fps: float) -> None:
    aligned = align(made(fps, state=every(state_ms, state), front=every(frame_ms, frames)))
    index = aligned.frame_index["front"]
    assert len(aligned.t_s) == len(index) == len(aligned.state) and np.all(np.diff(index) >= 0)
    assert np.all((index >= 0) & (index < frames)) and np.all(np.diff(aligned.state[:, 0]) >= 0)
    if aligned.method == RESAMPLED:
        assert np.all(index * frame_ms <= aligned.t_s * 1000 + 0.5 * frame_ms + 1e-3), "no frame from the future"
