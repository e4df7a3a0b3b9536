"""Synthetic copies: what they are, how they are marked, and where they must never be."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.driver import Execution
from ray_jobs.packing.augment import apply, draw, expand
from ray_jobs.packing.job import run
from ray_jobs.packing.view import PackedEpisode, episodes_of, read_episode_arrays
from ray_jobs.seam.configs import AugmentSettings, DayDataset, SelectionSettings
from ray_jobs.seam.store import Store
from ray_jobs.training.selection import is_held_out, select
from tests.packing.made import DAY, add_episode, pack_config, packed

SETTINGS = AugmentSettings(copies=2, seed=7)
NOTHING = AugmentSettings(brightness=0, contrast=0, colour=0, blur_px=0, crop=0)


def pictures(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pack(store: Store, rows: list[dict[str, Any]], settings: AugmentSettings | None = SETTINGS) -> tuple[DayDataset, dict[str, int]]:
    config = pack_config(store, rows).model_copy(update={"augment": settings})
    result = run(config, Execution(store, "attempts/p/a1/x", report=lambda message: None))[DAY]
    assert result.status == "ok" and result.counts["left_out"] == 0
    return packed(result), result.counts


@pytest.fixture
def rows(store: Store, tmp_path: Path) -> list[dict[str, Any]]:
    return [add_episode(store, tmp_path, name, count=20) for name in ("a", "b", "c")]


def table(store: Store, key: str) -> Any:
    return pq.read_table(io.BytesIO(store.get(key)))


def test_every_row_says_whether_it_is_synthetic(store: Store, rows: list[dict[str, Any]]) -> None:
    dataset, counts = pack(store, rows)
    assert (counts["episodes"], counts["synthetic"]) == (9, 6)
    episodes = episodes_of(store, dataset)
    assert [episode.synthetic for episode in episodes] == [False, True, True] * 3
    assert [episode.source_episode_id for episode in episodes] == [row["episode_id"] for row in rows for _ in range(3)]
    assert len({episode.episode_id for episode in episodes}) == 9
    info = json.loads(store.get(f"{dataset.prefix}/meta/info.json"))
    assert info["features"]["synthetic"] == {"dtype": "bool", "shape": [1], "names": None}
    data = table(store, f"{dataset.prefix}/data/chunk-000/file-000.parquet")
    assert data["synthetic"].to_pylist() == [number % 3 != 0 for number in data["episode_index"].to_pylist()]
    told = table(store, f"{dataset.prefix}/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["synthetic"], row["source_episode_id"]) for row in told] == [(episode.synthetic, episode.source_episode_id) for episode in episodes]
    recipes = table(store, f"{dataset.prefix}/meta/flywheel_episodes.parquet")["recipe"].to_pylist()
    assert [recipe is not None for recipe in recipes] == [False, True, True] * 3 and len(set(recipes)) == 7


def test_numbers_stay_and_pictures_change(store: Store, rows: list[dict[str, Any]]) -> None:
    dataset, _ = pack(store, rows[:1])
    recorded, first, second = (read_episode_arrays(store, dataset, number) for number in range(3))
    for copy in (first, second):
        np.testing.assert_array_equal(copy.state, recorded.state)
        np.testing.assert_array_equal(copy.action, recorded.action)
        assert copy.frames["front"].shape == recorded.frames["front"].shape
        away = np.abs(copy.frames["front"].astype(int) - recorded.frames["front"])
        assert 2 < away.mean() < 80
    recipe = draw(rows[0]["episode_id"], SETTINGS, 0)
    wanted = np.stack([apply(recipe, frame) for frame in recorded.frames["front"]])
    assert np.abs(wanted.astype(int) - first.frames["front"]).mean() < 6  # but for its encoding


def test_the_same_seed_packs_the_same_bytes_and_another_does_not(store: Store, rows: list[dict[str, Any]]) -> None:
    one, again = pack(store, rows)[0], pack(store, rows)[0]
    other = pack(store, rows, SETTINGS.model_copy(update={"seed": 8}))[0]
    assert one == again != other


def test_off_there_is_no_such_column(store: Store, rows: list[dict[str, Any]]) -> None:
    dataset, counts = pack(store, rows, None)
    assert counts["synthetic"] == 0 and not any(episode.synthetic for episode in episodes_of(store, dataset))
    assert "synthetic" not in json.loads(store.get(f"{dataset.prefix}/meta/info.json"))["features"]
    assert "synthetic" not in table(store, f"{dataset.prefix}/data/chunk-000/file-000.parquet").column_names


def test_no_copy_is_held_out_and_none_of_a_held_out_episode_is_trained_on(store: Store, tmp_path: Path) -> None:
    names = [f"e{number}" for number in range(8)]
    rows = [add_episode(store, tmp_path, name, count=8, cameras=()) for name in names]
    dataset, _ = pack(store, rows, AugmentSettings(copies=6))
    chosen = select(store, [dataset], SelectionSettings(holdout=3))
    held = {row["episode_id"] for row in rows if is_held_out(row["episode_id"], 3)}
    assert 0 < len(held) < len(rows)
    assert {episode.episode_id for episode in chosen.held_out} == held and not any(episode.synthetic for episode in chosen.held_out)
    assert held.isdisjoint(episode.source_episode_id for episode in chosen.train)
    assert len(chosen.train) == 7 * (len(rows) - len(held))
    unlucky = [episode for episode in episodes_of(store, dataset) if episode.synthetic and is_held_out(episode.episode_id, 3)]
    assert unlucky, "the test would prove nothing without copies whose own id would be held out"


def test_episodes_packed_before_copies_existed_are_their_own_source(store: Store, rows: list[dict[str, Any]]) -> None:
    dataset, _ = pack(store, rows, None)
    key = f"{dataset.prefix}/meta/flywheel_episodes.parquet"
    sink = io.BytesIO()
    pq.write_table(table(store, key).drop_columns(["synthetic", "source_episode_id", "recipe"]), sink)
    store.put(key, sink.getvalue())
    found: list[PackedEpisode] = episodes_of(store, dataset)
    assert [(episode.source_episode_id, episode.synthetic) for episode in found] == [(row["episode_id"], False) for row in rows]


def test_a_recipe_of_nothing_changes_nothing() -> None:
    frame = pictures()
    np.testing.assert_array_equal(apply(draw("x", NOTHING, 0), frame), frame)


@given(st.text("0123456789abcdef", min_size=32, max_size=32), st.integers(0, 15), st.integers(0, 1000))
def test_a_recipe_stays_within_its_settings_and_keeps_the_size(episode_id: str, number: int, seed: int) -> None:
    settings = AugmentSettings(seed=seed)
    recipe = draw(episode_id, settings, number)
    assert recipe == draw(episode_id, settings, number)
    for name in ("brightness", "contrast", "colour"):
        assert abs(getattr(recipe, name) - 1) <= getattr(settings, name)
    assert 0 <= recipe.blur_px <= settings.blur_px and 0 <= recipe.crop <= settings.crop and 0 <= recipe.right <= 1 and 0 <= recipe.down <= 1
    frame = pictures(seed, 16 + seed % 5, 24)
    assert apply(recipe, frame).shape == frame.shape


def test_each_part_of_a_recipe_does_what_it_says() -> None:
    frame = pictures()
    plain = draw("x", NOTHING, 0)

    def made(**changes: float) -> np.ndarray:
        return apply(plain.model_copy(update=changes), frame).astype(float)

    assert made(brightness=0.8).mean() == pytest.approx(0.8 * frame.mean(), abs=0.5)
    assert made(contrast=0.5).std() == pytest.approx(0.5 * frame.std(), rel=0.02)
    assert np.ptp(made(colour=0.0), axis=2).max() == 0
    assert made(blur_px=1.5).std() < 0.5 * frame.std()
    ramp = np.repeat(np.linspace(0, 250, 64).astype(np.uint8)[None, :, None], 48, axis=0).repeat(3, axis=2)
    left, right = (apply(plain.model_copy(update={"crop": 0.25, "right": side}), ramp) for side in (0.0, 1.0))
    assert left[0, -1, 0] == pytest.approx(0.75 * 250, abs=6) and right[0, 0, 0] == pytest.approx(0.25 * 250, abs=6)


def test_expand_keeps_the_order_and_names_the_source() -> None:
    rows = [{"episode_id": hashlib.sha256(name.encode()).hexdigest()[:32]} for name in "ab"]
    made = expand(rows, SETTINGS)
    assert made[::3] == rows and [row.get("source_episode_id") for row in made[1:3]] == [rows[0]["episode_id"]] * 2
    assert expand(rows, None) is rows
