"""The selection: conditions, weights and what is held out; the same for the same episodes in whatever order."""

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestration.settings import load
from ray_jobs.driver import Execution
from ray_jobs.packing.job import run as pack
from ray_jobs.packing.view import PackedEpisode, episodes_of
from ray_jobs.seam.configs import AugmentSettings, DayDataset, PackConfig, SelectionSettings, TrainSettings
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import EPISODES, VERDICTS, to_bytes
from ray_jobs.training.selection import choose, is_held_out, nothing_left, select
from tests.packing.made import DAY, add_episode

SITES = ("lab-1", "lab-2")


def episode(number: int, source: int | None = None, **facts: Any) -> PackedEpisode:
    name = f"{number if source is None else source:032x}"
    plain: dict[str, Any] = {"task": "pick", "robot": "arm-1", "day": DAY, "length": 80, "tags": {}, "scores": {}, "state_names": ("a",)}
    plain |= {"action_names": ("b",), "dataset": "datasets/d"} | facts
    own = f"{number:032x}"
    return PackedEpisode(
        episode_id=own,
        source_episode_id=name,
        synthetic=source is not None,
        episode_index=number,
        upload=own,
        fps=10,
        file="f",
        row_group=0,
        cameras={},
        **plain,
    )


def ids(episodes: tuple[PackedEpisode, ...]) -> list[int]:
    return [each.episode_index for each in episodes]


def settings(text: str, holdout: int = 0) -> SelectionSettings:
    return SelectionSettings(holdout=holdout, **yaml.safe_load(text))


FLEET = [
    episode(0, tags={"site": "lab-1"}, scores={"value.rank": 0.1}),
    episode(1, tags={"site": "lab-2"}, scores={"value.rank": 0.5}, task="open the drawer"),
    episode(2, tags={"site": "lab-2"}, scores={"value.rank": 0.9}, task="open the drawer", robot="arm-2", length=120),
    episode(3, scores={"value.rank": 0.3}, day="2026-09-22", dataset="datasets/e"),
    episode(4, tags={"site": "lab-1"}, day="2026-09-22", dataset="datasets/e"),
]


@pytest.mark.parametrize(
    ("text", "left", "told"),
    [
        ("{}", [0, 1, 2, 3, 4], {}),
        ("select: [{field: task, one_of: [open the drawer]}]", [1, 2], {"task one of 'open the drawer'": 2}),
        ("select: [{field: robot, one_of: [arm-1, arm-9]}]", [0, 1, 3, 4], {"robot one of 'arm-1', 'arm-9'": 4}),
        ("select: [{field: 'tag:site', one_of: [lab-1]}]", [0, 4], {"tag:site one of 'lab-1'": 2}),
        ("select: [{field: seconds, at_least: 10}]", [2], {"seconds at least 10": 1}),
        ("select: [{field: day, at_most: 2026-09-21}]", [0, 1, 2], {"day at most 2026-09-21": 3}),
        ("select: [{field: day, one_of: [2026-09-22]}]", [3, 4], {"day one of '2026-09-22'": 2}),
        ("select: [{field: 'score:value.rank', at_least: median}]", [1, 2], {"score:value.rank at least median (0.4)": 2}),
        ("select: [{field: 'score:value.rank', at_least: p25, at_most: 0.5}]", [1, 3], {"score:value.rank at least p25 (0.25) at most 0.5": 2}),
        (
            "select: [{field: 'tag:site', one_of: [lab-2]}, {field: 'score:value.rank', at_least: p90}]",
            [2],
            {"tag:site one of 'lab-2'": 2, "score:value.rank at least p90 (0.78)": 1},
        ),
    ],
)
def test_conditions(text: str, left: list[int], told: dict[str, int]) -> None:
    chosen = choose(FLEET, settings(text))
    assert ids(chosen.train) == left and chosen.weights == (1.0,) * len(left) and not chosen.held_out
    assert {each.text: each.episodes for each in chosen.told.conditions} == told
    assert chosen.told.left_out == ({"a condition does not hold": len(FLEET) - len(left)} if len(left) < len(FLEET) else {})


def test_the_first_part_of_the_mixture_that_fits_counts() -> None:
    chosen = choose(
        FLEET,
        settings("""
        mixture:
          - {where: [{field: task, one_of: [open the drawer]}, {field: robot, one_of: [arm-2]}], weight: 3}
          - {where: [{field: task, one_of: [open the drawer]}], weight: 0.5}
          - {where: [{field: day, one_of: [2026-09-22]}], weight: 0}
        """),
    )
    assert dict(zip(ids(chosen.train), chosen.weights, strict=True)) == {0: 1.0, 1: 0.5, 2: 3.0}
    assert chosen.told.left_out == {"weight 0 in the mixture": 2}
    assert [(each.weight, each.episodes) for each in chosen.told.mixture] == [(3.0, 1), (0.5, 1), (0.0, 0), (1.0, 1)]


def test_what_cannot_be_learned_from_is_counted_with_its_reason() -> None:
    wide = [episode(number, state_names=("a", "b")) for number in (10, 11, 12)]
    chosen = choose([*FLEET[:2], *wide, episode(20, action_names=())], settings("{}"))
    assert ids(chosen.train) == [10, 11, 12], "the commonest shape is learned from"
    assert chosen.told.left_out == {"another shape": 2, "no actions": 1}
    narrowed = choose([*FLEET[:2], *wide], settings("select: [{field: task, one_of: [open the drawer]}]"))
    assert ids(narrowed.train) == [1], "the commonest shape among what is selected"


def test_nothing_left_says_why() -> None:
    told = choose(FLEET, settings("select: [{field: task, one_of: [fold]}]")).told
    assert nothing_left(told) == ("the selection leaves nothing to learn from of 5 episodes (a condition does not hold: 5; task one of 'fold' holds for 0)")
    assert nothing_left(choose(FLEET[:2], settings("{}", holdout=1)).told) == "the selection leaves nothing to learn from of 2 episodes (held out: 2)"
    assert nothing_left(choose([], settings("{}")).told) == "no episodes in the view"


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ({"field": "taks", "one_of": ["x"]}, "unknown field 'taks': use task, robot, day, seconds, tag:NAME or score:NAME"),
        ({"field": "score:", "at_least": 1}, "unknown field 'score:'"),
        ({"field": "task", "at_least": 1}, "task is a word: give it one_of"),
        ({"field": "tag:site"}, "tag:site is a word: give it one_of"),
        ({"field": "seconds", "one_of": ["8"]}, "seconds is a number: give it at_least, at_most, or both"),
        ({"field": "score:value.rank"}, "score:value.rank is a number"),
        ({"field": "score:value.rank", "at_least": "p0"}, "use a number, median, or p1 to p99"),
        ({"field": "score:value.rank", "at_most": float("nan")}, "use a number, median, or p1 to p99"),
        ({"field": "day", "at_least": 5}, "day: give days as YYYY-MM-DD"),
        ({"field": "day"}, "day: give days as YYYY-MM-DD"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(condition: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TrainSettings(select=(condition,))
    with pytest.raises(ValidationError, match=says):
        TrainSettings.model_validate({"mixture": [{"where": [condition], "weight": 1}]})


@st.composite
def fleets(draw: st.DrawFn) -> list[PackedEpisode]:
    """Recorded episodes, each with up to two copies."""
    made: list[PackedEpisode] = []
    for number in range(draw(st.integers(0, 25))):
        facts = {
            "task": draw(st.sampled_from(["pick", "open"])),
            "robot": draw(st.sampled_from(["arm-1", "arm-2"])),
            "tags": draw(st.sampled_from([{}, {"site": "lab-1"}, {"site": "lab-2"}])),
            "scores": draw(st.sampled_from([{}, {"s": 0.0}, {"s": 0.5}, {"s": 2.0}])),
            "state_names": draw(st.sampled_from([("a",), ("a",), ("a", "b")])),
            "action_names": draw(st.sampled_from([("x",), ("x",), ()])),
        }
        made.append(episode(1000 * number, **facts))
        made += [episode(1000 * number + copy + 1, source=1000 * number, **facts) for copy in range(draw(st.integers(0, 2)))]
    return made


conditions = st.sampled_from(
    [
        {"field": "task", "one_of": ("pick",)},
        {"field": "robot", "one_of": ("arm-2",)},
        {"field": "tag:site", "one_of": SITES},
        {"field": "score:s", "at_least": "median"},
        {"field": "score:s", "at_most": 0.5},
    ]
)
parts = st.fixed_dictionaries({"where": st.lists(conditions, max_size=2), "weight": st.sampled_from([0, 0.5, 1, 3])})
wishes = st.builds(
    lambda holdout, select, mixture: SelectionSettings.model_validate({"holdout": holdout, "select": select, "mixture": mixture}),
    st.sampled_from([0, 1, 2, 3]),
    st.lists(conditions, max_size=2),
    st.lists(parts, max_size=2),
)


@given(fleets(), wishes, st.randoms())
def test_whatever_is_selected(fleet: list[PackedEpisode], wish: SelectionSettings, order: random.Random) -> None:
    chosen = choose(fleet, wish)
    shuffled = fleet[:]
    order.shuffle(shuffled)
    assert choose(shuffled, wish) == chosen
    assert choose(chosen.train, wish.model_copy(update={"select": (), "mixture": ()})).train == chosen.train
    trained, held = {each.episode_id for each in chosen.train}, {each.episode_id for each in chosen.held_out}
    assert not any(each.synthetic for each in chosen.held_out)
    assert all(is_held_out(name, wish.holdout) for name in held)
    assert not any(is_held_out(each.source_episode_id, wish.holdout) for each in chosen.train)
    assert held.isdisjoint(each.source_episode_id for each in chosen.train)
    recorded = {each.episode_id: each for each in fleet if not each.synthetic}
    for each in fleet:
        if each.synthetic:
            assert (each.episode_id in trained) == (each.source_episode_id in trained), "a copy follows its source"
    weight = {each.episode_id: passes for each, passes in zip(chosen.train, chosen.weights, strict=True)}
    assert all(passes > 0 for passes in weight.values())
    assert all(weight[each.episode_id] == weight[each.source_episode_id] for each in chosen.train)
    assert len({(each.state_names, each.action_names) for each in (*chosen.train, *chosen.held_out)}) <= 1
    told = chosen.told
    assert told.episodes == len(fleet) == len(trained) + len(held) + sum(told.left_out.values())
    scores = [each.scores["s"] for each in recorded.values() if each.action_names and "s" in each.scores]
    for condition in wish.select:
        for each in chosen.train:
            if condition.field == "score:s" and condition.at_least == "median":
                assert each.scores["s"] >= np.median(scores)
            elif condition.field == "task":
                assert each.task == "pick"
            elif condition.field == "tag:site":
                assert each.tags["site"] in SITES


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, DayDataset]:
    """Six episodes without cameras, each with a copy; of two sites and with scores, one of them no number."""
    from ray_jobs.seam.store import StoreConfig

    folder = tmp_path_factory.mktemp("packed")
    store = Store(StoreConfig.local(folder / "store"))
    rows = [add_episode(store, folder, f"e{number}", count=8, cameras=()) for number in range(6)]
    verdicts = [
        {
            "episode_id": row["episode_id"],
            "day": DAY,
            "verdict": "kept",
            "tags": {"site": SITES[number % 2]},
            "scores": {"value.rank": number / 7, "state.span": float("nan")},
        }
        for number, row in enumerate(rows)
    ]
    store.put("tables/episodes.parquet", to_bytes(rows, EPISODES))
    store.put("tables/verdicts.parquet", to_bytes(verdicts, VERDICTS))
    told = {"episodes": {DAY: "tables/episodes.parquet"}, "verdicts": {DAY: "tables/verdicts.parquet"}}
    execution = Execution(store, "attempts/b/a1/x", report=lambda message: None)
    result = pack(PackConfig(store=store.config, days=(DAY,), augment=AugmentSettings(), **told), execution)[DAY]
    return store, DayDataset.model_validate(result.output["dataset"])


def test_scores_travel_with_the_packed_episode(packed: tuple[Store, DayDataset]) -> None:
    store, dataset = packed
    recorded = [each for each in episodes_of(store, dataset) if not each.synthetic]
    assert sorted(each.scores["value.rank"] for each in recorded) == [float(f"{number / 7:.6g}") for number in range(6)]
    assert all(set(each.scores) == {"value.rank"} for each in recorded), "what is no number is not packed"
    by_id = {each.episode_id: each for each in recorded}
    copies = [each for each in episodes_of(store, dataset) if each.synthetic]
    assert len(copies) == 6 and all((each.scores, each.tags) == (by_id[each.source_episode_id].scores, by_id[each.source_episode_id].tags) for each in copies)
    bare = episodes_of(store, dataset, tags=(), scores=("other",))
    assert [replace(each, tags={}, scores={}) for each in episodes_of(store, dataset)] == bare


def test_selecting_reads_neither_data_nor_video(packed: tuple[Store, DayDataset], tmp_path: Path) -> None:
    from ray_jobs.seam.store import StoreConfig

    store, dataset = packed
    bare = Store(StoreConfig.local(tmp_path / "bare"))
    for entry in store.list(dataset.prefix + "/"):
        if "/meta/" in entry.key or entry.key.endswith("manifest.json"):
            bare.put(entry.key, store.get(entry.key))
    chosen = select(bare, [dataset], settings("select: [{field: 'tag:site', one_of: [lab-2]}, {field: 'score:value.rank', at_least: median}]"))
    assert len(chosen.train) == 4 and {each.tags["site"] for each in chosen.train} == {"lab-2"}
    assert {each.scores["value.rank"] for each in chosen.train} == {0.428571, 0.714286}


def test_an_unknown_tag_or_score_names_those_that_exist(packed: tuple[Store, DayDataset]) -> None:
    store, dataset = packed
    for text, says in (
        ("select: [{field: 'tag:sites', one_of: [x]}]", "no episode of the view has the tag 'sites', did you mean 'site'? There are site"),
        ("mixture: [{where: [{field: 'score:rank', at_least: 1}], weight: 2}]", "no episode of the view has the score 'rank'"),
    ):
        with pytest.raises(UserError) as error:
            select(store, [dataset], settings(text))
        assert says in str(error.value) and "\n" not in str(error.value)
    assert select(store, [], settings("select: [{field: 'tag:sites', one_of: [x]}]")).told.episodes == 0


def test_a_day_packed_before_scores_were_kept_has_none(packed: tuple[Store, DayDataset], tmp_path: Path) -> None:
    import io

    import pyarrow.parquet as pq

    from ray_jobs.seam.store import StoreConfig

    store, dataset = packed
    old = Store(StoreConfig.local(tmp_path / "old"))
    for entry in store.list(dataset.prefix + "/"):
        data, sink = store.get(entry.key), io.BytesIO()
        if entry.key.endswith("flywheel_episodes.parquet"):
            pq.write_table(pq.read_table(io.BytesIO(data)).drop_columns(["scores"]), sink)
        old.put(entry.key, sink.getvalue() or data)
    assert all(each.scores == {} and each.tags for each in episodes_of(old, dataset))
    with pytest.raises(UserError, match=r"nor any other: these days were packed before scores were kept, pack them again$"):
        select(old, [dataset], settings("select: [{field: 'score:value.rank', at_least: median}]"))


def test_the_settings_of_the_docs_are_settings(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "training.md").read_text(), re.DOTALL)
    assert sum("select:" in example or "tuning:" in example or "start:" in example for example in examples) >= 3
    for number, example in enumerate(examples):
        document = tmp_path / f"{number}.yaml"
        document.write_text(example)
        load(document)
