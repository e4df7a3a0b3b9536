"""Each defect changes what it says, and nothing else."""

import numpy as np
import pytest

from fleet.arm import BLOCK_HALF, SUCCESS_M, Arm
from fleet.defects import DEFECTS, PLANTED, Severity
from fleet.expert import Demonstration, demonstrate, draw_style

SEVERITIES: tuple[Severity, ...] = ("mild", "strong")


@pytest.fixture(scope="module")
def arm() -> Arm:
    return Arm()


@pytest.fixture(scope="module")
def clean(arm: Arm) -> list[Demonstration]:
    return [demonstrate(arm, seed, draw_style(np.random.default_rng(seed))) for seed in range(4)]


def corrupted(name: str, severity: Severity, demonstration: Demonstration, seed: int = 0) -> Demonstration:
    defect = DEFECTS[name]
    assert defect.corrupt is not None
    return defect.corrupt(demonstration, defect.amount(severity), np.random.default_rng(seed))


def planned(name: str, severity: Severity, arm: Arm, seed: int) -> Demonstration:
    defect, draw = DEFECTS[name], np.random.default_rng(seed)
    assert defect.plan is not None
    return demonstrate(arm, seed, defect.plan(draw_style(draw), defect.amount(severity), draw))


def differing(one: Demonstration, other: Demonstration) -> set[str]:
    return {name for name in ("frames", "states", "actions", "stamps_ns") if not np.array_equal(getattr(one, name), getattr(other, name))}


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("name", "touched"),
    [
        ("action_lag", "actions"),
        ("axis_flip", "actions"),
        ("action_noise", "actions"),
        ("frozen_camera", "frames"),
        ("camera_lag", "frames"),
        ("nan_states", "states"),
        ("encoder_offset", "states"),
        ("clock_step", "stamps_ns"),
    ],
)
def test_a_corruption_touches_one_stream_and_leaves_the_original_alone(name: str, touched: str, severity: Severity, clean: list[Demonstration]) -> None:
    for seed, demonstration in enumerate(clean):
        before = {key: getattr(demonstration, key).copy() for key in ("frames", "states", "actions", "stamps_ns")}
        assert differing(demonstration, corrupted(name, severity, demonstration, seed)) == {touched}
        assert all(np.array_equal(getattr(demonstration, key), value) for key, value in before.items())


@pytest.mark.parametrize(("name", "stream"), [("action_lag", "actions"), ("camera_lag", "frames")])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_lag_shifts_by_its_steps(name: str, stream: str, severity: Severity, clean: list[Demonstration]) -> None:
    steps = int(DEFECTS[name].amount(severity))
    late, true = getattr(corrupted(name, severity, clean[0]), stream), getattr(clean[0], stream)
    assert np.array_equal(late[steps:], true[:-steps]) and np.array_equal(late[:steps], np.repeat(true[:1], steps, axis=0))


def test_a_flip_mirrors_one_axis_or_two(clean: list[Demonstration]) -> None:
    assert np.array_equal(corrupted("axis_flip", "mild", clean[0]).actions, clean[0].actions * np.float32([1, -1, 1, 1]))
    assert np.array_equal(corrupted("axis_flip", "strong", clean[0]).actions, clean[0].actions * np.float32([-1, -1, 1, 1]))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_frozen_camera_repeats_one_frame_for_its_share(severity: Severity, clean: list[Demonstration]) -> None:
    frames = corrupted("frozen_camera", severity, clean[0]).frames
    still = ~np.any(frames[1:] != frames[:-1], axis=(1, 2, 3))
    assert still.sum() >= round(len(frames) * DEFECTS["frozen_camera"].amount(severity)) - 1
    assert np.any(clean[0].frames[1:] != clean[0].frames[:-1], axis=(1, 2, 3)).mean() > 0.8, "the true picture moves"


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_stated_size(severity: Severity, clean: list[Demonstration]) -> None:
    added = np.concatenate([corrupted("action_noise", severity, one, seed).actions - one.actions for seed, one in enumerate(clean)])
    assert added[:, :3].std() == pytest.approx(DEFECTS["action_noise"].amount(severity), rel=0.15)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_missing_states_are_nan_for_one_joint_or_for_all(severity: Severity, clean: list[Demonstration]) -> None:
    lost = np.isnan(corrupted("nan_states", severity, clean[0]).states)
    assert 2 <= lost.any(axis=1).sum() < len(lost) / 2
    assert set(lost.sum(axis=1)) == ({0, 1} if severity == "mild" else {0, 5})


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_clock_steps_once_and_inside_the_episode(severity: Severity, clean: list[Demonstration]) -> None:
    for seed, demonstration in enumerate(clean):
        stamps = corrupted("clock_step", severity, demonstration, seed).stamps_ns
        odd = np.diff(stamps)[np.diff(stamps) != 100_000_000]
        assert len(odd) == 1 and odd[0] == pytest.approx(1e8 + DEFECTS["clock_step"].amount(severity) * 1e9)
        assert stamps.min() >= 0, "it does not reach into the episode before"


def test_an_encoder_offset_moves_one_joint(clean: list[Demonstration]) -> None:
    moved = corrupted("encoder_offset", "strong", clean[0]).states - clean[0].states
    assert np.count_nonzero(np.abs(moved).max(axis=0) > 0.01) == 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_failed_demonstration_fails(severity: Severity, arm: Arm) -> None:
    for seed in range(6):
        failed = planned("failed_demonstration", severity, arm, seed)
        assert not failed.success and failed.distance_m > SUCCESS_M
        moved = np.linalg.norm(arm.block[:2] - _block_at_start(arm, seed))
        if severity == "strong":
            assert moved < 0.06, "it carried nothing to the target"
        else:
            assert failed.distance_m < 0.1 and moved > BLOCK_HALF


def _block_at_start(arm: Arm, seed: int) -> np.ndarray:
    other = Arm()
    other.reset(seed)
    return other.block[:2]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_an_idle_demonstration_succeeds_late(severity: Severity, arm: Arm, clean: list[Demonstration]) -> None:
    for seed, normal in enumerate(clean):
        idle = planned("idle", severity, arm, seed)
        still = np.linalg.norm(idle.actions[:, :3], axis=1) < 0.001
        assert idle.success and len(idle.actions) - len(normal.actions) > DEFECTS["idle"].amount(severity) - 6
        assert still.sum() >= DEFECTS["idle"].amount(severity)


def test_a_bumped_camera_shifts_the_picture_more_when_strong(arm: Arm) -> None:
    shifts = {severity: [_target_shift(severity, arm, seed) for seed in range(8)] for severity in SEVERITIES}
    assert 1 < np.median(shifts["mild"]) < 6 < np.median(shifts["strong"])


def _target_shift(severity: Severity, arm: Arm, seed: int) -> float:
    """Pixels by which the green blob of the first frame lies elsewhere than it should."""
    places = []
    for frame in (arm.reset(seed).frame, planned("bumped_camera", severity, arm, seed).frames[0]):
        green = frame[..., 1].astype(int) - np.maximum(frame[..., 0], frame[..., 2]) > 40
        places.append(np.argwhere(green).mean(axis=0))
    return float(np.linalg.norm(places[1] - places[0]))


def test_the_table_is_whole() -> None:
    assert len(PLANTED) == 12
    for name, defect in DEFECTS.items():
        assert defect.name == name and defect.strong != defect.mild and defect.strong and defect.mild
        assert sum(how is not None for how in (defect.plan, defect.corrupt, defect.file)) == 1
