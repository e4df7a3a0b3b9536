"""Robots unlike the demo's are kept, alone and in company of their own; damage that needs no knowledge of the robot is found on them all the same."""

import numpy as np
import pytest

from benchmarks.strangers import Ledger, Taken, judged, measured, of_shape, planted
from fleet.defects import Severity
from fleet.shapes import SHAPES, Shape, record

QUICK = ("one-joint lift", "so101 in degrees", "franka, velocity", "widowx, end-effector steps", "sim arm without noise", "fast delta", "blind, 100 Hz")
# Told from one episode, whatever the robot is; a camera and commands for each joint are needed for some.
OBVIOUS = ("nan_states", "clock_step", "dropped_frames", "frozen_camera", "black_frames", "corrupt_blocks", "flicker", "stale_states", "state_lag")


def shape(name: str) -> Shape:
    return next(each for each in SHAPES if each.name == name)


@pytest.mark.parametrize("name", QUICK)
def test_clean_recordings_of_strangers_are_kept(name: str) -> None:
    group = [(taken, measured(taken)) for taken in of_shape(shape(name), count=5, first=50)]
    together = [verdict["reasons"] for verdict in judged(group) if verdict["verdict"] != "kept"]
    alone = [verdict["reasons"] for one in group for verdict in judged([one]) if verdict["verdict"] != "kept"]
    assert not alone and len(together) <= 1, (alone, together)


@pytest.mark.parametrize("kind", OBVIOUS)
def test_strong_damage_is_found_on_a_stranger_from_one_episode(kind: str) -> None:
    bad = planted(Taken("stranger", 0, record(shape("so101-like"), 60)), kind, "strong", seed=1)
    assert bad is not None
    assert judged([(bad, measured(bad))])[0]["verdict"] == "rejected"


@pytest.fixture(scope="module")
def company() -> list[tuple[Taken, Ledger]]:
    return [(taken, measured(taken)) for taken in of_shape(shape("so101-like"), count=8, first=70)]


@pytest.mark.parametrize("kind", ["encoder_offset", "axis_flip", "swapped_axes", "swapped_cameras", "turned_camera", "colours", "cut_short", "wrong_unit"])
def test_what_only_the_fleet_knows_is_found_in_company(kind: str, company: list[tuple[Taken, Ledger]]) -> None:
    severity: Severity = "mild" if kind == "swapped_axes" else "strong"  # strong swaps the state's axes as well, and nothing contradicts
    bad = planted(company[3][0], kind, severity, seed=2)
    assert bad is not None
    found = judged([*company[:3], (bad, measured(bad)), *company[4:]])
    assert found[3]["verdict"] == "rejected"
    assert sum(verdict["verdict"] == "kept" for verdict in found) >= 6


def test_the_same_seed_gives_the_same_stranger() -> None:
    one, other = record(shape("so101-like"), 5), record(shape("so101-like"), 5)
    assert np.array_equal(one.states, other.states) and np.array_equal(one.frames, other.frames)
    assert not np.array_equal(one.states[:50], record(shape("so101-like"), 6).states[:50])
