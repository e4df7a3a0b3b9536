"""Facts of single axes, of command and joint side by side, and of clocks: on numbers made for it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.curation.axes import events, idleness, jumps, ranges, spikes, stuck, switches
from ray_jobs.curation.pairs import Pairs, match_names, pairs
from ray_jobs.curation.pictures import crispness, palette
from ray_jobs.curation.timing import clock_step, timing, together

HZ = 30
COUNT = 300
T_NS = (np.arange(COUNT) * 1e9 / HZ).astype(np.int64)


def course(axes: int = 6, seed: int = 0) -> np.ndarray:
    """[COUNT, axes]: smooth motion of about a radian."""
    draw = np.random.default_rng(seed)
    knots = draw.normal(0, 0.5, (12, axes))
    return np.stack([np.interp(np.linspace(0, 11, COUNT), np.arange(12), column) for column in knots.T], axis=1)


def test_a_spike_stands_out_and_a_step_does_not_count_as_one() -> None:
    clean = course()
    spiked, stepped = clean.copy(), clean.copy()
    spiked[100, 2] += 0.8
    stepped[100:, 2] += 0.8
    assert spikes(clean).max() < 1.2 < 6 < spikes(spiked)[2]
    assert jumps(clean).max() < 1.5 and jumps(stepped)[2] > 6
    assert spikes(stepped)[2] < 1.2


def test_an_angle_that_wraps_and_a_quaternion_that_changes_sign_are_no_jumps() -> None:
    angle = np.linspace(0, 9, COUNT)
    wrapped = np.stack([(angle + np.pi) % (2 * np.pi) - np.pi, np.sin(angle)], axis=1)
    assert jumps(wrapped).max() < 1.5
    quaternion = np.stack([np.cos(angle / 9), np.sin(angle / 9), 0.3 * np.sin(angle), 0.2 * np.cos(angle)], axis=1)
    quaternion[150:] *= -1
    assert jumps(quaternion).max() < 1.5


def test_a_joint_that_keeps_its_value_while_others_move() -> None:
    values = course()
    values[90:210, 3] = values[90, 3]
    found = stuck(T_NS, values)
    assert found[3] == pytest.approx(4.0, abs=0.2) and np.delete(found, 3).max() < 0.3
    values[90:210] = values[90]  # all of them: that is a pause
    assert stuck(T_NS, values).max() < 0.3


def test_noise_is_estimated_beneath_motion() -> None:
    values = course() + np.random.default_rng(1).normal(0, [0.0, 0.01, 0.0, 0.05, 0.0, 0.0], (COUNT, 6))
    noise = ranges(values)[1]["noise"]
    assert noise[1] == pytest.approx(0.01, rel=0.3) and noise[3] == pytest.approx(0.05, rel=0.3) and noise[[0, 2, 4, 5]].max() < 1e-3


def test_an_axis_is_pinned_where_it_is_clipped_and_not_where_all_pause() -> None:
    values = course()
    paused = np.concatenate([values[:150], np.repeat(values[149:150], 150, axis=0), values[150:]])
    assert ranges(paused)[1]["pinned"].max() < 0.1
    values[:, 1] = np.minimum(values[:, 1], np.percentile(values[:, 1], 60))
    assert ranges(values)[1]["pinned"][1] > 0.3


def test_grippers_are_known_by_name_or_by_how_they_move() -> None:
    values = course(3)
    values[:, 2] = np.arange(COUNT) > 150
    assert switches(values, ("a", "b", "c")).tolist() == [False, False, True]
    assert switches(values, ("left_gripper", "b", "c")).tolist() == [True, False, True]
    assert events(values[:, 2]) == 1 and events(np.ones(9)) == 0


def test_an_episode_that_ends_in_motion_says_so() -> None:
    moving = np.linspace(0, 1, COUNT)[:, None] * [1.0, 0.5]
    resting = np.concatenate([moving, np.repeat(moving[-1:], 30, axis=0)])
    times = (np.arange(len(resting)) * 1e9 / HZ).astype(np.int64)
    assert idleness(T_NS, moving)["idle.end_pace"] == pytest.approx(1.0, abs=0.1)
    assert idleness(times, resting)["idle.end_pace"] == pytest.approx(0.0, abs=1e-6)


def commanded(lag: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(command, state that follows `lag` rows later)."""
    command = course(seed=seed)
    return command, np.concatenate([np.repeat(command[:1], lag, axis=0), command])[:COUNT]


def beside(command: np.ndarray, state: np.ndarray) -> Pairs:
    times = T_NS / 1e9
    found = pairs(times, state, times, command, match_names((), (), command.shape[1], state.shape[1]))
    assert found is not None
    return found


@pytest.mark.parametrize("lag", [0, 4, 15])
def test_the_delay_of_a_position_command(lag: int) -> None:
    found = beside(*commanded(lag))
    assert found.level and found.r > 0.95 and found.lag_s == pytest.approx(lag / HZ, abs=0.05)
    assert found.slope == pytest.approx(np.ones(6), abs=0.1) and np.abs(found.bias).max() < 0.02


def test_a_velocity_command_is_told_from_a_position() -> None:
    state = course()
    found = beside(np.gradient(state, 1 / HZ, axis=0), state)
    assert not found.level and found.r > 0.8 and abs(found.lag_s) < 0.1


def test_flipped_swapped_offset_scaled_and_stuck_axes_show() -> None:
    command, state = commanded()
    flipped = command.copy()
    flipped[:, 2] *= -1
    assert beside(flipped, state).corr[2] < -0.8 and np.delete(beside(flipped, state).corr, 2).min() > 0.8
    swapped = command[:, [1, 0, 2, 3, 4, 5]]
    assert beside(swapped, state).swap > 0.3 and set(beside(swapped, state).swapped) == {0, 1}
    assert beside(command, state).swap < 0
    assert beside(command, state + np.array([0, 0.2, 0, 0, 0, 0])).bias[1] == pytest.approx(-0.2, abs=0.02)
    assert beside(command, state * 57.3).slope[0] == pytest.approx(57.3, rel=0.1)
    held = state.copy()
    held[100:200, 4] = held[100, 4]
    assert beside(command, held).frozen_s[4] == pytest.approx(3.3, abs=0.3)


def test_names_decide_which_axes_belong_together() -> None:
    assert match_names(("b", "a"), ("a", "b", "c"), 2, 3) == ((0, 1), (1, 0))
    assert match_names(("dx", "dy"), ("a", "b", "c"), 2, 3) == ()
    assert match_names((), (), 3, 3) == ((0, 0), (1, 1), (2, 2))


def test_a_set_clock_lasts_and_a_stalled_logger_does_not() -> None:
    log = T_NS.copy()
    assert clock_step(T_NS + np.where(np.arange(COUNT) >= 150, 200_000_000, 0), log) == pytest.approx(0.2, abs=0.01)
    stalled = log + np.where((np.arange(COUNT) > 100) & (np.arange(COUNT) < 130), (130 - np.arange(COUNT)) * 33_000_000, 0)
    assert clock_step(T_NS, stalled) < 0.05
    assert clock_step(T_NS[:3], log[:3]) == 0.0


def test_streams_are_compared_by_the_loggers_clock() -> None:
    found = together({"state": (T_NS, T_NS + 5_000_000), "camera:a": (T_NS[60:] - 700_000_000, T_NS[60:])})
    assert found["time.uncovered_s:camera:a"] == pytest.approx(2.0, abs=0.05) and found["time.uncovered_s:state"] < 0.05
    assert found["time.skew_s"] == pytest.approx(0.695, abs=0.01)
    assert together({}) == {"duration_s": 0.0}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(10**10), 10**11), min_size=2, max_size=60), st.integers(0, 2**31))
def test_timing_is_finite_for_any_stamps(stamps: list[int], seed: int) -> None:
    log = np.sort(np.random.default_rng(seed).integers(0, 10**11, len(stamps)))
    assert all(np.isfinite(value) for value in timing(np.array(stamps, np.int64), log).values())


def test_blur_takes_the_finest_octave_and_snow_adds_to_it() -> None:
    from scipy.ndimage import gaussian_filter

    draw = np.random.default_rng(0)
    scene = sum(gaussian_filter(draw.normal(0, 1, (96, 96)), scale) * 12 * scale for scale in (0.5, 1, 2, 4, 8))[None] + 120
    sharp, blurred, snowy = crispness(scene)[0], crispness(gaussian_filter(scene, (0, 1.5, 1.5)))[0], crispness(scene + draw.normal(0, 40, scene.shape))[0]
    assert blurred < 0.3 * sharp and snowy > 1.3 * sharp


def test_a_palette_knows_colours_and_no_light() -> None:
    picture = np.random.default_rng(0).integers(20, 200, (1, 32, 32, 3)).astype(np.float64)
    assert palette(picture * 0.5) == pytest.approx(palette(picture), abs=1e-6)
    assert palette(picture[..., ::-1]).reshape(-1, 3)[:, ::-1].ravel() == pytest.approx(palette(picture), abs=1e-6)
