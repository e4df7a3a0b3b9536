"""What the fleet writes, read back with the readers of others: mcap, mcap_ros2 and PyAV."""

import io
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from mcap.exceptions import EndOfFile
from mcap.reader import NonSeekingReader, make_reader
from mcap_ros2.decoder import DecoderFactory

from fleet.arm import STATE_NAMES, TASK, Arm
from fleet.defects import PLANTED
from fleet.expert import demonstrate
from fleet.mcap_log import Take, encode_h264, write_mcap
from fleet.record import DaySummary, record_day, record_days, record_late
from fleet.truth import TruthRow, read_truth

DAY = "2026-01-05"
START = 1_767_604_649_728_285_799


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TruthRow], DaySummary]:
    folder = tmp_path_factory.mktemp("fleet")
    summary = record_day(folder / "raw", folder / "truth", DAY, episodes_per_robot=8)
    return folder / "raw", read_truth(folder / "truth"), summary


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def decode(packets: list[bytes]) -> np.ndarray:
    codec = av.CodecContext.create("h264", "r")
    assert isinstance(codec, av.VideoCodecContext)
    frames = [frame for packet in packets for frame in codec.decode(av.Packet(packet))] + codec.decode(None)
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def read(data: bytes) -> tuple[list[tuple[Any, Any, Any]], bool]:
    """(channel, message, decoded) in the order of the file, and whether it ends where it should."""
    found = []
    try:
        for _, channel, message, decoded in NonSeekingReader(io.BytesIO(data), decoder_factories=[DecoderFactory()]).iter_decoded_messages(
            log_time_order=False
        ):
            found.append((channel, message, decoded))
    except (EndOfFile, struct.error):  # cut inside an index record, mcap's reader raises the second
        return found, False
    return found, True


def take(seed: int = 1) -> Take:
    return Take(3, START, demonstrate(Arm(), seed))


def test_one_episode_reads_back_as_it_was_recorded() -> None:
    taken = take()
    data, _ = write_mcap("arm-1", [taken], np.random.default_rng(0))
    messages, whole = read(data)
    demo, count = taken.demonstration, len(taken.demonstration.actions)
    assert whole and Counter(channel.topic for channel, *_ in messages) == {"/joint_states": count, "/command": count, "/camera/front": count, "/episode": 2}
    states = [decoded for channel, _, decoded in messages if channel.topic == "/joint_states"]
    assert tuple(states[0].name) == STATE_NAMES
    np.testing.assert_array_equal(np.float32([one.position for one in states]), demo.states)
    commands = [decoded for channel, _, decoded in messages if channel.topic == "/command"]
    np.testing.assert_array_equal(np.float32([one.position for one in commands]), demo.actions)
    markers = [json.loads(decoded.data) for channel, _, decoded in messages if channel.topic == "/episode"]
    assert markers == [{"event": event, "episode": 3, "task": TASK} for event in ("start", "end")]


def test_times_are_those_of_a_logger() -> None:
    data, _ = write_mcap("arm-1", [take()], np.random.default_rng(0))
    messages, _ = read(data)
    logged = [message.log_time for _, message, _ in messages]
    assert logged == sorted(logged), "the file is in the order of arrival"
    delays = np.array([message.log_time - message.publish_time for _, message, _ in messages]) / 1e6
    assert delays.min() >= 2 and delays.max() <= 18 and delays.std() > 0.5
    stamps: dict[str, np.ndarray] = {}
    for topic in ("/joint_states", "/camera/front", "/command"):
        rows = [(message.publish_time, getattr(decoded, "header", decoded)) for channel, message, decoded in messages if channel.topic == topic]
        times = [head.stamp if hasattr(head, "stamp") else head.timestamp for _, head in rows]
        assert [publish for publish, _ in rows] == [time.sec * 10**9 + time.nanosec for time in times]
        stamps[topic] = np.array([publish for publish, _ in rows])
        np.testing.assert_allclose(np.diff(stamps[topic]) / 1e6, 100, atol=2.1)
    assert np.abs(stamps["/camera/front"] - stamps["/joint_states"]).max() < 2.1e6
    assert (stamps["/command"] - stamps["/joint_states"]).min() > 0 and (stamps["/command"] - stamps["/joint_states"]).max() < 7e6


def test_the_video_is_annex_b_without_b_frames_and_keeps_its_colours() -> None:
    frames = take().demonstration.frames
    packets = encode_h264(frames)
    assert len(packets) == len(frames)
    for index, packet in enumerate(packets):
        kinds = {packet[place + 3] & 31 for place in range(len(packet) - 3) if packet[place : place + 3] == b"\x00\x00\x01"}
        assert ({7, 8, 5} <= kinds) == (index % 10 == 0), "SPS, PPS and a keyframe at every tenth, at no other"
    decoded = decode(packets)
    assert np.abs(decoded.astype(float) - frames).mean() < 4
    for channel, others in ((0, (1, 2)), (1, (0, 2))):
        centres = []
        for frame in (frames[0].astype(int), decoded[0].astype(int)):
            centres.append(np.argwhere(frame[..., channel] - frame[..., others].max(axis=-1) > 40).mean(axis=0))
        assert np.linalg.norm(centres[0] - centres[1]) < 1.0, "half the chroma still shows where things are"
    assert encode_h264(frames) == packets


def test_a_recording_says_whose_it_is_and_has_an_index() -> None:
    data, _ = write_mcap("arm-2", [take()], np.random.default_rng(0))
    reader = make_reader(io.BytesIO(data))
    summary = reader.get_summary()
    assert reader.get_header().profile == "ros2" and summary is not None and summary.statistics is not None
    assert summary.statistics.message_count == len(read(data)[0])
    assert [(one.name, one.metadata["robot"]) for one in reader.iter_metadata()] == [("recording", "arm-2")]
    assert all(schema.encoding == "ros2msg" for schema in summary.schemas.values())


def test_every_file_of_a_day_holds_what_the_truth_says(day: tuple[Path, list[TruthRow], DaySummary]) -> None:
    raw, rows, _ = day
    files = contents(raw)
    assert set(files) == {row.file for row in rows}, "nothing else lies in raw, no partial file either"
    for file, data in files.items():
        messages, whole = read(data)
        mine = [row for row in rows if row.file == file]
        assert whole == (not any(row.defect == "truncated_file" for row in mine))
        starts = {}
        for channel, message, decoded in messages:
            if channel.topic == "/episode" and json.loads(decoded.data)["event"] == "start":
                starts[json.loads(decoded.data)["episode"]] = message.publish_time
        assert set(starts) == {row.episode for row in mine}
        for row in mine:
            assert abs(starts[row.episode] - row.start_ns) < 5e7 and row.day == DAY
            assert f"{row.robot}/{row.day}/" in file


def test_about_two_in_five_are_damaged(day: tuple[Path, list[TruthRow], DaySummary]) -> None:
    _, rows, summary = day
    originals = [row for row in rows if row.duplicate_of is None]
    damaged = sum(row.defect is not None for row in originals) + len({row.file for row in rows if row.duplicate_of})
    assert len(originals) == 24 and damaged == 9
    assert summary.episodes == len(rows) and summary.damaged == Counter(row.defect for row in rows if row.defect)
    assert all(row.success == (row.defect != "failed_demonstration") for row in originals)


def test_robots_do_not_record_the_same_scenes(day: tuple[Path, list[TruthRow], DaySummary]) -> None:
    raw, rows, _ = day
    first = [read((raw / row.file).read_bytes())[0][1][2] for row in rows if row.episode == 0 and row.duplicate_of is None]
    assert len(first) == 3 and len({str(one) for one in first}) == 3


def test_bytes_follow_from_seed_robot_and_day_alone(tmp_path: Path) -> None:
    for name, robots, workers in (("one", ("arm-1", "arm-2"), 1), ("two", ("arm-2", "arm-1"), 2)):
        record_day(tmp_path / name, tmp_path / f"{name}-truth", DAY, robots, episodes_per_robot=2, workers=workers)
    record_day(tmp_path / "other", tmp_path / "other-truth", DAY, ("arm-1", "arm-2"), episodes_per_robot=2, seed=1)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two and set(one.values()).isdisjoint(other.values())


def planted(tmp_path: Path, kind: str, seed: int = 0) -> tuple[Path, list[TruthRow]]:
    record_day(tmp_path / "raw", tmp_path / "truth", DAY, ("arm-1",), episodes_per_robot=2, damaged=0.5, planted=(kind,), seed=seed)
    return tmp_path / "raw", read_truth(tmp_path / "truth")


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_truncated_file_loses_the_end_of_its_last_episode(tmp_path: Path, seed: int) -> None:
    raw, rows = planted(tmp_path, "truncated_file", seed)
    assert [row.defect for row in rows] == [None, "truncated_file"]
    messages, whole = read((raw / rows[0].file).read_bytes())
    frames = sum(channel.topic == "/camera/front" for channel, *_ in messages)
    assert not whole and rows[0].steps < frames < rows[0].steps + rows[1].steps


def test_a_duplicate_is_the_same_file_or_the_same_episode_logged_again(tmp_path: Path) -> None:
    seen = set()
    for seed in range(6):
        raw, rows = planted(tmp_path / str(seed), "duplicate_upload", seed)
        originals, copies = ([row for row in rows if (row.defect == "duplicate_upload") == copied] for copied in (False, True))
        data, again = (raw / originals[0].file).read_bytes(), (raw / copies[0].file).read_bytes()
        seen.add(copies[0].severity)
        if copies[0].severity == "strong":
            assert data == again and [row.episode for row in copies] == [row.episode for row in originals]
            continue
        assert data != again and len(copies) == 1 and copies[0].duplicate_of == originals[0].file
        content = {str(decoded) for channel, _, decoded in read(data)[0] if channel.topic == "/camera/front"}
        repeated = {str(decoded) for channel, _, decoded in read(again)[0] if channel.topic == "/camera/front"}
        pixels = {line.split("frame_id")[1] for line in content}
        assert {line.split("frame_id")[1] for line in repeated} <= pixels, "the same packets"
    assert seen == {"mild", "strong"}


def test_a_late_upload_adds_one_file_to_a_day(tmp_path: Path) -> None:
    record_day(tmp_path / "raw", tmp_path / "truth", DAY, ("arm-1",), episodes_per_robot=2)
    before = contents(tmp_path / "raw")
    late = record_late(tmp_path / "raw", tmp_path / "truth", DAY, "arm-1", episodes=3)
    after = contents(tmp_path / "raw")
    assert late.files == 1 and late.episodes == 3 and len(after) == len(before) + 1
    assert before.items() <= after.items()
    numbers = [row.episode for row in read_truth(tmp_path / "truth")]
    assert len(set(numbers)) == 5


def test_several_days_differ(tmp_path: Path) -> None:
    days = ("2026-01-05", "2026-01-06")
    made = record_days(tmp_path / "raw", tmp_path / "truth", days, ("arm-1",), episodes_per_robot=1)
    assert [summary.day for summary in made] == list(days)
    assert len(set(contents(tmp_path / "raw").values())) == 2


def test_three_days_of_the_demo_show_every_kind_of_damage() -> None:
    from fleet.record import ROBOTS, Order, _fates, _number

    drawn = set()
    for day in ("2026-01-05", "2026-01-06", "2026-01-07"):
        for robot in ROBOTS:
            order = Order(Path("raw"), Path("truth"), day, robot, 12)
            drawn |= {fate[0] for fate in _fates(order, np.random.default_rng(_number(0, robot, day, 0))) if fate}
    assert drawn == set(PLANTED)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"truth": "raw/truth"}, "outside the raw store"), ({"day": "2026-13-01"}, "does not match"), ({"planted": ("rust",)}, "no such defect: rust")],
)
def test_a_wrong_order_is_refused_before_anything_is_written(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    wanted = {"raw": "raw", "truth": "truth", "day": DAY, "planted": PLANTED} | change
    with pytest.raises(ValueError, match=message):
        record_day(tmp_path / wanted["raw"], tmp_path / wanted["truth"], wanted["day"], episodes_per_robot=1, planted=wanted["planted"])
    assert not list(tmp_path.iterdir())
