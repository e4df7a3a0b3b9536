"""Informative value: what the estimator says where the answer is known, and of the simulated fleet's damaged episodes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fleet.record import record_day
from orchestration.curation.value import FEWEST, Moments, informations, ranking, worth
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.curation.value import MOST_MOMENTS, MOST_NUMBERS, Value
from ray_jobs.episode import Episode, Stream, read_episode, write_episode
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.store import Store
from tests.curation.synthetic import make, save
from tests.curation.test_duplicates import ingested

PLAN = Plan.of(MeasureSettings(), [Value()])


def gaussian(correlation: float, episodes: int, seed: int = 0) -> list[Moments]:
    draw = np.random.default_rng(seed)
    seen = draw.normal(size=(episodes, 32, 1))
    noise = draw.normal(size=(episodes, 32, 1))
    return [Moments(one, correlation * one + np.sqrt(1 - correlation**2) * other) for one, other in zip(seen, noise, strict=True)]


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_the_estimate_of_a_gaussian_is_its_mutual_information(correlation: float) -> None:
    found = informations(gaussian(correlation, 64))
    assert found.mean() == pytest.approx(-0.5 * np.log(1 - correlation**2), abs=0.08)


def named(episodes: list[Moments], first: int = 0) -> dict[str, Moments]:
    return {f"{first + number:032x}": moments for number, moments in enumerate(episodes)}


def test_with_few_episodes_nothing_is_said() -> None:
    assert worth(named(gaussian(0.5, FEWEST - 1)), {}) == {}
    assert len(worth(named(gaussian(0.5, FEWEST - 1)), named(gaussian(0.5, 4, seed=1), 100))) == FEWEST - 1


def test_robots_of_another_shape_are_not_mixed_in() -> None:
    own, others = named(gaussian(0.5, 20)), named([Moments(np.zeros((32, 3)), np.zeros((32, 2)))] * 5, 100)
    assert worth(own | others, {}) == worth(own, {})


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 150), st.integers(0, 60), st.randoms())
def test_every_episode_of_the_day_has_one_value_whatever_the_order(own: int, past: int, shuffle: Any) -> None:
    today, before = named(gaussian(0.7, own)), named(gaussian(0.7, past, seed=1), 1000)
    found = worth(today, before)
    assert set(found) in (set(today), set()) and (own + min(past, 32) < FEWEST) == (not found)
    assert all(0 <= row["value.rank"] <= 1 and np.isfinite(row["value.mutual_information"]) for row in found.values())
    names = list(today)
    shuffle.shuffle(names)
    assert worth({name: today[name] for name in names}, before) == found


def test_the_table_shows_both_ends_of_what_is_kept() -> None:
    rows = [
        {"episode_id": f"{n:032x}", "upload": f"a|{n}", "verdict": "kept" if n else "rejected", "scores": {"value.rank": n / 20, "value.mutual_information": n}}
        for n in range(20)
    ]
    told = ranking(rows)
    assert told is not None and [line.split("/")[1].split(" ")[0] for line in told.splitlines()[2:]] == ["1", "2", "3", "4", "5", "15", "16", "17", "18", "19"]
    assert ranking(rows[:1]) is None


def sketch(store: Store, episode_id: str) -> dict[str, Any]:
    (row,) = measure_here(store, episode_id, PLAN)
    assert row["error"] is None
    return row


def test_a_sketch_is_small_however_long_and_wide(store: Store) -> None:
    made = make(1, count=400)
    save(store, made.but(frames=made.frames[:0]), "long")
    moments = Moments.of(sketch(store, "long"))
    assert moments is not None and len(moments.seen) == MOST_MOMENTS and moments.shape == (5, 8)
    save(store, made.but(frames=made.frames[:0], states=np.repeat(made.states, 20, axis=1)), "wide")
    wide = Moments.of(sketch(store, "wide"))
    assert wide is not None and wide.seen.size + wide.done.size <= MOST_NUMBERS


def test_without_actions_there_is_no_sketch(store: Store) -> None:
    made = make(2)
    save(store, made.but(frames=made.frames[:0], actions=made.actions[:0]), "state only")
    assert Moments.of(sketch(store, "state only")) is None and Moments.of(None) is None


def spoilt(store: Store, source: str, kind: int, draw: np.random.Generator) -> Moments:
    """0: as recorded; 1, 2: noise of 0.5 and 1 standard deviations on the actions; 3: the actions in another order."""
    episode = read_episode(store, source)
    action = episode.streams["action"]
    values = action.values + draw.normal(size=action.values.shape) * action.values.std(axis=0) * (0, 0.5, 1, 0)[kind]
    if kind == 3:
        values = values[draw.permutation(len(values))]
    streams = {"state": episode.streams["state"], "action": Stream(action.t_ns, action.log_ns, values.astype(np.float32))}
    meta = episode.meta.model_copy(update={"episode_id": f"{source[:28]}-{kind}", "cameras": {}})
    write_episode(store, Episode(meta, streams), {})
    found = Moments.of(sketch(store, meta.episode_id))
    assert found is not None
    return found


def test_noise_and_disorder_score_lower_in_the_fleet(store: Store, tmp_path: Path) -> None:
    record_day(tmp_path / "raw", tmp_path / "truth", "2026-01-05", ("arm-1", "arm-2", "arm-3"), 16, seed=2, damaged=0.0)
    names = sorted(row["episode_id"] for row in ingested(store, tmp_path / "raw"))
    assert len(names) == 48
    draw = np.random.default_rng(0)
    found = worth({name: spoilt(store, name, number % 4, draw) for number, name in enumerate(names)}, {})
    values = np.array([found[name]["value.mutual_information"] for name in names])
    kind = np.arange(len(names)) % 4
    assert spearmanr(values, -kind).statistic > 0.75
    assert values[kind == 0].min() > values[kind == 3].max()
    assert np.mean(values[kind == 0][:, None] > values[kind == 2][None]) > 0.95
