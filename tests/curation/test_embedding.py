"""The embedding stage: what it says about copies of an episode and about other episodes, and the parts it is made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.curation.embedding import WIDTH, Layout, boxes, crossings, farthest, landmarks, layout, project, sketch
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.store import Store
from tests.curation.copies import CHANGES, copy_episode
from tests.curation.synthetic import make, save

PLAN = Plan.of(MeasureSettings(segment_s=4.0), [Layout()])


def vectors(store: Store, episode_id: str, plan: Plan = PLAN) -> dict[str, np.ndarray]:
    (row,) = measure_here(store, episode_id, plan)
    assert row["error"] is None
    return {name: np.asarray(value) for name, value in row["vectors"].items()}


def shared(one: dict[str, np.ndarray], other: dict[str, np.ndarray], kind: str) -> int:
    keys = [set(map(tuple, found[f"landmarks.{kind}"].reshape(-1, 2).astype(int).tolist())) for found in (one, other)]
    return len(keys[0] & keys[1])


def test_segments_make_no_difference(store: Store) -> None:
    save(store, make(1, count=130), "long")
    whole = vectors(store, "long", Plan.of(MeasureSettings(segment_s=600.0), [Layout()]))
    parts = vectors(store, "long")
    assert whole.keys() == parts.keys() == {"embedding", "path", "path.axes", "landmarks.state", "landmarks.picture"}
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


@pytest.mark.parametrize("name", CHANGES)
def test_a_copy_keeps_landmarks_that_another_episode_has_not(store: Store, name: str) -> None:
    save(store, make(1, count=90), "source")
    save(store, make(2, count=90), "other")
    copy_episode(store, "source", "copy", CHANGES[name])
    source, copy, other = (vectors(store, episode) for episode in ("source", "copy", "other"))
    assert shared(source, copy, "state") >= 3
    assert shared(source, other, "state") <= 1


def test_without_camera_or_state_the_other_is_embedded(store: Store) -> None:
    made = make(3)
    save(store, made.but(frames=made.frames[:0]), "blind")
    save(store, made.but(states=made.states[:0]), "stateless")
    assert vectors(store, "blind").keys() == {"path", "path.axes", "landmarks.state"}
    assert vectors(store, "stateless").keys() == {"embedding", "landmarks.picture"}


def test_nothing_to_follow_is_no_error(store: Store) -> None:
    made = make(4)
    save(store, made.but(frames=made.frames[:0], states=made.states[:2], actions=made.actions[:2]), "two samples")
    assert vectors(store, "two samples") == {}


def test_layout_forgets_exposure_and_remembers_place() -> None:
    frames = make(5, count=2).frames
    dark = (frames * 0.6).astype(np.uint8)
    moved = np.roll(frames, 16, axis=2)
    here, darker, elsewhere = (project(layout(pictures))[0] for pictures in (frames, dark, moved))
    assert np.linalg.norm(here - darker) < 0.1 * np.linalg.norm(here - elsewhere)


def test_project_keeps_distances() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(40, 160))
    made = project(values)
    assert made.shape == (40, WIDTH)
    pairs = np.triu_indices(40, 1)
    ratio = np.linalg.norm(made[pairs[0]] - made[pairs[1]], axis=1) / np.linalg.norm(values[pairs[0]] - values[pairs[1]], axis=1) * np.sqrt(160 / WIDTH)
    assert 0.9 < ratio.mean() < 1.1 and ratio.std() < 0.25


@given(st.integers(1, 40), st.integers(0, 10_000))
def test_boxes_hold_the_mean(count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    times = np.sort(draw.choice(10_000_000_000, 30, replace=False))
    values = draw.normal(size=(30, 2))
    made = boxes(times, values, int(times[0]), int(times[-1]), count)
    seconds = (times - times[0]) / 1e9
    np.testing.assert_allclose(made.mean(axis=0), np.trapezoid(values, seconds, axis=0) / seconds[-1], atol=1e-5)
    assert (made <= values.max(axis=0) + 1e-5).all() and (made >= values.min(axis=0) - 1e-5).all()


def test_crossings_are_counted_each_way() -> None:
    at, number, share, way = crossings(np.array([0.5, 2.5, 2.5, 0.25]))
    assert number.tolist() == [1, 2, 1, 2] and way.tolist() == [1, 1, -1, -1] and at.tolist() == [0, 0, 2, 2]
    np.testing.assert_allclose(share, [0.25, 0.75, 1.5 / 2.25, 0.5 / 2.25])


@given(st.integers(0, 10_000))
def test_landmarks_do_not_hang_on_pace_or_rate(seed: int) -> None:
    draw = np.random.default_rng(seed)
    path = np.cumsum(draw.normal(size=(12, 4)), axis=0)
    slow = np.stack([np.interp(np.linspace(0, 11, 400), np.arange(12), column) for column in path.T], axis=1)
    uneven = np.stack([np.interp(11 * np.linspace(0, 1, 600) ** 1.2, np.arange(12), column) for column in path.T], axis=1)
    one, other = set(landmarks(slow, 3, 9999).tolist()), set(landmarks(uneven, 3, 9999).tolist())
    if (farthest(slow, 4) == farthest(uneven, 4)).all():
        assert len(one & other) > 0.2 * min(len(one), len(other))


def test_landmarks_of_one_axis_and_of_none() -> None:
    assert len(landmarks(np.sin(np.linspace(0, 9, 100))[:, None], 3, 99)) > 2
    assert len(landmarks(np.ones((100, 3)), 3, 99)) == 0
    assert len(sketch(np.zeros(0, np.uint64), 4)) == 0


def test_a_sketch_survives_the_ledger() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 100, dtype=np.uint64)
    halves = sketch(hashes, 24).reshape(-1, 2).astype(np.uint64)
    assert (halves[:, 0] << np.uint64(24) | halves[:, 1]).tolist() == (np.sort(hashes)[:24] >> np.uint64(16)).tolist()
