"""Domain-randomisation levels: the same scene everywhere, drawn from the seed, solvable, and gone again afterwards."""

import numpy as np
import pytest

from fleet.arm import Arm
from fleet.expert import Expert, draw_style
from fleet.levels import LEVELS, draw_variation
from fleet.rollout import rollout

SEEDS = range(20)


def expert_wins(arm: Arm, seed: int, level: str) -> bool:
    draw = np.random.default_rng([seed, 1])
    expert = Expert(draw_style(draw), draw)
    arm.reset(seed, level=level)
    for _ in range(120):
        if expert.done:
            break
        arm.step(expert.act(arm))
    return arm.success


def test_every_level_can_be_solved() -> None:
    arm = Arm()
    assert {level: sum(expert_wins(arm, seed, level) for seed in SEEDS) for level in LEVELS} == dict.fromkeys(LEVELS, len(SEEDS))


def test_block_and_target_lie_at_the_same_place_on_every_level_and_look_different() -> None:
    arm = Arm()
    seen = {level: (arm.reset(3, level=level).frame, arm.block[:2], arm.target.copy()) for level in LEVELS}
    for level in ("mild", "strong"):
        assert np.array_equal(seen[level][1], seen["none"][1]) and np.array_equal(seen[level][2], seen["none"][2])
        assert not np.array_equal(seen[level][0], seen["none"][0])
    far = [np.abs(seen[level][0].astype(float) - seen["none"][0]).mean() for level in ("mild", "strong")]
    assert far[1] > far[0]


def test_a_seed_draws_the_same_whatever_was_before_it() -> None:
    used, new = Arm(), Arm()
    used.reset(8, level="strong")
    for level in ("mild", "none", "strong"):
        assert np.array_equal(used.reset(5, level=level).frame, Arm().reset(5, level=level).frame)
    used.reset(5, level="none")
    assert used.block_half == new.block_half
    assert np.array_equal(used.model.geom_size, new.model.geom_size) and np.array_equal(used.model.geom_aabb, new.model.geom_aabb)


def test_a_rollout_is_recorded_row_by_row() -> None:
    arm, script = Arm(), iter(np.full((60, 4), 0.01))
    found = rollout(lambda frame, state: next(script), 4, record_frames=True, arm=arm, level="mild")
    assert found.frames is not None and found.states is not None and found.actions is not None
    assert len(found.frames) == len(found.states) == len(found.actions) == found.steps
    assert np.array_equal(found.frames[0], Arm().reset(4, level="mild").frame)


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ValueError, match="no such level: odd; there are none, mild, strong"):
        draw_variation("odd", 1, 3)
