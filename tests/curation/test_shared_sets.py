"""Verdicts on real recordings, stated after looking at their frames and joint curves (2026-11-21).

G1: six good grasps of a yellow bottle; the camera repeats a fifth to a third of its frames. In the sixth the head looks elsewhere: with
six episodes that is no ground to reject it. GR00T: five simulated pick-and-place episodes that succeed; in the second the hand is out of
view for 0.9 s while the fingers move. SO-101: a still picture of a gripper, joints constant to the last bit.

Looked at on 2026-11-25: the WidowX bag turns one waist to and fro; its commands come at 10 Hz in bursts with a second between them, its joint states
at 100 Hz with holes of up to 64 ms: ordinary. robosuite: three lifts and one wipe by a person, with stands of 1.2 to 2 s, of a task without pictures:
ordinary. The sensor set holds 15 synthetic samples of 1.5 s, pictures without any repeat: nothing to reject. Damaged bags: two that hold a turtle's
pose and a person's keys are the same content twice; one has stamps 8.8 s apart between its topics; all others hold no joints and no pictures.
"""

from pathlib import Path
from typing import Any

import pytest

from orchestration.curation.context import build
from orchestration.curation.judge import judge
from orchestration.curation.thresholds import Thresholds
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.ingest.index import describe, gather
from ray_jobs.ingest.job import read_upload
from ray_jobs.seam.configs import IngestSettings, MeasureSettings
from ray_jobs.seam.store import Store, StoreConfig

pytestmark = pytest.mark.shared_data


def judged(shared_data: Path, store: Store, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """EPISODES rows in the set's own order, and their verdicts likewise."""
    raw = Store(StoreConfig.local(shared_data / name))
    uploads = [describe(raw, upload, IngestSettings()) for upload in gather(list(raw.list())).values()]
    rows = [row for upload in uploads if upload["status"] == "ok" for row in read_upload(store, raw, upload, IngestSettings())]
    plan = Plan.of(MeasureSettings())
    ledger: dict[str, dict[str, Any]] = {stage: {} for stage in plan.versions}
    for row in (row for row in rows if row["status"] == "ok"):
        for found in measure_here(store, row["episode_id"], plan):
            ledger[found["stage"]][row["episode_id"]] = found
    thresholds = Thresholds.load()
    found = {(row["episode_id"], row["upload"]): row for row in judge(rows, ledger, thresholds, build([], (rows, ledger), thresholds))}
    return rows, [found[row["episode_id"], row["upload"]] for row in rows]


def test_g1_is_kept_and_its_slow_camera_is_noted(shared_data: Path, store: Store) -> None:
    _, found = judged(shared_data, store, "lerobot21-g1-bottle")
    assert [row["verdict"] for row in found] == ["kept"] * 6
    repeated = [row["scores"]["image.repeated:cam_high"] for row in found]
    assert repeated == pytest.approx([0.271, 0.364, 0.178, 0.335, 0.262, 0.243], abs=0.02)
    assert all(any("frames repeat the one before" in reason for reason in row["reasons"]) for row in found)


def test_gr00t_is_kept_and_its_quirks_are_noted(shared_data: Path, store: Store) -> None:
    rows, found = judged(shared_data, store, "lerobot20-gr00t-robot-sim")
    assert len(rows) == 5
    assert [row["verdict"] for row in found] == ["kept"] * 5
    for row in found:
        text = " ".join(row["reasons"])
        assert "declared camera without files" in text and "odd totals" in text
    assert 0.5 < found[1]["scores"]["image.frozen_s:ego_view"] < 1.2


def test_so101_is_rejected_as_frozen(shared_data: Path, store: Store) -> None:
    _, found = judged(shared_data, store, "lerobot30-so101-frozen-sim")
    assert [row["verdict"] for row in found] == ["rejected"] * 6
    for row in found:
        assert [reason.split(":")[0] for reason in row["reasons"]] == ["still_joints", "dead_camera"]


def test_a_real_bag_of_a_robot_never_seen_is_kept(shared_data: Path, store: Store) -> None:
    _, found = judged(shared_data, store, "rosbag1-wx200-waist-diagnostics")
    assert [row["verdict"] for row in found] == ["kept"]
    assert found[0]["duration_s"] == pytest.approx(106.0, abs=0.1)
    assert found[0]["scores"]["time.gap_s:state"] == pytest.approx(0.064, abs=0.005) and found[0]["scores"]["time.gap_s:action"] > 0.9


def test_people_who_pause_are_kept(shared_data: Path, store: Store) -> None:
    _, found = judged(shared_data, store, "hdf5-robosuite-human-demos")
    assert sorted((row["robot"], row["verdict"]) for row in found) == [("lift", "kept")] * 3 + [("wipe", "kept")]
    assert max(row["scores"]["idle.longest_s"] for row in found) > 1.0


def test_synthetic_sensors_are_no_defect(shared_data: Path, store: Store) -> None:
    _, found = judged(shared_data, store, "mcap-ros2-all-sensor-msgs")
    assert [row["verdict"] for row in found] == ["kept"]


def test_damaged_bags_have_a_reason_each(shared_data: Path, store: Store) -> None:
    _, found = judged(shared_data, store, "damaged-bags")
    told = {row["upload"].split("/")[-1]: (row["verdict"], row["reasons"][0].split(":")[0]) for row in found}
    assert all(row["reasons"] for row in found)
    assert sorted(name for name, (verdict, _) in told.items() if verdict == "kept") == ["example-bz2.bag"]
    assert told["example-lz4.bag"] == ("rejected", "duplicate")
    assert told["test_bag_mcap"] == ("rejected", "clock_skew")
    rest = {name: pair for name, pair in told.items() if name not in ("example-bz2.bag", "example-lz4.bag", "test_bag_mcap")}
    assert set(rest.values()) == {("quarantined", "unreadable")}
