"""MCAP in every layout and encoding, whole and broken."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType
from PIL import Image

from ray_jobs.ingest.reader import Refused
from ray_jobs.seam.configs import IngestSettings, Topics
from ray_jobs.seam.store import Store
from tests.ingest.recorded import HZ, NOON, SECOND, Layout, Said, Taken, episode, joints, marker, mcap, packets, picture, video, write

Take = Callable[..., list[Taken | Refused]]
TWO = episode(NOON, 20, task="pick", seed=1) + episode(NOON + 10 * SECOND, 12, task="place", seed=2)

LAYOUTS = {
    "chunked and indexed": Layout(),
    "one big chunk": Layout(chunk_bytes=1 << 24),
    "unchunked": Layout(chunked=False),
    "unindexed": Layout(indexed=False),
    "no summary": Layout(summary=False, indexed=False),
    "unchunked, no summary": Layout(chunked=False, summary=False, indexed=False),
    "lz4": Layout(compression=CompressionType.LZ4),
    "uncompressed": Layout(compression=CompressionType.NONE),
    "json": Layout(encoding="json"),
    "protobuf": Layout(encoding="protobuf"),
}


def check_two(found: list[Taken | Refused], robot: str = "arm-9") -> list[Taken]:
    """The two episodes of TWO, as they were recorded."""
    taken = [item for item in found if isinstance(item, Taken)]
    assert len(taken) == len(found) == 2
    for item, steps, start, task in zip(taken, (20, 12), (NOON, NOON + 10 * SECOND), ("pick", "place"), strict=True):
        meta, streams = item.meta, item.streams
        assert (meta.task, meta.robot, meta.fps, meta.notes) == (task, robot, float(HZ), ())
        assert (meta.state_names, meta.action_names) == (("a", "b", "c"), ("dx", "dy"))
        expected = start + np.arange(steps) * SECOND // HZ
        for name in ("state", "action", "camera:front"):
            assert np.array_equal(streams[name].t_ns, expected)
            assert np.array_equal(streams[name].log_ns, expected + 3_000_000)
        said = [message.fields["position"] for message in TWO if message.topic == "/joint_states" and 0 <= message.stamp_ns - start < steps * SECOND // HZ]
        assert np.array_equal(streams["state"].values, np.array(said, np.float32))
        assert streams["action"].values.shape == (steps, 2) and streams["camera:front"].values.shape == (steps, 0)
        assert meta.cameras["front"].frames == steps == len(item.pictures["front"]) and meta.cameras["front"].lead_in == 0
        truth = np.stack([picture(number) for number in range(steps)]).astype(float)
        assert np.abs(item.pictures["front"] - truth).mean() < 6
    return taken


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_gives_the_same_episodes_with_the_same_ids(raw: Store, tmp_path: Path, take: Take, layout: Layout) -> None:
    write(tmp_path / "raw/a.mcap", mcap(TWO, layout))
    write(tmp_path / "raw/renamed/b.bin", mcap(TWO))
    ids = [item.meta.episode_id for item in check_two(take(raw, "a.mcap"))]
    assert ids == [item.meta.episode_id for item in check_two(take(raw, "renamed/b.bin"))]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("codec", ["h265", "av1"])
def test_other_codecs_are_kept_as_packets(raw: Store, tmp_path: Path, take: Take, codec: str) -> None:
    write(tmp_path / "raw/a.mcap", mcap(episode(codec=codec)))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and item.meta.cameras["front"].codec == codec
    assert len(item.pictures["front"]) == 20
    assert np.abs(item.pictures["front"][7].astype(float) - picture(7)).mean() < 12


def test_an_episode_that_begins_between_keyframes_has_a_lead_in(raw: Store, tmp_path: Path, take: Take) -> None:
    said = episode(marked=False, steps=20)
    late = [m for m in said if m.log_ns < NOON + 7 * SECOND // HZ]
    write(tmp_path / "raw/a.mcap", mcap([*late, marker("start", NOON), *[m for m in said if m not in late], marker("end", NOON)]))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken)
    clip = item.meta.cameras["front"]
    assert (clip.lead_in, clip.frames, len(item.pictures["front"])) == (2, 13, 15)  # frames 5 and 6 lead in
    assert np.abs(item.pictures["front"][clip.lead_in].astype(float) - picture(7)).mean() < 6
    assert len(item.streams["camera:front"].t_ns) == len(item.streams["state"].t_ns) == 13


def test_frames_before_the_first_keyframe_are_said_to_be_lost(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [video("/camera/front", NOON + n * SECOND // HZ, data) for n, data in enumerate(packets(12)) if n >= 3]
    write(tmp_path / "raw/a.mcap", mcap(said))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and item.meta.cameras["front"].frames == 7
    assert "2 frames before the first keyframe were not kept (front)" in item.meta.notes


@given(cut=st.floats(0.05, 0.999), layout=st.sampled_from([LAYOUTS[name] for name in ("chunked and indexed", "one big chunk", "unchunked", "lz4")]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_keeps_what_can_be_read(raw: Store, tmp_path: Path, take: Take, cut: float, layout: Layout) -> None:
    content = mcap(TWO, layout)
    write(tmp_path / "raw/a.mcap", content[: int(len(content) * cut)])
    found = take(raw, "a.mcap")
    episodes = [item for item in found if isinstance(item, Taken)]
    assert found and len(found) <= 3
    for number, item in enumerate(episodes):
        start = NOON + number * 10 * SECOND
        count = len(item.streams["state"].t_ns) if "state" in item.streams else 0
        said = [m.fields["position"] for m in TWO if m.topic == "/joint_states" and m.stamp_ns >= start][:count]
        assert count == 0 or np.array_equal(item.streams["state"].values, np.array(said, np.float32)), "what is kept is what was recorded"
        whole = not any("no end marker" in note for note in item.meta.notes)
        assert whole == (not any(note.startswith("truncated") for note in item.meta.notes)), "an end without its marker says why"
        if whole:
            assert (count, item.meta.cameras["front"].frames) == (20, 20) if number == 0 else (12, 12)


def test_a_cut_chunk_is_read_as_far_as_it_goes(raw: Store, tmp_path: Path, take: Take) -> None:
    """A recorder's whole episode may sit in one chunk: half of the bytes must not cost all of it."""
    said = [joints("/joint_states", NOON + n * SECOND // 100, np.random.default_rng(n).normal(size=3).tolist()) for n in range(6000)]
    content = mcap(said, chunk_bytes=1 << 24)
    write(tmp_path / "raw/a.mcap", content[: len(content) // 2])
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and 1500 < len(item.streams["state"].t_ns) < 3600
    assert any(note.startswith("truncated") for note in item.meta.notes)


def test_a_damaged_chunk_costs_itself_and_is_noted(raw: Store, tmp_path: Path, take: Take) -> None:
    content = bytearray(mcap(episode(steps=60), compression=CompressionType.NONE))
    content[len(content) // 2] ^= 0xFF
    write(tmp_path / "raw/a.mcap", bytes(content))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and 30 < len(item.streams["state"].t_ns) < 60
    assert any("damaged chunk" in note for note in item.meta.notes)


def test_nan_and_infinite_states_come_through(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [joints("/joint_states", NOON + n * SECOND // HZ, [float("nan"), float("inf"), n]) for n in range(5)]
    write(tmp_path / "raw/a.mcap", mcap(said))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken)
    values = item.streams["state"].values
    assert np.isnan(values[:, 0]).all() and np.isinf(values[:, 1]).all() and values[:, 2].tolist() == [0, 1, 2, 3, 4]


def test_fewer_frames_than_states_come_through_with_a_note(raw: Store, tmp_path: Path, take: Take) -> None:
    write(tmp_path / "raw/a.mcap", mcap(episode(frames=14)))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and item.meta.cameras["front"].frames == 14
    assert item.meta.notes == ("fewer frames than states: 14 of 20 (front)",)


def test_images_are_encoded_and_the_same_images_give_the_same_bytes(raw: Store, tmp_path: Path, take: Take) -> None:
    said = []
    for number in range(10):
        at, pixels = NOON + number * SECOND // HZ, picture(number, 65, 49)
        header = {"height": 49, "width": 65, "is_bigendian": 0, "step": 65 * 3, "data": pixels.tobytes()}
        said.append(Said("/wrist/image_raw", "sensor_msgs/msg/Image", at, {**header, "encoding": "rgb8"}, at))
        said.append(Said("/odd/image_raw", "sensor_msgs/msg/Image", at, {**header, "encoding": "64FC7"}, at))
        file = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(file)
        said.append(Said("/top/compressed", "sensor_msgs/msg/CompressedImage", at, {"format": "png", "data": file.read_bytes()}, at))
    write(tmp_path / "raw/a.mcap", mcap(said))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and sorted(item.meta.cameras) == ["top", "wrist"]
    for camera in ("top", "wrist"):
        assert item.pictures[camera].shape == (10, 48, 64, 3)
        assert np.abs(item.pictures[camera][4].astype(float) - picture(4, 65, 49)[:48, :64]).mean() < 4
    assert any("/odd/image_raw" in note and "64FC7" in note for note in item.meta.notes)
    (again,) = take(raw, "a.mcap")
    assert isinstance(again, Taken) and again.meta == item.meta


def test_topics_are_taken_as_the_settings_say(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [joints(topic, NOON + n * SECOND // HZ, [n, k]) for n in range(5) for k, topic in enumerate(("/left/joint_states", "/right/joint_states", "/goal"))]
    write(tmp_path / "raw/a.mcap", mcap(said))
    (plain,) = take(raw, "a.mcap")
    (chosen,) = take(raw, "a.mcap", IngestSettings(topics=Topics(state="/right/joint_states", action="/goal")))
    assert isinstance(plain, Taken) and isinstance(chosen, Taken)
    assert plain.streams["state"].values[0, 1] == 0 and "action" not in plain.streams
    assert chosen.streams["state"].values[0, 1] == 1 and chosen.streams["action"].values[0, 1] == 2


def test_joints_that_change_places_or_come_in_two_sets_are_told_apart(raw: Store, tmp_path: Path, take: Take) -> None:
    said = []
    for n in range(6):
        at = NOON + n * SECOND // HZ
        names = ("a", "b", "c") if n % 2 else ("c", "b", "a")
        said.append(joints("/joint_states", at, [float("abc".index(name)) for name in names], names))
        said.append(joints("/joint_states", at, [9.0], ("gripper",)))
    write(tmp_path / "raw/a.mcap", mcap(said))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and item.meta.state_names == ("c", "b", "a", "gripper")
    assert item.streams["state"].values.tolist() == [[2, 1, 0, 9]] * 6
    assert "state joined of 2 sets of /joint_states" in item.meta.notes


def test_markers_that_do_not_match_are_rows_and_notes(raw: Store, tmp_path: Path, take: Take) -> None:
    body = [m for m in episode(marked=False)]
    said = [*body[:6], marker("end", NOON), marker("start", NOON, task="x"), *body[6:30], marker("start", NOON), *body[30:], marker("end", NOON, success=True)]
    write(tmp_path / "raw/a.mcap", mcap(said))
    refused, first, second = take(raw, "a.mcap")
    assert isinstance(refused, Refused) and "start marker is missing" in refused.reason
    assert isinstance(first, Taken) and "no end marker: the next episode began" in first.meta.notes and first.meta.success is None
    assert isinstance(second, Taken) and second.meta.success is True


def test_an_episode_without_samples_is_refused_and_its_neighbour_is_not(raw: Store, tmp_path: Path, take: Take) -> None:
    write(tmp_path / "raw/a.mcap", mcap([marker("start", NOON - 9), marker("end", NOON - 8), *episode()]))
    refused, item = take(raw, "a.mcap")
    assert isinstance(refused, Refused) and refused.part == "episode 1" and "no joint states and no frames" in refused.reason
    assert isinstance(item, Taken)


def test_a_file_without_messages_or_usable_topics_is_refused(raw: Store, tmp_path: Path, take: Take) -> None:
    write(tmp_path / "raw/empty.mcap", mcap([]))
    write(tmp_path / "raw/text.mcap", mcap([Said("/chatter", "std_msgs/msg/String", NOON, {"data": "hello"})]))
    write(tmp_path / "raw/magic.mcap", mcap([])[:8])
    assert [item.reason for item in take(raw, "empty.mcap") if isinstance(item, Refused)] == ["it holds no messages"]
    assert [item.reason for item in take(raw, "text.mcap") if isinstance(item, Refused)] == [
        "no joint states and no camera: topics were /chatter (std_msgs/msg/String)"
    ]
    (refused,) = take(raw, "magic.mcap")
    assert isinstance(refused, Refused) and "truncated" in refused.reason


@given(position=st.floats(0, 1), value=st.integers(0, 255), layout=st.sampled_from([LAYOUTS["uncompressed"], LAYOUTS["unchunked"], LAYOUTS["lz4"]]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_anywhere_never_raises(raw: Store, tmp_path: Path, take: Take, position: float, value: int, layout: Layout) -> None:
    content = bytearray(mcap(TWO, layout))
    at = 8 + int(position * (len(content) - 9))
    content[at] = value
    write(tmp_path / "raw/a.mcap", bytes(content))
    assert take(raw, "a.mcap", decode=False)
