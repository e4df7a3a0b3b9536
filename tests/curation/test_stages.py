"""Each stage on small episodes of numbers, with mild and strong defects planted here."""

from pathlib import Path

import numpy as np
import pytest

from ray_jobs.curation.agreement import agreement
from ray_jobs.curation.axes import idleness, runs
from ray_jobs.curation.images import Images
from ray_jobs.curation.measure import Piece, Plan, apply, load, measure_here
from ray_jobs.curation.pick_place import blobs, outcome
from ray_jobs.curation.pictures import blocks, shrink
from ray_jobs.curation.segments import decode, segment_count
from ray_jobs.curation.signals import Signal
from ray_jobs.curation.stage import Segment, Stage, effective_versions
from ray_jobs.curation.stages import DECODE, measuring
from ray_jobs.curation.sync import clock_lag
from ray_jobs.curation.timing import timing
from ray_jobs.episode import clip_key, open_clip
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.errors import NotFound, UserError
from ray_jobs.seam.store import Store, StoreConfig
from tests.curation.synthetic import Made, make, save

ID = "0" * 32


def measured(store: Store, made: Made, settings: MeasureSettings | None = None) -> dict[str, float]:
    save(store, made, ID)
    rows = measure_here(store, ID, Plan.of(settings or MeasureSettings()))
    assert not any(row["error"] for row in rows)
    return {name: value for row in rows for name, value in row["scores"].items()}


def test_a_good_episode_looks_good(store: Store) -> None:
    scores = measured(store, make())
    assert scores["duration_s"] == pytest.approx(5.9)
    assert scores["time.rate_hz:state"] == pytest.approx(10)
    assert scores["time.lost:state"] == scores["time.backward:state"] == scores["state.nonfinite"] == 0
    assert scores["image.frozen:front"] == 0 and scores["image.repeated:front"] < 0.1
    assert scores["command.r2"] > 0.95 and abs(scores["command.lag_s"]) < 0.03
    assert scores["image.lag_match:front"] > 0.6 and abs(scores["image.lag_s:front"]) < 0.07
    assert scores["idle.longest_s"] < 0.5


@pytest.mark.parametrize("steps", [2, 5])
def test_commands_that_are_logged_late_show_their_lag(store: Store, steps: int) -> None:
    made = make(count=90)
    late = made.actions[np.maximum(np.arange(len(made.actions)) - steps, 0)]
    scores = measured(store, made.but(actions=late))
    assert scores["command.lag_s"] == pytest.approx(-0.1 * steps, abs=0.06) or steps > 4  # beyond four steps the fit itself is what is lost
    assert scores["command.r2_now"] < 0.8


@pytest.mark.parametrize("deviation", [0.01, 0.05])
def test_noise_on_commands_lowers_what_they_explain(store: Store, deviation: float) -> None:
    made = make()
    noisy = made.actions + np.random.default_rng(0).normal(0, deviation, made.actions.shape)
    assert measured(store, made.but(actions=noisy))["command.r2"] < 0.75


@pytest.mark.parametrize("steps", [2, 5])
def test_a_camera_that_lags(store: Store, steps: int) -> None:
    made = make(count=90)
    late = made.frames[np.maximum(np.arange(len(made.frames)) - steps, 0)]
    scores = measured(store, made.but(frames=late))
    assert scores["image.lag_s:front"] == pytest.approx(0.1 * steps, abs=0.07)
    assert scores["image.lag_gain:front"] > 0.15


@pytest.mark.parametrize("share", [0.3, 0.85])
def test_a_frozen_camera_while_the_arm_moves(store: Store, share: float) -> None:
    made = make()
    frames = made.frames.copy()
    frames[-round(60 * share) :] = frames[-round(60 * share)]
    scores = measured(store, made.but(frames=frames))
    assert scores["image.frozen:front"] == pytest.approx(share, abs=0.2)  # a keyframe redraws a standing picture a little


def test_a_picture_that_stands_while_the_arm_stands_is_not_frozen(store: Store) -> None:
    made = make()
    states, frames = made.states.copy(), made.frames.copy()
    states[20:50], frames[20:50] = states[20], frames[20]
    scores = measured(store, made.but(states=states, frames=frames))
    assert scores["image.frozen:front"] < 0.1 and scores["image.repeated:front"] > 0.4
    assert scores["idle.longest_s"] == pytest.approx(2.9, abs=0.2)


@pytest.mark.parametrize("samples", [1, 20])
def test_values_that_are_no_numbers_are_counted_and_do_no_harm(store: Store, samples: int) -> None:
    made = make()
    states = made.states.copy()
    states[10 : 10 + samples, 1] = np.nan
    states[40, 2] = np.inf
    scores = measured(store, made.but(states=states))
    assert scores["state.nonfinite"] == pytest.approx((samples + 1) / 60)
    assert all(np.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("step_s", [0.7, -1.2])
def test_a_clock_that_is_set_in_the_middle(store: Store, step_s: float) -> None:
    made = make()
    t_ns = made.t_ns.copy()
    t_ns[30:] += int(step_s * 1e9)
    scores = measured(store, made.but(t_ns=t_ns))
    assert (scores["time.gap_s:state"] > 0.7) if step_s > 0 else scores["time.backward:state"] == 1


def test_a_publish_clock_that_jumps_against_the_logger() -> None:
    t_ns = np.arange(50) * 100_000_000
    log_ns = t_ns + 1_000_000
    t_ns = t_ns + np.where(np.arange(50) >= 25, 2_000_000_000, 0)
    assert timing(t_ns, log_ns)["clock_s"] == pytest.approx(2.0)
    assert timing(log_ns, log_ns)["clock_s"] == 0


def test_lost_samples_and_gaps() -> None:
    t_ns = np.delete(np.arange(100) * 100_000_000, [*range(40, 60), 70, 80])
    found = timing(t_ns, t_ns)
    assert found["lost"] == pytest.approx(0.22, abs=0.01) and found["gap_s"] == pytest.approx(2.1)


def test_an_hour_of_clock_step_is_not_an_hour_of_lost_samples() -> None:
    t_ns = np.arange(100) * 100_000_000 + np.where(np.arange(100) >= 50, 3_600_000_000_000, 0)
    assert timing(t_ns, t_ns)["gap_s"] == pytest.approx(3600.1)


def test_an_arm_that_never_moves() -> None:
    assert idleness(np.arange(10) * 100_000_000, np.ones((10, 3))) == {"idle.fraction": 1.0, "idle.longest_s": pytest.approx(0.9)}


def test_joint_targets_are_understood_too() -> None:
    """A position-controlled arm of many joints: the state follows the target with a first-order lag."""
    draw = np.random.default_rng(3)
    knots = draw.normal(size=(12, 26))
    target = np.stack([np.interp(np.linspace(0, 11, 300), np.arange(12), column) for column in knots.T], axis=1)
    state = np.zeros_like(target)
    for index in range(1, 300):
        state[index] = state[index - 1] + 0.3 * (target[index - 1] - state[index - 1])
    times = np.arange(300) / 30
    found = agreement(times, state, times, target)
    assert found is not None and found.r2 > 0.95 and abs(found.lag_s) < 0.02
    mixed = agreement(times, state, times, target[draw.permutation(300)])
    assert mixed is not None and mixed.r2 < 0.3
    assert agreement(times[:5], state[:5], times[:5], target[:5]) is None


def test_segments_change_no_score_but_the_medians(store: Store) -> None:
    """Merging is associative: one segment or seven, the numbers per frame and per sample are the same."""
    made = make(count=80)
    save(store, made, ID)
    whole, parts = (measure_here(store, ID, Plan.of(MeasureSettings(segment_s=length))) for length in (60.0, 1.2))
    for one, other in zip(whole, parts, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("stage", [Signal(), Images()], ids=lambda stage: stage.name)
def test_merge_is_associative(store: Store, stage: Stage) -> None:
    save(store, make(count=60), ID)
    plan = Plan.of(MeasureSettings())
    partials = []
    for index in range(4):
        piece = Piece(ID, index, 4, (stage.name,))
        load(store, plan, piece)
        apply(stage, piece)
        partials.append(piece.partials[stage.name])
    left = stage.merge([stage.merge([stage.merge(partials[:2]), partials[2]]), partials[3]])
    right = stage.merge([partials[0], stage.merge([partials[1], stage.merge(partials[2:])])])
    assert left.keys() == right.keys() and all(np.array_equal(left[name], right[name], equal_nan=True) for name in left)


def test_a_piece_survives_the_way_between_operators(store: Store) -> None:
    save(store, make(), ID)
    plan = Plan.of(MeasureSettings())
    piece = Piece(ID, 1, 3, ("signal", "image"))
    load(store, plan, piece)
    apply(plan.stages["signal"], piece)
    again = Piece.from_bytes(piece.to_bytes())
    assert (again.episode_id, again.index, again.count, again.wanted) == (ID, 1, 3, ("signal", "image"))
    assert piece.segment is not None and again.segment is not None
    assert np.array_equal(again.segment.views["front"].frames, piece.segment.views["front"].frames)
    assert again.segment.meta == piece.segment.meta
    for name, value in piece.partials["signal"].items():
        assert np.array_equal(again.partials["signal"][name], value)


def test_seeking_gives_the_same_frames(store: Store) -> None:
    save(store, make(count=400), ID)
    with open_clip(store, ID, "front") as path:
        every = decode(str(path), 0, 400, 64)
        for first, last in ((0, 3), (9, 12), (10, 11), (255, 300), (399, 400)):
            assert np.array_equal(decode(str(path), first, last, 64), every[first:last])
    assert len(every) == 400


def test_segment_count_follows_counts_and_not_clocks() -> None:
    assert segment_count({"state": 600, "camera:front": 600}, 10, 60) == 1
    assert segment_count({"state": 600, "camera:front": 601}, 10, 60) == 2
    assert segment_count({"state": 100_000}, 100, 60) == 17
    assert segment_count({}, 0, 60) == 1


def test_an_episode_without_pictures_or_actions_is_measured(store: Store) -> None:
    made = make()
    scores = measured(store, made.but(frames=made.frames[:0], actions=made.actions[:0]))
    assert scores["state.span"] > 0 and not any(name.startswith(("image", "command")) for name in scores)


def test_an_error_does_not_say_where_the_file_was_read(tmp_path: Path) -> None:
    told = []
    for name in ("here", "elsewhere"):
        store = Store(StoreConfig.local(tmp_path / name))
        save(store, make(), ID)
        store.put(clip_key(ID, "front"), b"no video at all")
        told.append([row["error"] for row in measure_here(store, ID, Plan.of(MeasureSettings(), [Signal(), Images()]))])
    assert told[0] == told[1] == [None, "InvalidDataError: Invalid data found when processing input"]


def test_an_absent_episode_is_told_apart_from_a_bad_one(store: Store) -> None:
    with pytest.raises(NotFound):
        measure_here(store, "f" * 32, Plan.of(MeasureSettings()))


def test_versions_change_with_what_they_depend_on() -> None:
    def of(**changes: object) -> dict[str, str]:
        settings = MeasureSettings.model_validate({"task": "pick_place", **changes})
        return effective_versions([DECODE, *measuring(settings)], settings)

    base = of()
    assert {name for name in base if of(frame_px=128)[name] != base[name]} >= {"decode", "image", "task"}
    assert set(base) - set(of(task=None)) == {"task"}

    class Lost(Stage):
        name, version, reads = "lost", "1", ("nowhere",)

        def measure(self, segment: Segment) -> dict[str, np.ndarray]:
            raise AssertionError

    with pytest.raises(UserError, match="nowhere"):
        Plan.of(MeasureSettings(), [Lost()])


def test_where_the_block_ends_up() -> None:
    frames = np.full((12, 48, 48, 3), 150, np.uint8)
    for index, frame in enumerate(frames):
        frame[30:38, 30:38] = (30, 180, 50)
        x = min(index * 4, 31)
        frame[32:37, x : x + 5] = (210, 30, 30)
    on = outcome(*blobs(frames))
    assert on["distance"] < 0.6 and on["moved"] > 5 and on["seen"] == 1
    assert outcome(*blobs(frames[:6]))["distance"] > 2
    assert outcome(*blobs(np.full((3, 48, 48, 3), 150, np.uint8))) == {"seen": 0.0}


def test_small_pieces() -> None:
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert blocks(np.zeros((2, 4, 4))).tolist() == [0, 0]
    assert shrink(np.full((1, 5, 5), 7.0), 8).shape == (1, 8, 8) and shrink(np.full((1, 64, 48), 7.0), 8).max() == 7
    t_ns = np.arange(60) * 100_000_000
    assert clock_lag(t_ns, np.ones(60), np.random.default_rng(0).normal(size=(60, 3))) is None
