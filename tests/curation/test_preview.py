"""The preview: what it says would change is what judging and measuring then change."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cli import main
from orchestration.curation.decide import decide
from orchestration.curation.preview import Again, Changes, compare, judged_days, measured_again, rejudged, thresholds_of, told, versions_here
from orchestration.curation.thresholds import Thresholds
from orchestration.settings import current, load
from ray_jobs.curation.measure import Plan
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import EPISODES, VERDICTS, to_bytes

T = Thresholds.load()
DAYS = ("2026-01-05", "2026-01-06", "2026-01-07")
LENGTHS = (0.4, 1.5, 2.5, 9.0)  # s, of each day's episodes; the defaults reject the first
STAGES = {"signal": "1-old", "image": "2-same"}


def publish(store: Store, asset: str, day: str, **more: object) -> None:
    made = Pointer.model_validate({"asset": asset, "day": day, "generation": "g1", "run_id": "r", **more})
    store.put(pointer(asset, day, "g1"), made.model_dump_json().encode())


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three days of four episodes and an unreadable file, measured and judged under the default thresholds."""
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    current.cache_clear()
    store = Store(StoreConfig.local(tmp_path / "store"))
    for number, day in enumerate(DAYS):
        names = [f"{number * 10 + place:032x}" for place in range(5)]
        rows = [
            {"episode_id": name, "day": day, "day_source": "upload", "robot": "r", "upload": f"{name[-2:]}.mcap", "status": status}
            for name, status in zip(names, ["ok"] * 4 + ["quarantined"], strict=True)
        ]
        store.put(f"tables/{day}.parquet", to_bytes(rows, EPISODES))
        for name, length in zip(names, LENGTHS, strict=False):
            for stage, version in STAGES.items():
                scores = {"duration_s": length} if stage == "signal" else {}
                ledger.append(store, stage, version, day, [{"episode_id": name, "scores": scores, "seconds": 0.5 if stage == "signal" else 2.0}])
        publish(store, "episodes", day, output={"episodes": f"tables/{day}.parquet"})
        publish(store, "measurements", day, output={"stages": STAGES})
        judge(store, day, T)
    return store


def judge(store: Store, day: str, thresholds: Thresholds) -> list[dict[str, Any]]:
    decided = decide(store, day, f"tables/{day}.parquet", STAGES, thresholds)
    store.put(f"verdicts/{day}.parquet", to_bytes(decided.rows, VERDICTS))
    publish(store, "verdicts", day, output={"verdicts": f"verdicts/{day}.parquet"})
    return decided.rows


def test_other_thresholds_are_counted_by_reason_and_nothing_is_written(judged: Store) -> None:
    files = {(entry.key, entry.etag) for entry in judged.list()}
    same = rejudged(judged, DAYS, T)
    assert not same.moved and same.before == same.after == {"kept": 9, "rejected": 3, "quarantined": 3} and "no verdict changes" in told(same, [])
    stricter = T.model_copy(update={"min_duration_s": 2.0, "max_duration_s": 5.0})
    changes = rejudged(judged, DAYS, stricter)
    assert changes.moved == {("kept", "rejected", "too_short"): 3, ("kept", "rejected", "too_long"): 3} and changes.episodes_moved == 6
    looser = rejudged(judged, DAYS[1:], T.model_copy(update={"min_duration_s": 0.1}))
    assert looser.moved == {("rejected", "kept", "too_short"): 2} and looser.days == 2
    text = told(changes, [])
    assert "kept               9 -> 3" in text and "3  kept -> rejected: too_short   e.g. 15.mcap: too_short: 1.5 s" in text
    assert {(entry.key, entry.etag) for entry in judged.list()} == files
    for day in DAYS:
        judge(judged, day, stricter)
    assert not rejudged(judged, DAYS, stricter).moved  # what was foretold is what happened


verdict = st.sampled_from(["kept", "rejected", "quarantined", "superseded"])
one = st.tuples(verdict, st.lists(st.sampled_from(["gap: a", "idle: b", "black: c", "note: d"]), max_size=3))


@given(st.lists(st.tuples(one, one), max_size=8))
def test_counts_add_up_whatever_changes(drawn: list[tuple[tuple[str, list[str]], tuple[str, list[str]]]]) -> None:
    tables = [
        [{"upload": "u", "episode_id": str(place), "verdict": pair[side][0], "reasons": pair[side][1]} for place, pair in enumerate(drawn)] for side in (0, 1)
    ]
    changes = Changes()
    compare(tables[0], tables[1], changes)
    moved = sum(1 for before, after in drawn if before[0] != after[0])
    assert changes.episodes_moved == moved and sum(changes.before.values()) == sum(changes.after.values()) == len(drawn)
    assert sum(changes.moved.values()) >= moved and all(before != after for before, after, _ in changes.moved)
    assert changes.reworded <= len(drawn) - moved
    assert told(changes, []).count("e.g.") == len(changes.moved)


def test_a_bumped_stage_says_what_it_would_cost(judged: Store) -> None:
    assert measured_again(judged, DAYS, STAGES) == []
    bumped = {**STAGES, "signal": "2-new"}
    assert measured_again(judged, DAYS, bumped) == [Again("signal", ("1-old",), "2-new", 12, 0.5)]
    ledger.append(judged, "signal", "2-new", DAYS[0], [{"episode_id": f"{0:032x}", "scores": {}, "seconds": 4.0}])
    assert measured_again(judged, DAYS, bumped) == [Again("signal", ("1-old",), "2-new", 11, 4.0)]
    assert measured_again(judged, DAYS[1:2], bumped)[0].episodes == 4
    fresh = measured_again(judged, DAYS, {"image": "2-same", "taste": "1"})
    assert fresh == [Again("signal", ("1-old",), None, 0, 0.5), Again("taste", (), "1", 12, None)]
    text = told(Changes(), fresh)
    assert "taste: never measured -> 1: 12 episodes, cost unknown" in text and "signal: 1-old -> no longer a stage" in text
    assert "about 40 min of one core" in told(Changes(), [Again("x", (), "1", 1200, 2.0)])


def test_the_versions_are_those_that_the_job_measures_under(judged: Store) -> None:
    here = versions_here(load())
    assert here == Plan.of(MeasureSettings(task="pick_place")).versions


@pytest.mark.parametrize(
    ("text", "words"),
    [("min_duration_s: [", "is not YAML"), ("- 1", "is not a mapping"), ("min_durations: 1", "min_durations"), ("min_duration_s: many", "min_duration_s")],
)
def test_a_document_that_is_not_understood_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "new.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        thresholds_of(path, T)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read"):
        thresholds_of(tmp_path / "absent.yaml", T)


def test_the_command_tells_both(judged: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new.yaml"
    path.write_text(yaml.safe_dump({"min_duration_s": 2.0}))
    assert main(["preview", "--thresholds", str(path), "--days", f"{DAYS[0]}..{DAYS[1]}"]) == 0
    text = capsys.readouterr().out
    assert "2 days, 10 episodes" in text and "2  kept -> rejected: too_short" in text
    assert "signal: 1-old -> " in text and "8 episodes, about 4 s of one core" in text
    assert main(["preview", "--days", "1999-01-01"]) == 1
    assert "no judged days" in capsys.readouterr().err
    assert judged_days(judged) == list(DAYS) and json.dumps(judged_days(judged, DAYS[2])) == f'["{DAYS[2]}"]'
