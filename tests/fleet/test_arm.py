import numpy as np
import pytest

from fleet.arm import APART_M, HORIZON, REACH, SPAWN, Arm, forward_kinematics, inverse_kinematics
from fleet.expert import demonstrate
from fleet.render import View
from fleet.rollout import rollout


@pytest.fixture(scope="module")
def arm() -> Arm:
    return Arm()


def test_kinematics_are_each_others_inverse() -> None:
    low, high = REACH
    for point in np.random.default_rng(0).uniform(low, [0.40, *high[1:]], (300, 3)):
        joints = inverse_kinematics(point)
        np.testing.assert_allclose(forward_kinematics(joints), point, atol=1e-9)
        assert joints[1:].sum() == pytest.approx(-np.pi / 2), "the tool points down"


def test_a_seed_repeats_exactly_even_after_another_episode(arm: Arm) -> None:
    first = demonstrate(arm, 11)
    demonstrate(arm, 12)
    again, fresh = demonstrate(arm, 11), demonstrate(Arm(), 11)
    for other in (again, fresh):
        assert np.array_equal(first.frames, other.frames)
        assert np.array_equal(first.states, other.states)
        assert np.array_equal(first.actions, other.actions)


def test_the_scene_of_a_seed_is_written_down(arm: Arm) -> None:
    """A change here changes every recorded scene and every evaluation seed: say so when you change it."""
    arm.reset(1_000_000)
    np.testing.assert_allclose([*arm.block[:2], *arm.target], [0.3033881, -0.093269997, 0.320592186, 0.060045244], atol=1e-8)


def test_scenes_differ_and_lie_within_reach(arm: Arm) -> None:
    scenes = []
    for seed in range(50):
        arm.reset(seed)
        scenes.append([*arm.block[:2], *arm.target])
        assert np.linalg.norm(arm.block[:2] - arm.target) >= APART_M
    places = np.array(scenes).reshape(-1, 2)
    assert np.all(places >= SPAWN[0]) and np.all(places <= SPAWN[1])
    assert places.std(axis=0).min() > 0.03


def test_state_frame_and_command_agree(arm: Arm) -> None:
    observation = arm.reset(3)
    assert observation.state.dtype == np.float32 and observation.state.shape == (5,)
    assert observation.frame.dtype == np.uint8 and observation.frame.shape == (96, 96, 3)
    before = arm.point
    for _ in range(3):
        observation = arm.step(np.array([0.02, -0.01, -0.01, 1.0], np.float32))
    np.testing.assert_allclose(arm.point - before, [0.06, -0.03, -0.03], atol=0.006)
    assert observation.state[4] > 0.9, "closed on nothing"


@pytest.mark.parametrize("action", [[0, 0, np.nan, 0], [0, 0, 0], [[0, 0, 0, 0]]])
def test_an_action_that_is_no_action_is_refused(arm: Arm, action: list[float]) -> None:
    arm.reset(0)
    with pytest.raises(ValueError, match="four finite numbers"):
        arm.step(np.array(action))


def test_block_and_target_are_seen_where_they_are(arm: Arm) -> None:
    """By colour, the red and the green blob move in the image as block and target do on the table."""
    seen, true = [], []
    for seed in range(30):
        frame = arm.reset(seed).frame.astype(int)
        blobs = []
        for channel, others in ((0, (1, 2)), (1, (0, 2))):
            rows, columns = np.nonzero(frame[..., channel] - frame[..., others].max(axis=-1) > 40)
            assert len(rows) > 15
            blobs += [rows.mean(), columns.mean()]
        seen.append(blobs)
        true.append([*arm.block[:2], *arm.target])
    correlation = np.corrcoef(np.array(seen).T, np.array(true).T)[:4, 4:]
    assert np.all(np.diag(correlation) > 0.95), "row grows with x, column with y: the camera looks at the robot from the front"


def test_a_bumped_camera_moves_the_picture_and_nothing_else(arm: Arm) -> None:
    straight = arm.reset(5)
    bumped = arm.reset(5, View(yaw=0.1))
    assert np.array_equal(straight.state, bumped.state)
    assert np.mean(np.any(straight.frame != bumped.frame, axis=-1)) > 0.05


def test_the_culled_frame_is_the_frame_of_all_rays(arm: Arm) -> None:
    demonstrate(arm, 7, horizon=15)
    renderer = arm.renderer
    culled = renderer.frame(arm.data)
    radius = renderer.model.geom_rbound.copy()
    try:
        renderer.model.geom_rbound[renderer.moving] = 10.0  # no ray is left out
        assert np.array_equal(culled, renderer.frame(arm.data))
    finally:
        renderer.model.geom_rbound[:] = radius


def test_the_expert_succeeds(arm: Arm) -> None:
    demonstrations = [demonstrate(arm, seed) for seed in range(60)]
    assert all(one.success for one in demonstrations)
    lengths = [len(one.actions) for one in demonstrations]
    assert max(lengths) < HORIZON and np.std(lengths) > 2, "they vary, and fit into a rollout"


def test_a_rollout_ends_in_success_or_at_the_horizon(arm: Arm) -> None:
    recorded = demonstrate(arm, 21)
    script = iter(recorded.actions)
    replayed = rollout(lambda frame, state: next(script), 21, record_frames=True, arm=arm)
    assert replayed.success and replayed.final_distance_m < 0.03 and replayed.steps <= len(recorded.actions)
    assert replayed.frames is not None and np.array_equal(replayed.frames, recorded.frames[: replayed.steps])
    lazy = rollout(lambda frame, state: np.zeros(4), 21, arm=arm)
    assert not lazy.success and lazy.steps == HORIZON and lazy.frames is None
    broken = rollout(lambda frame, state: np.full(4, np.nan), 21, arm=arm)
    assert not broken.success and broken.steps == 0
