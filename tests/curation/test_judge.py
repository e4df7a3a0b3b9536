"""Verdicts as tables and as properties."""

import random
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestration.curation.context import Context, build
from orchestration.curation.judge import VERDICTS, counts, judge
from orchestration.curation.present import by_reason, contact_sheet, present, reasons_table
from orchestration.curation.thresholds import DOCUMENT, Thresholds
from orchestration.curation.view import view_match
from ray_jobs.curation.pictures import BACKGROUND, shrink
from tests.curation.synthetic import background

T = Thresholds.load()
DAY = "2026-09-21"
GOOD = {
    "duration_s": 5.0,
    "state.span": 1.0,
    "idle.fraction": 0.0,
    "idle.longest_s": 0.1,
    "time.gap_s:state": 0.1,
    "image.repeated:front": 0.0,
    "image.sharp:front": 100.0,
    "image.lag_s:front": 0.0,
    "image.lag_match:front": 0.9,
    "image.lag_gain:front": 0.0,
    "command.r2": 0.8,
    "command.lag_s": 0.0,
    "command.r2_now": 0.5,
    "task.distance": 0.2,
}


def episode(number: int, **changes: Any) -> dict[str, Any]:
    start = 1_790_000_000_000_000_000 + number * 60_000_000_000
    base = {
        "episode_id": f"{number:032x}",
        "day": DAY,
        "day_source": "recording",
        "robot": "arm-1",
        "task": "t",
        "upload": f"arm-1/{number}.mcap",
        "status": "ok",
        "reason": None,
        "start_ns": start,
        "end_ns": start + 5_000_000_000,
        "notes": [],
    }
    return {**base, **changes}


def measured(rows: list[dict[str, Any]], scores: dict[int, dict[str, float]] | None = None, vectors: dict[str, Any] | None = None) -> dict[str, Any]:
    """A ledger of one stage in which everything is good but what `scores` says of the n-th row."""
    ledger = {}
    for number, row in enumerate(rows):
        own = {**GOOD, **(scores or {}).get(number, {})}
        ledger[row["episode_id"]] = {"scores": own, "vectors": dict(vectors or {}), "error": None, "picture": None}
    return {"signal": ledger}


def verdicts(rows: list[dict[str, Any]], ledger: dict[str, Any], thresholds: Thresholds = T) -> list[dict[str, Any]]:
    return judge(rows, ledger, thresholds, build([], (rows, ledger), thresholds))


@pytest.mark.parametrize(
    ("score", "value", "check"),
    [
        ("duration_s", 0.4, "too_short"),
        ("duration_s", 20_000.0, "too_long"),
        ("state.nonfinite", 0.01, "not_a_number"),
        ("action.nonfinite", 0.3, "not_a_number"),
        ("time.backward:state", 1.0, "clock_backward"),
        ("time.clock_s:camera:front", 0.7, "clock_step"),
        ("time.gap_s:camera:front", 0.8, "gap"),
        ("time.lost:camera:front", 0.4, "lost_samples"),
        ("state.span", 0.0, "still_joints"),
        ("idle.fraction", 0.8, "idle"),
        ("idle.fraction", 0.4, "idle"),
        ("idle.longest_s", 1.5, "idle"),
        ("image.repeated:front", 0.97, "dead_camera"),
        ("image.frozen:front", 0.3, "frozen_camera"),
        ("image.frozen_s:front", 2.0, "frozen_camera"),
        ("image.black:front", 0.5, "black"),
        ("image.overexposed:front", 0.9, "overexposed"),
        ("image.sharp:front", 10.0, "blur"),
        ("command.r2", 0.2, "command_mismatch"),
        ("command.lag_s", 0.4, "command_lag"),
        ("task.distance", 3.0, "task_failed"),
    ],
)
def test_one_bad_score_is_one_rejection_with_its_reason(score: str, value: float, check: str) -> None:
    rows = [episode(number) for number in range(10)]
    found = verdicts(rows, measured(rows, {4: {score: value}}))
    assert [row["verdict"] for row in found] == ["kept"] * 4 + ["rejected"] + ["kept"] * 5
    assert found[4]["reasons"][0].split(":")[0] == check
    assert found[4]["scores"][score] == value


def test_a_camera_lag_counts_only_where_it_explains_more_than_none() -> None:
    rows = [episode(number) for number in range(10)]
    lag = {"image.lag_s:front": 0.4}
    found = verdicts(
        rows, measured(rows, {2: {**lag, "image.lag_gain:front": 0.4}, 3: lag, 4: {**lag, "image.lag_gain:front": 0.4, "image.lag_match:front": 0.1}})
    )
    assert [row["verdict"] for row in found[2:5]] == ["rejected", "kept", "kept"]


def test_what_is_not_measured_or_not_measurable_is_quarantined() -> None:
    rows = [episode(number) for number in range(3)]
    ledger = measured(rows)
    del ledger["signal"][rows[0]["episode_id"]]
    ledger["signal"][rows[1]["episode_id"]]["error"] = "the video ends early"
    found = verdicts(rows, ledger)
    assert [row["verdict"] for row in found] == ["quarantined", "quarantined", "kept"]
    assert found[0]["reasons"] == ["not_measured: the stage signal has no result"]
    assert found[1]["reasons"] == ["unmeasurable: signal: the video ends early"]


def test_ingest_decided_already() -> None:
    rows = [episode(0, status="quarantined", reason="zero bytes", start_ns=None, end_ns=None), episode(1, status="superseded", reason="replaced"), episode(2)]
    found = {row["upload"]: row for row in verdicts(rows, measured(rows))}
    assert found["arm-1/0.mcap"]["verdict"] == "quarantined" and "zero bytes" in found["arm-1/0.mcap"]["reasons"][0]
    assert found["arm-1/1.mcap"]["verdict"] == "superseded"
    assert counts(list(found.values())) == {"uploaded": 3, "kept": 1, "rejected": 0, "quarantined": 1, "superseded": 1}


def test_the_same_content_or_the_same_seconds_are_kept_once() -> None:
    first, copy = episode(0), episode(0, upload="arm-1/9-copy.mcap")
    again = episode(7, start_ns=first["start_ns"] + 500_000_000, end_ns=first["end_ns"])
    other_robot = episode(8, robot="arm-2", start_ns=first["start_ns"], end_ns=first["end_ns"])
    touching = episode(9, start_ns=first["end_ns"] - 100_000_000, end_ns=first["end_ns"] + 5_000_000_000)
    rows = [touching, again, copy, other_robot, first]
    found = {(row["upload"]): row for row in verdicts(rows, measured(rows))}
    assert found["arm-1/0.mcap"]["verdict"] == "kept"
    assert found["arm-1/9-copy.mcap"]["reasons"] == [f"duplicate: the same content came with arm-1/0.mcap of {DAY}"]
    assert found["arm-1/7.mcap"]["reasons"] == [f"duplicate: the same seconds of this robot came with arm-1/0.mcap of {DAY}"]
    assert found["arm-1/8.mcap"]["verdict"] == found["arm-1/9.mcap"]["verdict"] == "kept"


def test_a_broken_first_copy_does_not_take_the_good_one_along() -> None:
    broken, good = episode(0), episode(1, start_ns=episode(0)["start_ns"], end_ns=episode(0)["end_ns"])
    found = verdicts([broken, good], measured([broken, good], {0: {"state.nonfinite": 0.5}}))
    assert {row["upload"]: row["verdict"] for row in found} == {"arm-1/0.mcap": "rejected", "arm-1/1.mcap": "kept"}


def test_without_a_clock_the_same_seconds_mean_nothing() -> None:
    rows = [episode(number, day_source="upload", start_ns=0, end_ns=5_000_000_000) for number in range(3)]
    assert [row["verdict"] for row in verdicts(rows, measured(rows))] == ["kept"] * 3


def test_an_earlier_day_has_the_older_claim_and_its_habits_count() -> None:
    before = [episode(number, day="2026-09-20") for number in range(10)]
    rows = [episode(3), *(episode(20 + number) for number in range(10))]
    ledger = measured(rows, {number: {"image.sharp:front": 20.0} for number in range(11)})
    context = build([(before, measured(before))], (rows, ledger), T)
    assert context.robots["arm-1"].source == "earlier days"
    found = judge(rows, ledger, T, context)
    assert any("duplicate: the same content came with arm-1/3.mcap of 2026-09-20" in reason for row in found for reason in row["reasons"])
    assert all(any(reason.startswith("blur") for reason in row["reasons"]) for row in found)
    alone = judge(rows, ledger, T, build([], (rows, ledger), T))
    assert all(row["verdict"] == "kept" for row in alone)  # its own day's habit would have hidden it


def test_the_digest_names_earlier_days_alone() -> None:
    before, rows = [episode(number, day="2026-09-20") for number in range(9)], [episode(20)]
    one = build([(before, measured(before))], (rows, measured(rows)), T)
    assert one.digest == build([(before, measured(before))], ([], {}), T).digest
    assert one.digest != build([(before[1:], measured(before))], (rows, measured(rows)), T).digest
    assert one.digest != build([(before, measured(before, {0: {"state.span": 2.0}}))], (rows, measured(rows)), T).digest


def test_with_few_episodes_nobody_is_compared() -> None:
    rows = [episode(number) for number in range(T.compare_at_least - 1)]
    found = verdicts(rows, measured(rows, {0: {"image.sharp:front": 1.0, "command.r2": 0.0}}))
    assert all(row["verdict"] == "kept" for row in found)
    assert "too few episodes" in found[0]["reasons"][-1]


@pytest.mark.parametrize(("pixels", "moved"), [(0, False), (1, False), (5, True), (9, True)])
def test_a_moved_camera_is_found_on_a_day_of_its_own(pixels: int, moved: bool) -> None:
    rows = [episode(number) for number in range(10)]
    ledger = measured(rows)
    draw = np.random.default_rng(1)
    for number, row in enumerate(rows):
        grey = background(pixels if number == 6 else 0)[None, ..., 0].astype(np.float32) + draw.normal(0, 2, (1, 64, 64))
        ledger["signal"][row["episode_id"]]["vectors"] = {"background:front": shrink(grey, BACKGROUND).ravel().tolist()}
    found = verdicts(rows, ledger)
    assert [row["verdict"] for row in found] == ["kept"] * 6 + ["rejected" if moved else "kept"] + ["kept"] * 3
    assert found[6]["scores"]["view.shift:front"] == pytest.approx(pixels / 64, abs=0.012)


def test_a_view_without_structure_is_no_moved_camera() -> None:
    assert view_match(np.full(1024, 90.0), np.full(1024, 80.0), np.zeros(1024)).shift == 0.0


names = st.sampled_from(["state.nonfinite", "idle.fraction", "time.gap_s:state", "image.frozen:front", "task.distance", "duration_s", "command.r2"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from(["ok", "ok", "ok", "quarantined", "superseded"]), st.dictionaries(names, st.floats(0, 5)), st.booleans()),
        max_size=14,
    ),
    st.randoms(use_true_random=False),
)
def test_properties(drawn: list[tuple[int, str, dict[str, float], bool]], shuffle: random.Random) -> None:
    """Counts add up, every dropped episode has a reason, content and seconds are kept once, and the order of rows does not matter."""
    rows = [episode(number, status=status, reason="why", upload=f"arm-1/{place}.mcap") for place, (number, status, _, _) in enumerate(drawn)]
    ledger: dict[str, Any] = {"signal": {}}
    for (_, _, scores, present_), row in zip(drawn, rows, strict=True):
        if present_:
            ledger["signal"].setdefault(row["episode_id"], {"scores": {**GOOD, **scores}, "vectors": {}, "error": None, "picture": None})
    context = build([], (rows, ledger), T)
    found = judge(rows, ledger, T, context)
    tally = counts(found)
    assert tally["uploaded"] == len(rows) == sum(tally[name] for name in VERDICTS)
    kept = [row["episode_id"] for row in found if row["verdict"] == "kept"]
    assert len(kept) == len(set(kept))
    assert all(row["reasons"] for row in found if row["verdict"] != "kept")
    mixed = list(rows)
    shuffle.shuffle(mixed)
    assert judge(mixed, ledger, T, build([], (mixed, ledger), T)) == found
    assert judge(rows, ledger, T, replace(context)) == found
    assert present(found, {}, context)["verdicts"].value == reasons_table(found)
    assert sum(by_reason(found).values()) >= sum(1 for row in found if row["verdict"] != "kept")


@settings(max_examples=40, deadline=None)
@given(names, st.floats(0, 5), st.floats(0, 5))
def test_a_worse_score_never_helps(name: str, one: float, other: float) -> None:
    if name in ("duration_s", "command.r2"):
        return
    rows = [episode(number) for number in range(9)]
    better, worse = sorted((one, other))
    first = verdicts(rows, measured(rows, {0: {name: better}}))[0]["verdict"]
    second = verdicts(rows, measured(rows, {0: {name: worse}}))[0]["verdict"]
    assert not (first == "rejected" and second == "kept")


def test_thresholds_are_strict_and_say_why() -> None:
    with pytest.raises(ValidationError, match="max_idel"):
        Thresholds.model_validate({**T.model_dump(), "max_idel": 1})
    for line in DOCUMENT.read_text().splitlines():
        if line and not line.startswith("#") and line != "habits:":
            assert re.search(r"  # \S.*; \S", line), f"unit and reason are missing: {line}"
    assert set(yaml.safe_load(DOCUMENT.read_text())) == set(Thresholds.model_fields)
    changed = Thresholds.model_validate({"max_gap_s": 9.0, "habits": {"image.light": {"spreads": 3}}})
    assert changed.max_gap_s == 9.0 and changed.max_lost == T.max_lost and set(changed.habits) == set(T.habits)


def test_the_contact_sheet_is_small_and_shows_both_sides() -> None:
    import io

    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 320, 3), dtype=np.uint8)).save(sink, "JPEG", quality=95)
    rows = [episode(number) for number in range(20)]
    found = verdicts(rows, measured(rows, {number: {"idle.fraction": 0.9} for number in range(0, 20, 2)}))
    pictures = {row["episode_id"]: sink.getvalue() for row in rows}
    sheet = contact_sheet(found, pictures)
    assert sheet is not None and len(sheet) * 4 / 3 < 200_000
    assert Image.open(io.BytesIO(sheet)).height == 12 * 77
    assert "data:image/jpeg;base64," in present(found, pictures, Context())["contact_sheet"].value
    assert "| idle | 10 |" in reasons_table(found)
    assert contact_sheet(found, {}) is None
