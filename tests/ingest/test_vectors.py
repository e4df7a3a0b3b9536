"""Several arms, bases and types that nobody ships: one state and one action with named axes."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.ingest.reader import Refused
from ray_jobs.ingest.topics import telling
from ray_jobs.ingest.vectors import Vectors
from ray_jobs.seam.configs import IngestSettings, Topics
from ray_jobs.seam.store import Store
from tests.ingest.bags import ROBOT_COMMAND, odometry, ros1, twist
from tests.ingest.recorded import NOON, SECOND, Said, Taken, joints

Take = Callable[..., list[Taken | Refused]]
STEP = SECOND // 50


def one(take: Take, raw: Store, said: list[Said], settings: IngestSettings | None = None) -> Taken:
    assert raw.root is not None
    ros1(raw.root / "a.bag", sorted(said, key=lambda message: message.log_ns))
    (item,) = take(raw, "a.bag", settings)
    assert isinstance(item, Taken)
    return item


def test_two_arms_with_the_same_joint_names_become_one_state(raw: Store, take: Take) -> None:
    said = []
    for n in range(100):
        at = NOON + n * STEP
        said.append(joints("/left/joint_states", at, [n, -n], ("j1", "j2")))
        said.append(joints("/right/joint_states", at, [10 + n, 0.5], ("j1", "j2"), lag_ns=1_000_000))
        said += [joints(f"/{side}/command", at, [n], ("j1",)) for side in ("left", "right")]
    item = one(take, raw, said)
    assert item.meta.state_names == ("left_j1", "left_j2", "right_j1", "right_j2")
    assert item.streams["state"].values[60].tolist() == [60, -60, 70, 0.5]
    assert item.meta.action_names == ("left_j1", "right_j1")
    assert "state joined of 2 sets of /left/joint_states, /right/joint_states" in item.meta.notes


def test_aloha_leaders_are_the_action_of_their_followers(raw: Store, take: Take) -> None:
    said = []
    for n in range(60):
        for side in ("left", "right"):
            said.append(joints(f"/puppet_{side}/joint_states", NOON + n * STEP, [n, 1], ("waist", "elbow")))
            said.append(joints(f"/master_{side}/joint_states", NOON + n * STEP, [n + 0.5, 1], ("waist", "elbow")))
    item = one(take, raw, said)
    assert item.meta.state_names == ("puppet_left_waist", "puppet_left_elbow", "puppet_right_waist", "puppet_right_elbow")
    assert item.meta.action_names == ("master_left_waist", "master_left_elbow", "master_right_waist", "master_right_elbow")
    assert item.streams["action"].values[30, 0] == 30.5


def test_the_sum_of_all_joints_is_not_joined_with_its_parts(raw: Store, take: Take) -> None:
    said = [joints(topic, NOON + n * STEP, [n, n], ("j1", "j2")) for n in range(30) for topic in ("/joint_states", "/arm/joint_states")]
    item = one(take, raw, said)
    assert item.meta.state_names == ("j1", "j2")
    assert "30 messages with another set of 2 state values were not kept" in item.meta.notes


def test_a_silent_arm_leaves_a_gap_and_no_held_value(raw: Store, take: Take) -> None:
    said = [joints("/left/joint_states", NOON + n * STEP, [n], ("l",)) for n in range(500)]
    said += [joints("/right/joint_states", NOON + n * STEP, [n], ("r",)) for n in range(500) if not 200 <= n < 240]
    values = one(take, raw, said).streams["state"].values
    assert values[200:204, 1].tolist() == [199] * 4, "held while it is fresh"
    gaps = np.diff(values[:, 0])
    assert gaps.max() > 30 and (gaps > 1).sum() == 1


def test_a_topic_that_is_mostly_silent_is_not_joined(raw: Store, take: Take) -> None:
    said = [joints("/left/joint_states", NOON + n * STEP, [n], ("l",)) for n in range(500)]
    said += [joints("/right/joint_states", NOON + n * STEP, [n], ("r",)) for n in range(100)]
    item = one(take, raw, said)
    assert item.meta.state_names == ("l",) and len(item.streams["state"].t_ns) == 500
    assert any("/right/joint_states not joined: it has values for 2" in note for note in item.meta.notes)


def test_a_mobile_robot(raw: Store, take: Take) -> None:
    said = [odometry("/odom", NOON + n * STEP, n / 50) for n in range(100)] + [twist("/cmd_vel", NOON + n * 5 * STEP, 1.0, 0.1) for n in range(20)]
    item = one(take, raw, said)
    assert item.meta.state_names == ("x", "y", "z", "qx", "qy", "qz", "qw", "vx", "vy", "vz", "wx", "wy", "wz")
    assert item.meta.action_names == ("vx", "vy", "vz", "wx", "wy", "wz")
    assert item.streams["state"].values[50, 0] == 1.0 and item.streams["action"].values[3].tolist() == pytest.approx([1, 0, 0, 0, 0, 0.1])


def test_a_mobile_manipulator(raw: Store, take: Take) -> None:
    said = [odometry("/odom", NOON + n * STEP, 1.0) for n in range(100)] + [twist("/cmd_vel", NOON + n * STEP, 1.0, 0.0) for n in range(100)]
    said += [joints(topic, NOON + n * STEP, [n], ("lift",)) for n in range(100) for topic in ("/joint_states", "/arm/command")]
    item = one(take, raw, said)
    assert item.meta.state_names[:3] == ("lift", "base_x", "base_y") and len(item.meta.state_names) == 14
    assert item.meta.action_names[:2] == ("lift", "base_vx")


def test_a_rotation_does_not_jump_where_its_quaternion_changes_sign(raw: Store, take: Take) -> None:
    said = []
    for n in range(100):
        half = n * 0.08
        sign = -1.0 if np.cos(half) < 0 else 1.0
        said.append(odometry("/odom", NOON + n * STEP, 0.0, (0.0, 0.0, sign * float(np.sin(half)), sign * float(np.cos(half)))))
    values = one(take, raw, said).streams["state"].values
    assert np.abs(np.diff(values[:, 3:7], axis=0)).max() < 0.09


def test_a_type_that_nobody_ships_is_understood_by_its_own_definition(raw: Store, take: Take) -> None:
    said = [joints("/arm/joint_states", NOON + n * STEP, [n, n], ("j1", "j2")) for n in range(30)]
    said += [Said("/arm/commands/group", ROBOT_COMMAND, NOON + n * STEP, {"joint_names": ["j1", "j2"], "cmd": [n, 2 * n]}) for n in range(30)]
    item = one(take, raw, said)
    assert item.meta.action_names == ("j1", "j2") and item.streams["action"].values[10].tolist() == [10, 20]


def test_a_header_without_a_stamp_gives_way_to_the_log_time(raw: Store, take: Take) -> None:
    said = [Said("/joint_states", "sensor_msgs/msg/JointState", NOON + n * STEP, {"name": ["a"], "position": [n]}) for n in range(10)]
    stream = one(take, raw, said).streams["state"]
    assert np.array_equal(stream.t_ns, stream.log_ns) and stream.t_ns[0] == NOON


def test_settings_name_one_topic(raw: Store, take: Take) -> None:
    said = [joints(f"/{side}/joint_states", NOON + n * STEP, [n, k], ("a", "b")) for n in range(20) for k, side in enumerate(("left", "right"))]
    item = one(take, raw, said, IngestSettings(topics=Topics(state="/right/joint_states", action="/left/joint_states")))
    assert item.meta.state_names == item.meta.action_names == ("a", "b")
    assert item.streams["state"].values[0].tolist() == [0, 1] and item.streams["action"].values[0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("topic", "other", "part"),
    [
        ("/left/joint_states", "/right/joint_states", "left"),
        ("/arm_1/x/states", "/arm_2/x/states", "arm_1"),
        ("/left_command", "/right_command", "left_command"),
        ("/arm/twist", "/arm/twist_stamped", None),
        ("/a/b/c", "/d/e/c", None),
        ("/a", "/a", None),
        ("/a/b", "/a/b/c", None),
    ],
)
def test_what_tells_two_topics_apart(topic: str, other: str, part: str | None) -> None:
    assert telling(topic, other) == part


@given(
    periods=st.lists(st.integers(5, 40), min_size=2, max_size=4),
    drops=st.sets(st.integers(20, 180), max_size=12),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=40)
def test_joined_rows_are_recorded_rows(periods: list[int], drops: set[int], seed: int) -> None:
    """Each row's leading part is a recorded sample at its own time, and each other part is what was newest then."""
    draw = np.random.default_rng(seed)
    vectors = Vectors({}, {f"/{k}": k for k in range(len(periods))})
    said: dict[int, list[tuple[int, float]]] = {}
    for k, period in enumerate(periods):
        said[k] = [(n * period, float(draw.normal())) for n in range(4000 // period) if k == 0 or n not in drops]
        for at, value in said[k]:
            vectors.add(f"/{k}", (f"j{k}",), [value], at * 1_000_000, at * 1_000_000)
    notes: list[str] = []
    found = vectors.joined("state", False, notes)
    assert found is not None
    stream, names = found
    assert names[0] == "j0" and stream.values.shape == (len(stream.t_ns), len(names))
    for at, row in zip((stream.t_ns // 1_000_000).tolist(), stream.values.tolist(), strict=True):
        for name, value in zip(names, row, strict=True):
            past = [v for t, v in said[int(name[1:])] if t <= at] or [said[int(name[1:])][0][1]]
            assert value == np.float32(past[-1])
