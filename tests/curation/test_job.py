"""The measuring job against a real Ray: the same rows as in this process, nothing twice, and content never kills it."""

import hashlib
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs.curation.__main__ import one_episode
from ray_jobs.curation.images import Images
from ray_jobs.curation.job import inventory, missing, run
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.curation.pools import operators
from ray_jobs.curation.signals import Signal
from ray_jobs.curation.stage import Resources
from ray_jobs.curation.stages import measuring
from ray_jobs.driver import Execution
from ray_jobs.episode import clip_key
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import MeasureConfig, MeasureSettings
from ray_jobs.seam.errors import FlywheelError, StoreError
from ray_jobs.seam.layout import episode_prefix
from ray_jobs.seam.store import Store
from tests.curation.stand_ins import Behind, Held, Tally
from tests.curation.synthetic import make, save, table

DAY = "2026-09-21"
SETTINGS = MeasureSettings(task="pick_place", segment_s=2.5)


def execution(store: Store, told: list[dict[str, Any]] | None = None) -> Execution:
    return Execution(store, "attempts/test/a1/x", report=(told if told is not None else []).append)


def config(store: Store, key: str, **changes: Any) -> MeasureConfig:
    return MeasureConfig(**{"store": store.config, "days": (DAY,), "episodes": {DAY: key}, "settings": SETTINGS, **changes})


def facts(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("seconds", "measured_ns")}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    first, second = facts(one), facts(other)
    vectors = first.pop("vectors"), second.pop("vectors")
    return first == second and set(vectors[0]) == set(vectors[1]) and all(np.array_equal(vectors[0][name], vectors[1][name]) for name in vectors[0])


@pytest.fixture
def filled(store: Store) -> tuple[Store, str]:
    episodes = {f"{seed:032x}": make(seed, count=40 + 20 * (seed % 2)) for seed in range(6)}
    for name, made in episodes.items():
        save(store, made, name)
    return store, table(store, DAY, episodes)


def test_every_stage_gives_the_same_rows_in_process_and_in_ray(filled: tuple[Store, str], local_ray: None) -> None:
    store, key = filled
    told: list[dict[str, Any]] = []
    result = run(config(store, key), execution(store, told))[DAY]
    assert result.counts == {"episodes": 6, "measured": 6, "reused": 0, "errors": 0}
    plan = Plan.of(SETTINGS)
    assert set(plan.stages) == set(result.output["stages"]) >= {"signal", "image", "task"}
    for stage, version in result.output["stages"].items():
        rows = ledger.read(store, stage, version, [DAY])
        assert len(rows) == 6
        for episode_id, row in rows.items():
            assert same(row, next(own for own in measure_here(store, episode_id, plan) if own["stage"] == stage)), (stage, episode_id)
    assert told[-1]["done"] == told[-1]["total"] == 6
    assert "bottleneck" in result.shown["stage_times"].value


def test_frames_that_cross_operators_give_the_same_rows(filled: tuple[Store, str], local_ray: None) -> None:
    store, key = filled

    class Apart(Images):
        resources = Resources(num_cpus=0.5, pool=1)

    stages = [Apart() if stage.name == "image" else stage for stage in measuring(SETTINGS)]
    plan = Plan.of(SETTINGS, stages)
    chain = operators(plan.stages, set(plan.stages))
    assert [operator.names[0] for operator in chain] == ["decode", "image"] and len(chain[0].names) == len(stages)
    result = run(config(store, key), execution(store), stages)[DAY]
    for stage, version in result.output["stages"].items():
        rows = ledger.read(store, stage, version, [DAY])
        assert len(rows) == 6
        for episode_id, row in rows.items():
            assert same(row, next(own for own in measure_here(store, episode_id, Plan.of(SETTINGS)) if own["stage"] == stage))


def test_a_model_is_loaded_once_per_worker_and_a_bad_episode_does_not_spoil_its_batch(filled: tuple[Store, str], local_ray: None, tmp_path: Path) -> None:
    store, key = filled
    stages = [*measuring(SETTINGS), Held(str(tmp_path / "ray"))]
    result = run(config(store, key), execution(store), stages)[DAY]
    assert result.counts == {"episodes": 6, "measured": 6, "reused": 0, "errors": 1}
    rows = ledger.read(store, "held", result.output["stages"]["held"], [DAY])
    assert len((tmp_path / "ray").read_text().splitlines()) == 1
    here = Plan.of(SETTINGS, [*measuring(SETTINGS), Held(str(tmp_path / "here"))])
    for episode_id, row in rows.items():
        assert same(row, next(own for own in measure_here(store, episode_id, here) if own["stage"] == "held"))
        assert row["error"] == ("this one I do not like" if episode_id.endswith("3") else None)
    assert len((tmp_path / "here").read_text().splitlines()) == 1
    report = result.shown["run_report"].value
    assert [row["operator"].split("+")[0] for row in report["operators"]] == ["decode", "held"]
    assert report["operators"][0]["sent_bytes"] > 0 and report["operators"][1]["segments"] >= 6
    again = run(config(store, key), execution(store), [*measuring(SETTINGS), Held(str(tmp_path / "again"))])[DAY]
    assert again.counts["measured"] == 0 and not (tmp_path / "again").exists()


def test_decoding_runs_ahead_of_a_busy_stage(store: Store, local_ray: None, tmp_path: Path) -> None:
    """By two tasks' worth, so that a GPU need not wait. How little it waits then: `make bench BENCH=growth`."""
    episodes = {f"{seed:032x}": make(seed % 5, count=20) for seed in range(40)}
    for name, made in episodes.items():
        save(store, made, name)
    tally = str(tmp_path / "tally")
    result = run(config(store, table(store, DAY, episodes)), execution(store), [Tally(tally), Behind(tally, ahead=8, total=40)])[DAY]
    assert result.counts == {"episodes": 40, "measured": 40, "reused": 0, "errors": 0}, result.shown
    decode, behind = result.shown["run_report"].value["operators"]
    assert (decode["operator"], behind["operator"]) == ("decode+tally", "behind")
    assert decode["segments"] == 40 and behind["segments"] >= 40


def test_what_the_ledger_holds_is_not_measured_again(filled: tuple[Store, str], local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key = filled
    first = run(config(store, key), execution(store))[DAY]
    files = {entry.key for entry in store.list("ledger")}
    monkeypatch.setattr("ray_jobs.curation.job.connect", lambda: pytest.fail("Ray was wanted although nothing is missing"))
    again = run(config(store, key), execution(store))[DAY]
    assert again.counts == {"episodes": 6, "measured": 0, "reused": 6, "errors": 0}
    assert again.output_digest == first.output_digest
    assert {entry.key for entry in store.list("ledger")} == files


def test_a_bumped_stage_is_measured_alone_and_without_pictures(filled: tuple[Store, str], local_ray: None) -> None:
    store, key = filled
    first = run(config(store, key), execution(store))[DAY]

    class Bumped(Signal):
        version = "bumped"

    stages = [Bumped(), *measuring(SETTINGS)[1:]]
    for entry in list(store.list("episodes")):
        if entry.key.endswith(".mp4"):
            store.delete(entry.key)
    result = run(config(store, key), execution(store), stages)[DAY]
    assert result.counts == {"episodes": 6, "measured": 6, "reused": 0, "errors": 0}
    changed = {name for name in result.output["stages"] if result.output["stages"][name] != first.output["stages"][name]}
    assert changed == {"signal"}


def test_bad_content_is_a_row_and_never_a_dead_job(filled: tuple[Store, str], local_ray: None) -> None:
    store, key = filled
    broken, short, absent = (f"{seed:032x}" for seed in (0, 1, 2))
    store.put(clip_key(broken, "front"), b"this is no video")
    data = store.get(clip_key(short, "front"))
    store.put(clip_key(short, "front"), data[: len(data) // 3])
    store.delete(f"{episode_prefix(absent)}/episode.json")
    result = run(config(store, key), execution(store))[DAY]
    assert result.counts == {"episodes": 6, "measured": 5, "reused": 0, "errors": 3}
    image = ledger.read(store, "image", result.output["stages"]["image"], [DAY])
    assert image[broken]["error"] and image[short]["error"]
    assert absent not in image  # no fact about the content: the next job tries again
    signal = ledger.read(store, "signal", result.output["stages"]["signal"], [DAY])
    assert signal[broken]["error"] is None  # a broken video does not hide the states
    assert absent in result.shown["errors_by_reason"].value


def test_a_store_that_fails_is_no_fact_about_an_episode(filled: tuple[Store, str], local_ray: None) -> None:
    store, key = filled
    victim = f"{3:032x}"
    assert store.root is not None
    streams = Path(store.root) / episode_prefix(victim) / "streams.parquet"
    streams.unlink()
    streams.symlink_to(streams)  # a read fails, and not because the object is absent
    with pytest.raises(StoreError, match=victim):
        run(config(store, key), execution(store))
    rows = ledger.read(store, "signal", Plan.of(SETTINGS).versions["signal"], [DAY])
    assert victim not in rows


def test_a_month_is_one_job_and_a_new_version_touches_only_what_it_must_over_a_year(store: Store, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = date(2026, 1, 1)
    year = tuple((first + timedelta(days=number)).isoformat() for number in range(365))
    made = make(0, count=20).but(frames=np.zeros((0, 64, 64, 3), np.uint8))
    keys, ids = {}, {}
    for number, day in enumerate(year):
        ids[day] = f"{number:032x}"
        if number < 30:  # the others' content is never looked at: the ledger has it
            save(store, made, ids[day])
        keys[day] = table(store, day, {ids[day]: made})
    done = run(config(store, "", days=year[:30], episodes=keys), execution(store))
    assert all(result.counts == {"episodes": 1, "measured": 1, "reused": 0, "errors": 0} for result in done.values()) and len(done) == 30
    versions = done[year[0]].output["stages"]
    for day in year[30:]:
        for stage, version in versions.items():
            ledger.append(store, stage, version, day, [{**ledger.read(store, stage, version, year[:1])[ids[year[0]]], "episode_id": ids[day]}])

    class Bumped(Signal):
        version = "99"

    stages = [Bumped() if stage.name == "signal" else stage for stage in measuring(SETTINGS)]
    for day in year[30:]:
        row = ledger.read(store, "signal", versions["signal"], [day])[ids[day]]
        if day != year[200]:
            ledger.append(store, "signal", Plan.of(SETTINGS, stages).versions["signal"], day, [row])
    plan = Plan.of(SETTINGS, stages)
    wanted = missing(inventory(store, year, keys, plan), plan)
    assert {(item.episode_id, item.wanted) for item in wanted} == {(ids[day], ("signal",)) for day in [*year[:30], year[200]]}
    monkeypatch.setattr("ray_jobs.curation.job.connect", lambda: pytest.fail("Ray was wanted although nothing is missing"))
    again = run(config(store, "", days=year, episodes=keys), execution(store))
    assert sum(result.counts["reused"] for result in again.values()) == 365


def test_a_day_without_episodes_says_so(store: Store) -> None:
    key = table(store, DAY, {})
    result = run(config(store, key), execution(store))[DAY]
    assert (result.status, result.reason, result.counts["episodes"]) == ("ok", "no data", 0)


def test_a_deadline_ends_the_job_and_keeps_what_is_measured(filled: tuple[Store, str], local_ray: None) -> None:
    store, key = filled
    with pytest.raises(FlywheelError, match="deadline"):
        run(config(store, key, deadline_s=0.0), execution(store))
    held = len(ledger.read(store, "signal", Plan.of(SETTINGS).versions["signal"], [DAY]))
    result = run(config(store, key), execution(store))[DAY]
    assert result.counts == {"episodes": 6, "measured": 6 - held, "reused": held, "errors": 0}


def test_one_episode_by_hand_prints_what_the_ledger_holds(filled: tuple[Store, str], local_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    store, key = filled
    result = run(config(store, key), execution(store))[DAY]
    episode_id = f"{2:032x}"
    assert one_episode(["--episode", episode_id, "--store", str(store.root), "--settings", SETTINGS.model_dump_json()]) == 0
    printed = {row["stage"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    for stage, version in result.output["stages"].items():
        row = ledger.read(store, stage, version, [DAY])[episode_id]
        picture = f"{len(row['picture'])} bytes of JPEG, SHA-256 {hashlib.sha256(row['picture']).hexdigest()}" if row["picture"] else None
        assert facts(printed[stage]) == facts({**row, "picture": picture})
    assert one_episode(["--episode", "f" * 32, "--store", str(store.root)]) == 1
    assert "no such object" in capsys.readouterr().err
    assert one_episode(["--episode", episode_id, "--store", str(store.root), "--stage", "taste"]) == 2
