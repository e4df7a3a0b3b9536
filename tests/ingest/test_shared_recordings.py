"""Real recordings, whole and damaged: what comes of each was written here after looking at it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.alignment import ONE_TO_ONE, RESAMPLED, align
from ray_jobs.ingest.index import index
from ray_jobs.ingest.job import read_upload
from ray_jobs.ingest.reader import Refused
from ray_jobs.seam.configs import IngestSettings, UploadsConfig
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import from_bytes
from tests.ingest.recorded import Taken

pytestmark = pytest.mark.shared_data
Take = Callable[..., list[Taken | Refused]]
NOTHING = "no joint states and no camera: topics were "
DAMAGED, ROS_TESTS = "damaged-bags", "damaged-bags/rosbag2/rosbag2_tests/resources/mcap"
SPLIT = "damaged-bags/rosbag2/rosbag2_py/test/resources/mcap/reindex_test_bags/multiple_files"
RLDS = "rlds-bridge-widowx/bridge_dataset/1.0.0"

# upload -> (episodes that are ok, beginning of the reason why the rest is quarantined)
EXPECTED: dict[str, tuple[int, str]] = {
    # metadata.yaml promises five seconds, the only file has no byte
    f"{DAMAGED}/resurrector-zero-byte-db3/ros2_dir_bag": (0, "an empty file (0 bytes)"),
    # a sound database whose tables have no row; beside it an empty journal
    f"{DAMAGED}/rosbag2/ros2bag/test/resources/empty_bag": (0, "it holds no messages"),
    # rosbag2's three parts of one recording, without metadata.yaml: text alone
    f"{SPLIT}/multiple_files_0.mcap": (0, NOTHING + "/chatter (std_msgs/msg/String); joined of 3 files: multiple_files_0.mcap to multiple_files_2.mcap"),
    f"{ROS_TESTS}/cdr_test": (0, NOTHING + "/array_topic (test_msgs/msg/Arrays), /test_topic (test_msgs/msg/BasicTypes)"),
    f"{ROS_TESTS}/wrong_rmw_test": (0, "message encoding wrong_format of /test_topic is not read"),
    f"{DAMAGED}/rosbagjs/empty-file.bag": (0, "an empty file (0 bytes)"),
    # two turtles of turtlesim driven by hand: poses at 62 Hz, /turtle1/cmd_vel and /turtle2/cmd_vel; the same bag twice
    f"{DAMAGED}/rosbagjs/example-bz2.bag": (1, ""),
    f"{DAMAGED}/rosbagjs/example-lz4.bag": (1, ""),
    f"{DAMAGED}/rosbagjs/example-unsorted-chunks.bag": (0, NOTHING + "/foo (std_msgs/String)"),
    f"{DAMAGED}/rosbagjs/no-messages.bag": (0, "it holds no messages"),
    # two joint states among one of every type; its pictures are a few bytes that are none
    f"{DAMAGED}/rosbags-rs-no-summary/test_bag_mcap": (1, ""),
    f"{DAMAGED}/tiryoh/test_sample.bag": (0, NOTHING + "/diagnostics_agg (diagnostic_msgs/DiagnosticArray), /rosout_agg"),
    f"{DAMAGED}/tiryoh/test_sample.mcap": (0, NOTHING + "/diagnostics_agg"),
    f"{DAMAGED}/tiryoh/test_sample.mcap.zstd": (0, "a zstd archive: unpack it"),
    f"{DAMAGED}/tiryoh/test_sample_no_rosout.bag": (0, NOTHING + "/sensor/lidar/scan (sensor_msgs/LaserScan)"),
    f"{DAMAGED}/tiryoh/test_sample_no_rosout.mcap": (0, NOTHING + "/sensor/lidar/points (sensor_msgs/msg/PointCloud2)"),
    f"{DAMAGED}/tiryoh/test_sample_truncated.mcap": (0, "truncated: the file ends within a record"),
    # its only chunk is cut after 1826 of 5544 bytes: what is left holds one of its two topics
    f"{DAMAGED}/tiryoh/test_truncated.bag": (0, "truncated: the file ends within a record, 3718 bytes of it are missing; the bag has no index"),
    # every message is there, the index is not
    f"{DAMAGED}/tiryoh/test_unindexed.bag": (0, "the bag has no index: read from end to end; " + NOTHING + "/diagnostics_agg"),
    "hdf5-robosuite-human-demos/lift/demo.hdf5": (3, ""),
    "hdf5-robosuite-human-demos/wipe/panda/demo.hdf5": (1, ""),
    "hdf5-robosuite-human-demos/wipe/panda/models/model_1.xml": (0, "a robot's model, and no recording"),
    "lerobot20-gr00t-robot-sim": (5, ""),
    "lerobot21-g1-bottle": (6, ""),
    "lerobot30-so101-frozen-sim": (6, ""),
    "mcap-ros2-all-sensor-msgs/rosbag2_2025_09_10-13_03_56_0.mcap": (1, ""),
    f"{RLDS}/bridge_dataset-train.tfrecord-00000-of-00001": (0, "a TFRecord shard (RLDS)"),
    f"{RLDS}/bridge_dataset-val.tfrecord-00000-of-00001": (0, "a TFRecord shard (RLDS)"),
    f"{RLDS}/dataset_info.json": (0, "a document of a TensorFlow data set (RLDS)"),
    f"{RLDS}/features.json": (0, "a document of a TensorFlow data set (RLDS)"),
    "rosbag1-wx200-waist-diagnostics/bag/waist_diagnostics.bag": (1, ""),
}


def test_every_upload_of_the_shared_recordings(shared_data: Path, store: Store) -> None:
    raw = StoreConfig.local(shared_data)
    result = index(UploadsConfig(store=store.config, raw=raw))
    uploads = {row["path"]: row for row in from_bytes(store.get(result.key))}
    assert set(uploads) == set(EXPECTED), "sidecars are no uploads, and everything else is"
    assert result.counts["ok"] == 24 and result.counts["quarantined"] == 7
    for path, (good, reason) in EXPECTED.items():
        if uploads[path]["status"] == "quarantined":
            assert good == 0 and uploads[path]["reason"].startswith(reason), path
            continue
        rows = read_upload(store, Store(raw), uploads[path], IngestSettings())
        assert sum(row["status"] == "ok" for row in rows) == good, path
        assert all(row["day"] in uploads[path]["days"] for row in rows)
        if not good:
            (row,) = rows
            assert row["status"] == "quarantined" and reason in row["reason"], path


def test_days_come_from_the_recording_without_reading_it_whole(shared_data: Path, store: Store) -> None:
    result = index(UploadsConfig(store=store.config, raw=StoreConfig.local(shared_data)))
    days = {row["path"]: row["days"] for row in from_bytes(store.get(result.key))}
    assert days["damaged-bags/tiryoh/test_sample_truncated.mcap"] == ["2023-11-14"]
    assert days["damaged-bags/rosbags-rs-no-summary/test_bag_mcap"] == ["2025-06-07"]
    assert days["mcap-ros2-all-sensor-msgs/rosbag2_2025_09_10-13_03_56_0.mcap"] == ["2025-09-10"]


def test_rosbag2_with_every_sensor_message(shared_data: Path, take: Take) -> None:
    folder = Store(StoreConfig.local(shared_data / "mcap-ros2-all-sensor-msgs"))
    (item,) = take(folder, "rosbag2_2025_09_10-13_03_56_0.mcap")
    assert isinstance(item, Taken)
    assert item.meta.state_names == ("shoulder_joint", "elbow_joint", "wrist_joint", "gripper_joint")
    assert item.streams["state"].values.shape == (15, 4) and "action" not in item.streams
    assert sorted(item.meta.cameras) == ["compressed_image", "image"]
    assert item.pictures["image"].shape == (1, 480, 640, 3) and item.meta.notes == ("no action",)


def test_the_bag_without_statistics_keeps_its_joints_and_says_what_it_lost(shared_data: Path, take: Take) -> None:
    (item,) = take(Store(StoreConfig.local(shared_data / "damaged-bags/rosbags-rs-no-summary")), "test_bag_mcap")
    assert isinstance(item, Taken)
    assert item.meta.state_names[:4] == ("joint1", "joint2", "joint3", "base_x") and item.streams["state"].values.shape == (2, 16)
    assert sum("2 messages of /test/sensor_msgs/" in note for note in item.meta.notes) == 2 and not item.meta.cameras


def test_g1_is_kept_as_recorded(shared_data: Path, take: Take) -> None:
    found = take(Store(StoreConfig.local(shared_data)), "lerobot21-g1-bottle")
    assert [item.meta.cameras["cam_high"].frames for item in found if isinstance(item, Taken)] == [278, 221, 277, 267, 280, 260]
    for item in found:
        assert isinstance(item, Taken)
        meta = item.meta
        assert (meta.source, meta.fps, meta.notes, meta.task) == ("lerobot v2.1", 30.0, (), "Pick up the yellow bottle on the table.")
        assert meta.state_names[0] == "kLeftShoulderPitch" and len(meta.state_names) == len(meta.action_names) == 26
        assert meta.cameras["cam_high"].codec == "av1" and meta.cameras["cam_high"].lead_in == 0 and meta.synthetic_clock
        assert item.pictures["cam_high"].shape == (meta.cameras["cam_high"].frames, 480, 640, 3)
        aligned = align(item.recorded.episode)
        assert aligned.method == ONE_TO_ONE and np.array_equal(aligned.frame_index["cam_high"], np.arange(len(aligned.t_s)))


def test_gr00t_says_what_its_documents_claim_and_do_not_hold(shared_data: Path, take: Take) -> None:
    found = take(Store(StoreConfig.local(shared_data)), "lerobot20-gr00t-robot-sim")
    assert [len(item.streams["state"].t_ns) for item in found if isinstance(item, Taken)] == [416, 470, 470, 412, 328]
    for item in found:
        assert isinstance(item, Taken)
        assert list(item.meta.cameras) == ["ego_view"] and item.meta.cameras["ego_view"].codec == "h264"
        assert item.meta.task.startswith("pick the ") and item.streams["action"].values.shape[1] == 44
        assert item.pictures["ego_view"].shape[0] == len(item.streams["state"].t_ns), "B-frames are put in order"
        assert item.meta.notes == (
            "declared camera without files: egoview",
            "odd totals in meta/info.json: total_videos says 2, found 5; split train is 0:100 of 5 episodes",
            "timestamps begin at 0.050 s, the video of ego_view at 0: frames matched by position",
            'task vocabulary: "valid" is listed and no row has it',
        )
        assert align(item.recorded.episode).method == ONE_TO_ONE


def test_so101_is_cut_out_of_its_one_video(shared_data: Path, take: Take) -> None:
    found = take(Store(StoreConfig.local(shared_data)), "lerobot30-so101-frozen-sim")
    lengths = [383, 386, 379, 382, 90, 162]
    ends = np.cumsum(lengths) * 1e9 / 30
    for item, length, end in zip(found, lengths, ends, strict=True):
        assert isinstance(item, Taken)
        clip = item.meta.cameras["wrist"]
        assert (clip.frames, len(item.pictures["wrist"]), len(item.streams["state"].t_ns)) == (length, length + clip.lead_in, length)
        assert np.ptp(item.streams["state"].values, axis=0).max() == 0, "every joint is constant, as the set is"
        assert abs(item.recorded.end_ns - end) < 1e6 and item.meta.notes == ()
    assert len({item.meta.episode_id for item in found if isinstance(item, Taken)}) == 6


def test_wx200_turns_its_waist(shared_data: Path, take: Take) -> None:
    """106 s: the waist goes once around, the rest stands; joint states at 100 Hz with gaps to 64 ms, commands of one joint in a
    type of Interbotix's own from 1.2 s to 102 s. Stamps are 0.2 ms before the log."""
    (item,) = take(Store(StoreConfig.local(shared_data)), "rosbag1-wx200-waist-diagnostics/bag/waist_diagnostics.bag")
    assert isinstance(item, Taken)
    state, action = item.streams["state"], item.streams["action"]
    assert item.meta.state_names == ("waist", "shoulder", "elbow", "wrist_angle", "wrist_rotate", "gripper", "left_finger", "right_finger")
    assert item.meta.action_names == ("waist",) and (state.values.shape, action.values.shape) == ((10598, 8), (1002, 1))
    assert item.meta.fps == 100 and item.meta.notes == () and not item.meta.synthetic_clock
    assert np.ptp(state.values[:, 0]) > 6.2 and np.ptp(action.values) > 6.2 and np.ptp(state.values[:, 4:], axis=0).max() < 0.02
    assert 60e6 < np.diff(state.t_ns).max() < 65e6 and 0 < np.median(state.log_ns - state.t_ns) < 1e6
    aligned = align(item.recorded.episode)
    assert aligned.method == RESAMPLED and 10_000 < len(aligned.t_s) < 10_200


def test_two_turtles_are_two_mobile_robots(shared_data: Path, take: Take) -> None:
    """turtlesim's own Pose (x, y, theta) at 62 Hz and velocities from the keyboard; headings wrap at pi in the bag and not here."""
    found = [take(Store(StoreConfig.local(shared_data)), f"damaged-bags/rosbagjs/example-{name}.bag")[0] for name in ("bz2", "lz4")]
    for item in found:
        assert isinstance(item, Taken)
        assert item.meta.state_names == ("turtle1_x", "turtle1_y", "turtle1_theta", "turtle2_x", "turtle2_y", "turtle2_theta")
        assert item.streams["state"].values.shape == (1344, 6) and item.streams["action"].values.shape == (357, 12)
        assert np.abs(np.diff(item.streams["state"].values, axis=0)).max() < 0.2
    assert len({item.meta.episode_id for item in found if isinstance(item, Taken)}) == 1, "one recording, compressed twice"


def test_lift_is_told_by_its_model(shared_data: Path, take: Take) -> None:
    """Three demonstrations of lifting a cube: the file holds MuJoCo's whole state, and a model that names the robot's joints."""
    found = take(Store(StoreConfig.local(shared_data)), "hdf5-robosuite-human-demos/lift/demo.hdf5")
    assert [len(item.streams["state"].t_ns) for item in found if isinstance(item, Taken)] == [482, 510, 392]
    for item in found:
        assert isinstance(item, Taken)
        assert item.meta.state_names == (*(f"robot0_joint{n}" for n in range(1, 8)), "gripper0_finger_joint1", "gripper0_finger_joint2")
        assert (item.meta.task, item.meta.fps, item.meta.notes) == ("Lift", 20.0, ("the robot's 9 joints of the simulator's 32 values",))
        assert item.streams["action"].values.shape[1] == 7 and np.allclose(np.diff(item.streams["state"].t_ns), 5e7, atol=2)


def test_wipe_is_told_by_its_rates(shared_data: Path, take: Take) -> None:
    """One demonstration of the older schema: the model is named as a file, which is not followed; the state is the time, seven
    joints and their velocities, which correlate with the joints' slopes by 0.989 and more."""
    (item,) = take(Store(StoreConfig.local(shared_data)), "hdf5-robosuite-human-demos/wipe/panda/demo.hdf5")
    assert isinstance(item, Taken) and item.streams["state"].values.shape == (174, 7)
    assert (item.meta.task, item.meta.fps) == ("Wipe", 20.0) and item.meta.state_names[0] == "state_1"
    assert item.meta.notes == ("the first 7 of the simulator's 15 values: the rest is their rate of change and the time",)
