"""Copies: which are found, which are not, and what a look into the history costs."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.record import record_day
from orchestration.curation import history
from orchestration.curation.context import Context, build
from orchestration.curation.decide import context_digest, decide, enter_history
from orchestration.curation.duplicates import judged, near_of, prints_of, within_day
from orchestration.curation.history import Print, candidates, remember
from orchestration.curation.judge import judge
from orchestration.curation.likeness import Likeness, Near, Track, compare
from orchestration.curation.thresholds import Thresholds
from ray_jobs.curation.embedding import Layout
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.ingest.index import describe, gather
from ray_jobs.ingest.job import read_upload
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import IngestSettings, MeasureSettings
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import EPISODES, to_bytes
from tests.curation.copies import CHANGES, Change, copy_episode

T = Thresholds.load()
NO_LENGTH = T.model_copy(update={"min_duration_s": 0.0})  # where the embedding is all that was measured
PLAN = Plan.of(MeasureSettings(), [Layout()])
STAGES = {"embedding": PLAN.versions["embedding"]}
DAY, NEXT = "2026-01-05", "2026-01-06"
START_NS = 1_767_600_000_000_000_000
COPY = Likeness(0.01, 0.05, 0.03, 1.0)


def made_print(number: int, day: str, keys: Any) -> Print:
    return Print(f"{number:032x}", day, f"{number}.mcap", np.unique(np.asarray(keys, np.uint64)), None)


def day_of(number: int) -> str:
    return (date(2026, 1, 1) + timedelta(days=number)).isoformat()


# The index


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 19))
def test_the_index_finds_what_a_search_through_everything_finds(tmp_path_factory: pytest.TempPathFactory, seed: int, days: int) -> None:
    draw = np.random.default_rng(seed)
    store = Store(StoreConfig.local(tmp_path_factory.mktemp("index")))
    told = [[made_print(10 * day + n, day_of(day), draw.integers(0, 60, 6) << 55) for n in range(draw.integers(1, 4))] for day in range(days)]
    for prints in told:
        remember(store, "v", prints)
    cut = int(draw.integers(0, days + 1))
    asked = [made_print(10_000 + n, day_of(cut), draw.integers(0, 60, 6) << 55) for n in range(3)]
    found = candidates(store, "v", asked, day_of(cut))
    owners = Counter(int(key) for prints in told[:cut] for other in prints for key in other.keys)
    for item in asked:
        shared = {other.episode_id: np.intersect1d(item.keys, other.keys).tolist() for prints in told[:cut] for other in prints}
        weight = {name: sum(1 / owners[key] for key in keys) for name, keys in shared.items() if len(keys) >= 2}
        expected = sorted(weight.values(), reverse=True)[: history.CANDIDATES]
        assert [weight[other.episode_id] for other in found[item.episode_id]] == pytest.approx(expected)
        assert all(other.day < day_of(cut) for other in found[item.episode_id])
    levels = [entry.key for entry in store.list("duplicates/v/keys")]
    assert len(levels) <= history.FANOUT - 1 + days // history.FANOUT


def test_the_same_day_twice_is_there_once(store: Store) -> None:
    prints = [made_print(1, DAY, [5, 6, 7]), made_print(2, DAY, [7, 8, 9])]
    for _ in range(20):
        remember(store, "v", prints)
    found = candidates(store, "v", [made_print(3, NEXT, [5, 6, 7, 8])], NEXT)
    assert [item.episode_id for item in found[f"{3:032x}"]] == [prints[0].episode_id, prints[1].episode_id]


def test_the_same_content_is_found_however_long_ago(store: Store) -> None:
    row = {"episode_id": "a" * 32, "day": day_of(0), "upload": "x", "status": "ok"}
    remember(store, "v", prints_of([row], {}))
    for day in range(1, 40):
        remember(store, "v", prints_of([{**row, "episode_id": f"{day:032x}", "day": day_of(day)}], {}))
    again = prints_of([{**row, "day": day_of(300)}], {})
    (found,) = candidates(store, "v", again, day_of(300))["a" * 32]
    assert (found.episode_id, found.day, found.upload) == ("a" * 32, day_of(0), "x")


class Counting(Store):
    """Counts what is read."""

    read = 0

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.read += length
        return super().get_range(key, start, length)


def test_a_lookup_reads_little_more_of_a_longer_history(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    costs = []
    for days in (8, 128):
        store = Counting(StoreConfig.local(tmp_path / str(days)))
        for day in range(days):
            remember(store, "v", [made_print(1000 * day + n, day_of(day), draw.integers(0, 2**64, 24, dtype=np.uint64)) for n in range(60)])
        size = sum(entry.size for entry in store.list("duplicates/v/keys"))
        store.read = 0
        candidates(store, "v", [made_print(10**6, day_of(days), draw.integers(0, 2**64, 24, dtype=np.uint64))], day_of(days))
        costs.append((size, store.read))
    grown = [late / early for early, late in zip(*costs, strict=True)]
    assert grown[0] > 15 and grown[1] < 4


def test_a_landmark_of_nearly_everybody_costs_nothing(tmp_path: Path) -> None:
    store = Counting(StoreConfig.local(tmp_path))
    remember(store, "v", [made_print(n, DAY, [7 << 40, 8 << 40]) for n in range(2000)])
    assert candidates(store, "v", [made_print(10**6, NEXT, [7 << 40, 8 << 40])], NEXT) == {f"{10**6:032x}": []}
    assert store.read < 1000


class Merging(Store):
    """Merges between a listing and the reading of what it named."""

    armed = False

    def list(self, prefix: str = "") -> Any:
        found = list(super().list(prefix))
        if self.armed and prefix.endswith("keys/"):
            self.armed = False
            remember(self, "v", [made_print(99, day_of(7), [1, 2])])
        return iter(found)


def test_a_merge_while_reading_hides_nothing(tmp_path: Path) -> None:
    store = Merging(StoreConfig.local(tmp_path))
    for day in range(7):
        remember(store, "v", [made_print(day, day_of(day), [5, 6])])
    store.armed = True
    found = candidates(store, "v", [made_print(50, day_of(30), [5, 6])], day_of(30))
    assert len(found[f"{50:032x}"]) == 7 and not store.armed


# Likeness


@given(st.floats(0.0, 0.25), st.floats(0.0, 0.25), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_cut_is_found_by_the_map_of_time(start: float, end: float, first: bool) -> None:
    along = np.linspace(0, 1, 400)
    path = np.stack([np.sin(7 * along), np.cos(5 * along) * along], axis=1)

    def track(low: float, high: float) -> Track:
        at = low + (np.arange(80) + 0.5) / 80 * (high - low)
        return Track(np.arange(2), np.stack([np.interp(at, along, column) for column in path.T], axis=1), None)

    one, other = track(0, 1), track(start, 1 - end)
    found = compare(one, other) if first else compare(other, one)
    assert found.path is not None and found.path < 0.01 and found.picture is None
    assert found.shared > 0.99


def test_other_axes_are_not_compared() -> None:
    path = np.random.default_rng(0).normal(size=(40, 3))
    one = Track(np.array([0, 1, 2]), path, None)
    assert compare(one, replace(one, axes=np.array([3, 4, 5]))).path is None
    assert compare(one, one).path == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("likeness", "told"),
    [
        (COPY, "copy"),
        (replace(COPY, path=0.2), "the same pictures"),
        (replace(COPY, picture=0.8), "the same motion of the joints"),
        (replace(COPY, scene=0.5), "the same motion of the joints"),
        (replace(COPY, picture=None, scene=None), "the same motion of the joints"),
        (replace(COPY, path=None), "the same pictures"),
        (replace(COPY, path=0.2, scene=0.5), None),
        (Likeness(None, None, None, 0.0), None),
    ],
)
def test_only_joints_and_picture_together_make_a_copy(likeness: Likeness, told: str | None) -> None:
    assert judged(likeness, T) == told


# Verdicts


def episode(number: int, **changes: Any) -> dict[str, Any]:
    start = START_NS + number * 60_000_000_000
    base = {"episode_id": f"{number:032x}", "day": DAY, "day_source": "recording", "robot": "arm-1", "task": "t", "upload": f"{number}.mcap", "status": "ok"}
    return {**base, "reason": None, "start_ns": start, "end_ns": start + 5_000_000_000, "notes": [], **changes}


def near(number: int, day: str = DAY, likeness: Likeness = COPY) -> Near:
    return Near(f"{number:032x}", day, f"{number}.mcap", likeness)


def judged_with(rows: list[dict[str, Any]], groups: dict[int, tuple[Near, ...]], bad: int | None = None) -> list[dict[str, Any]]:
    scores = {n: {"duration_s": 0.1 if n == bad else 5.0} for n in range(len(rows))}
    table = {row["episode_id"]: {"scores": scores[n], "vectors": {}, "error": None} for n, row in enumerate(rows)}
    return judge(rows, {"signal": table}, T, Context(near={f"{name:032x}": group for name, group in groups.items()}))


def test_of_two_copies_of_a_day_the_earlier_is_kept() -> None:
    found = judged_with([episode(1), episode(0), episode(2)], {0: (near(1),), 1: (near(0),)})
    assert [row["verdict"] for row in found] == ["kept", "rejected", "kept"]
    assert found[1]["reasons"] == [f"copy: of 0.mcap of {DAY} ({0:08x}): joints 1.0% of their range apart, 5% of the picture's change differs"]


def test_a_copy_of_a_rejected_episode_of_the_day_stays() -> None:
    rows = [episode(0), episode(1)]
    found = judged_with(rows, {1: (near(0),), 0: (near(1),)}, bad=0)
    assert [row["verdict"] for row in found] == ["rejected", "kept"]


def test_a_copy_of_an_earlier_day_is_rejected_and_half_a_likeness_is_a_note() -> None:
    earlier = near(9, "2025-12-01")
    found = judged_with([episode(0), episode(1)], {0: (earlier,), 1: (replace(earlier, likeness=replace(COPY, picture=0.9)),)})
    assert [row["verdict"] for row in found] == ["rejected", "kept"]
    assert "note: the same motion of the joints as 9.mcap of 2025-12-01" in found[1]["reasons"][-1]


def test_the_same_content_of_long_ago_is_a_duplicate() -> None:
    (found,) = judged_with([episode(0)], {0: (near(0, "2025-01-01", Likeness(None, None, None, 0.0)),)})
    assert found["reasons"] == ["duplicate: the same content came with 0.mcap of 2025-01-01"]


def test_within_a_day_a_common_landmark_tells_nothing() -> None:
    prints = [made_print(n, DAY, [1, 2, 100 + n // 2, 200 + n // 2]) for n in range(80)]
    found = within_day(prints)
    assert all([other.episode_id for other in found[prints[n].episode_id]] == [prints[n ^ 1].episode_id] for n in range(80))


# Whole: recorded, ingested, measured, judged


def ingested(store: Store, raw: Path) -> list[dict[str, Any]]:
    source = Store(StoreConfig.local(raw))
    uploads = [describe(source, upload, IngestSettings()) for upload in gather(list(source.list())).values()]
    rows = [row for upload in uploads for row in read_upload(store, source, upload, IngestSettings())]
    return [row for row in rows if row["status"] == "ok"]


def published(store: Store, day: str, rows: list[dict[str, Any]]) -> str:
    """The day's table and its measurements, as the steps leave them."""
    key = f"tables/{day}.parquet"
    store.put(key, to_bytes(rows, EPISODES))
    ledger.append(store, "embedding", STAGES["embedding"], day, [measure_here(store, row["episode_id"], PLAN)[0] for row in rows])
    for asset, output in (("episodes", {"episodes": key}), ("measurements", {"stages": STAGES})):
        told = Pointer(asset=asset, day=day, generation="1", run_id="r", output=output)
        store.put(pointer(asset, day, "1"), told.model_dump_json().encode())
    return key


def copied(store: Store, source: dict[str, Any], name: str, change: Change, number: int) -> dict[str, Any]:
    target = f"{source['episode_id'][:24]}{number:08x}"
    copy_episode(store, source["episode_id"], target, change)
    return {**source, "episode_id": target, "day": NEXT, "robot": "another", "upload": name, "start_ns": source["start_ns"] + 86_400_000_000_000}


def kinds(row: dict[str, Any]) -> set[str]:
    return {reason.split(":", 1)[0] for reason in row["reasons"]}


def test_copies_of_the_fleets_episodes_are_rejected_and_its_other_demonstrations_are_not(store: Store, tmp_path: Path) -> None:
    record_day(tmp_path / "raw", tmp_path / "truth", DAY, ("arm-1", "arm-2"), 10, seed=5, damaged=0.0)
    rows = [{**row, "day": DAY} for row in ingested(store, tmp_path / "raw")]
    assert len(rows) == 20
    key = published(store, DAY, rows)
    first = decide(store, DAY, key, STAGES, NO_LENGTH)
    assert not any(kinds(row) & {"copy", "duplicate"} for row in first.rows)
    enter_history(store, DAY, key, STAGES)

    copies = [copied(store, rows[7 * n % 20], name, change, n) for n, (name, change) in enumerate(CHANGES.items())]
    record_day(tmp_path / "raw-2", tmp_path / "truth-2", NEXT, ("arm-1",), 6, seed=6, damaged=0.0)
    fresh = [{**row, "day": NEXT} for row in ingested(store, tmp_path / "raw-2")]
    key = published(store, NEXT, [*copies, *fresh])
    found = {row["upload"]: row for row in decide(store, NEXT, key, STAGES, NO_LENGTH).rows}
    assert {name: (found[name]["verdict"], kinds(found[name])) for name in CHANGES} == dict.fromkeys(CHANGES, ("rejected", {"copy"}))
    assert all(rows[7 * n % 20]["upload"] in found[name]["reasons"][0] for n, name in enumerate(CHANGES))
    assert not any(kinds(found[row["upload"]]) & {"copy", "duplicate"} for row in fresh)


def test_the_contexts_digest_tells_of_a_late_original(store: Store, tmp_path: Path) -> None:
    record_day(tmp_path / "raw", tmp_path / "truth", DAY, ("arm-1",), 3, seed=5, damaged=0.0)
    late, *rows = [{**row, "day": DAY} for row in ingested(store, tmp_path / "raw")]
    enter_history(store, DAY, published(store, DAY, rows), STAGES)
    copy = copied(store, late, "copy", Change(crf=30), 0)
    key = published(store, NEXT, [copy])
    before = decide(store, NEXT, key, STAGES, NO_LENGTH)
    assert before.rows[0]["verdict"] == "kept" and before.context_digest == context_digest(store, NEXT, NO_LENGTH)

    enter_history(store, DAY, published(store, DAY, [late, *rows]), STAGES)
    after = decide(store, NEXT, key, STAGES, NO_LENGTH)
    assert after.rows[0]["verdict"] == "rejected"
    assert before.context_digest != after.context_digest == context_digest(store, NEXT, NO_LENGTH)

    published(store, DAY, rows)  # the original was replaced: what the index still names counts no more
    assert decide(store, NEXT, key, STAGES, NO_LENGTH).rows[0]["verdict"] == "kept"


@pytest.mark.shared_data
def test_copies_of_a_real_recording_are_found(store: Store, shared_data: Path) -> None:
    """G1, episode 0 (26 axes, a slow camera); two other grasps of the same bottle are no copies of it."""
    rows = ingested(store, shared_data / "lerobot21-g1-bottle")[:3]
    names = ("encoded again", "cut at both ends", "faster and sampled anew")
    copies = [copied(store, rows[0], name, CHANGES[name], number) for number, name in enumerate(names)]
    everyone = [{**row, "day": DAY} for row in (*rows, *copies)]
    prints = prints_of(everyone, {row["episode_id"]: measure_here(store, row["episode_id"], PLAN)[0] for row in everyone})
    found = near_of(store, STAGES["embedding"], DAY, prints, T)
    same = {row["episode_id"] for row in (rows[0], *copies)}
    assert set(found) == same
    for copy in copies:
        (original,) = (other for other in found[copy["episode_id"]] if other.episode_id == rows[0]["episode_id"])
        assert judged(original.likeness, T) == "copy" and {other.episode_id for other in found[copy["episode_id"]]} <= same


def test_a_context_without_copies_is_as_before() -> None:
    assert build([], ([], {}), T).near == {}
