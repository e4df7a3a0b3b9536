"""ROS 1 and ROS 2 bags: the same recording gives the same episodes in every container, whole, split and damaged."""

import io
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.records import Channel, Schema
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_types_from_idl

from ray_jobs.ingest.decoders import UNDECODABLE, Decoders
from ray_jobs.ingest.gather import gather
from ray_jobs.ingest.index import index
from ray_jobs.ingest.job import read_upload
from ray_jobs.ingest.reader import Refused
from ray_jobs.ingest.ros1_reader import Ros1Reader
from ray_jobs.ingest.rosbag2_reader import Rosbag2Reader
from ray_jobs.seam.configs import IngestSettings, Limits, UploadsConfig
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import from_bytes
from tests.ingest.bags import built, ros1, ros2, typestore
from tests.ingest.recorded import NOON, SECOND, Said, Taken, episode, joints, mcap, write
from tests.ingest.test_mcap_reader import TWO, check_two

Take = Callable[..., list[Taken | Refused]]
WRITERS: dict[str, Callable[[Path], Path]] = {
    "a.bag": lambda path: ros1(path, TWO),
    "lz4.bag": lambda path: ros1(path, TWO, "lz4"),
    "bz2.bag": lambda path: ros1(path, TWO, "bz2"),
    "sqlite": lambda path: ros2(path, TWO),
    "mcap": lambda path: ros2(path, TWO, StoragePlugin.MCAP),
    "zstd-messages": lambda path: ros2(path, TWO, compression=CompressionMode.MESSAGE),
    "zstd-file": lambda path: ros2(path, TWO, compression=CompressionMode.FILE),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_container_gives_the_episodes_and_ids_of_mcap(raw: Store, tmp_path: Path, take: Take, name: str) -> None:
    WRITERS[name](tmp_path / "raw/arm-9" / name)
    write(tmp_path / "raw/a.mcap", mcap(TWO))
    ids = [item.meta.episode_id for item in check_two(take(raw, f"arm-9/{name}"), robot="unknown")]
    assert ids == [item.meta.episode_id for item in check_two(take(raw, "a.mcap"))]


def test_a_lone_database_is_read_and_peeked(raw: Store, tmp_path: Path, take: Take) -> None:
    ros2(tmp_path / "made", TWO)
    (tmp_path / "raw").mkdir(exist_ok=True)
    shutil.copy(tmp_path / "made/made.db3", tmp_path / "raw/lone.db3")
    check_two(take(raw, "lone.db3"), robot="unknown")
    facts = Rosbag2Reader().peek(raw, gather(raw.list())["lone.db3"])
    assert (facts.start_ns, facts.end_ns) == (TWO[0].log_ns, max(said.log_ns for said in TWO))


def test_a_database_before_iron_carries_no_definitions_and_is_read(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [joints("/joint_states", NOON + n * SECOND // 10, [n, 2 * n]) for n in range(5)]
    file = ros2(tmp_path / "raw/old", said) / "old.db3"
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE message_definitions")
        database.execute("UPDATE schema SET schema_version = 3")
    (item,) = take(raw, "old")
    assert isinstance(item, Taken) and item.streams["state"].values[:, 1].tolist() == [0, 2, 4, 6, 8]


def test_what_a_journal_still_holds_is_read(raw: Store, tmp_path: Path, take: Take) -> None:
    """A recorder that was killed leaves its last messages in SQLite's write-ahead log."""
    said = [joints("/joint_states", NOON + n * SECOND // 10, [n]) for n in range(6)]
    file = ros2(tmp_path / "made", said) / "made.db3"
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("UPDATE messages SET timestamp = timestamp + 1")
    database.execute("INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp + 9000000, data FROM messages LIMIT 4")
    database.commit()
    (tmp_path / "raw").mkdir(exist_ok=True)
    for end in ("", "-wal"):
        shutil.copy(f"{file}{end}", tmp_path / f"raw/cut.db3{end}")
    database.close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()}
    (item,) = take(raw, "cut.db3")
    assert isinstance(item, Taken) and len(item.streams["state"].t_ns) == 10
    assert {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()} == before, "an upload is never written to"


@pytest.mark.parametrize("kind", ["bag", "folder", "unlisted", "mcap"])
def test_a_split_recording_is_one(raw: Store, tmp_path: Path, take: Take, kind: str) -> None:
    said = episode(steps=30, marked=False)
    parts = [said[:30], said[30:60], said[60:]]
    root = tmp_path / "raw"
    for number, part in enumerate(parts):
        if kind == "bag":
            ros1(root / f"rec_{number}.bag", part)
            continue
        if kind == "mcap":
            write(root / f"rec/rec_{number}.mcap", mcap(part))
            continue
        made = ros2(tmp_path / f"made{number}", part)
        (root / "rec").mkdir(parents=True, exist_ok=True)
        shutil.copy(made / f"made{number}.db3", root / f"rec/rec_{number}.db3")
        if kind == "folder" and number == 0:
            shutil.copy(made / "metadata.yaml", root / "rec/metadata.yaml")
    (path,) = gather(raw.list())
    (item,) = take(raw, path)
    assert isinstance(item, Taken)
    write(tmp_path / "whole/raw.mcap", mcap(said))
    assert len(item.streams["state"].t_ns) == item.meta.cameras["front"].frames == 30
    assert any(note.startswith("joined of 3 files: rec_0.") for note in item.meta.notes)
    assert np.array_equal(item.streams["state"].values[:, 0], np.array([m.fields["position"][0] for m in said if m.topic == "/joint_states"], np.float32))


def test_numbered_recordings_that_do_not_continue_each_other_stay_apart(raw: Store, tmp_path: Path, take: Take) -> None:
    for number, start in enumerate((NOON, NOON + 3600 * SECOND, NOON + 3602 * SECOND)):
        ros1(tmp_path / f"raw/rec_{number}.bag", episode(start, steps=20, marked=False, seed=number))
    first, second = take(raw, "rec_0.bag")
    assert isinstance(first, Taken) and isinstance(second, Taken)
    assert len(first.streams["state"].t_ns) == 20 and len(second.streams["state"].t_ns) == 40
    assert "joined of 2 files: rec_1.bag to rec_2.bag" in second.meta.notes


def test_a_damaged_part_costs_itself(raw: Store, tmp_path: Path, take: Take) -> None:
    said = episode(steps=30, marked=False)
    for number, part in enumerate((said[:45], said[45:])):
        ros1(tmp_path / f"raw/rec_{number}.bag", part)
    write(tmp_path / "raw/rec_1.bag", b"")
    refused, item = take(raw, "rec_0.bag")
    assert isinstance(refused, Refused) and (refused.part, refused.reason) == ("rec_1.bag", "an empty file (0 bytes)")
    assert isinstance(item, Taken) and len(item.streams["state"].t_ns) == 15


def test_metadata_that_lies_is_noted_and_the_files_are_read(raw: Store, tmp_path: Path, take: Take) -> None:
    folder = ros2(tmp_path / "raw/rec", [joints("/joint_states", NOON + n * SECOND // 10, [n]) for n in range(5)])
    document = yaml.safe_load((folder / "metadata.yaml").read_text())
    document["rosbag2_bagfile_information"]["relative_file_paths"] += ["../../etc/passwd", "rec_7.db3"]
    write(folder / "metadata.yaml", yaml.safe_dump(document).encode())
    (item,) = take(raw, "rec")
    assert isinstance(item, Taken) and "metadata.yaml names files that are not there: passwd, rec_7.db3" in item.meta.notes
    write(folder / "metadata.yaml", b"rosbag2_bagfile_information: [")
    (item,) = take(raw, "rec")
    assert isinstance(item, Taken) and any(note.startswith("metadata.yaml is damaged") for note in item.meta.notes)


@given(cut=st.floats(0.02, 0.999), compression=st.sampled_from([None, "lz4", "bz2"]))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_ros1_bag_keeps_what_can_be_read(raw: Store, tmp_path: Path, take: Take, cut: float, compression: str | None) -> None:
    said = [joints("/joint_states", NOON + n * SECOND // 10, [n, -n]) for n in range(200)]
    whole = tmp_path / f"{compression}.bag"
    if not whole.exists():
        ros1(whole, said, compression)  # type: ignore[arg-type]
    content = whole.read_bytes()
    write(tmp_path / "raw/a.bag", content[: int(len(content) * cut)])
    (item,) = take(raw, "a.bag")
    if isinstance(item, Refused):
        assert item.reason.startswith(("truncated", "the bag has no index", "not a ROS 1 bag"))
        return
    count = len(item.streams["state"].t_ns)
    assert item.streams["state"].values[:, 0].tolist() == list(range(count)), "what is kept is what was recorded"
    assert any("no index" in note or note.startswith("truncated") for note in item.meta.notes)


def test_a_bag_without_its_index_keeps_everything_and_has_a_day(raw: Store, tmp_path: Path, take: Take) -> None:
    file = ros1(tmp_path / "raw/a.bag", TWO)
    content = bytearray(file.read_bytes())
    at = content.index(b"index_pos=") + len(b"index_pos=")
    content[at : at + 8] = struct.pack("<Q", 0)
    write(file, bytes(content))
    os.utime(file, ns=(NOON + 60 * SECOND, NOON + 60 * SECOND))
    found = take(raw, "a.bag")
    assert [len(item.streams["state"].t_ns) for item in found if isinstance(item, Taken)] == [20, 12]
    facts = Ros1Reader().peek(raw, gather(raw.list())["a.bag"])
    assert (facts.start_ns, facts.end_ns) == (TWO[0].log_ns, NOON + 60 * SECOND)


def test_chunks_are_read_in_the_order_of_their_times(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [joints("/joint_states", NOON + n * SECOND // 10, [n]) for n in range(40)]
    ros1(tmp_path / "raw/a.bag", said[20:] + said[:20], chunk_bytes=200)
    (item,) = take(raw, "a.bag")
    assert isinstance(item, Taken) and item.streams["state"].values[:, 0].tolist() == list(range(40))


def test_limits_are_named(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [joints("/joint_states", NOON + n * SECOND // 10, [n] * 50, tuple(str(k) for k in range(50))) for n in range(5)]
    ros1(tmp_path / "raw/a.bag", said)
    ros2(tmp_path / "raw/b", said, compression=CompressionMode.FILE)
    bomb = bytearray((tmp_path / "raw/a.bag").read_bytes())
    at = bomb.index(b"size=") + len(b"size=")
    bomb[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    write(tmp_path / "raw/bomb.bag", bytes(bomb))
    few = IngestSettings(limits=Limits(values=10, unpacked_mb=0, definition_kb=1))
    for path, limit in (("a.bag", "limits.values (10)"), ("b", "limits.unpacked_mb (0)"), ("bomb.bag", "limits.chunk_mb (1024)")):
        (item,) = take(raw, path, few if path != "bomb.bag" else None)
        assert isinstance(item, Refused) and limit in item.reason, (path, item)


def test_a_database_that_is_no_bag_or_hides_a_query_is_refused(raw: Store, tmp_path: Path, take: Take) -> None:
    (tmp_path / "raw").mkdir(exist_ok=True)
    with sqlite3.connect(tmp_path / "raw/other.db3") as database:
        database.execute("CREATE TABLE people (name TEXT)")
    with sqlite3.connect(tmp_path / "raw/view.db3") as database:
        database.execute("CREATE TABLE topics (id INTEGER, name TEXT, type TEXT, serialization_format TEXT)")
        database.execute("CREATE VIEW messages AS WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c) SELECT id, 1 AS topic_id FROM c")
    for name in ("other.db3", "view.db3"):
        (refused,) = take(raw, name)
        assert isinstance(refused, Refused) and "no tables `topics` and `messages`" in refused.reason


def test_foreign_definitions_do_not_fill_the_memory() -> None:
    nested = "=" * 80 + "\nMSG: acme/Point\nfloat64 x\n"
    empty = "=" * 80 + "\nMSG: acme/Nothing\n"
    for text in (
        f"acme/Point[900000000] points\n{nested}",
        f"acme/Nothing[] nothing\n{empty}",
        "acme/Thing again\n" + "=" * 80 + "\nMSG: acme/Thing\nacme/Thing again\n",
        "(((",
    ):
        schema = Schema(id=1, name="acme/Thing", encoding="ros1msg", data=text.encode())
        with pytest.raises(UNDECODABLE):
            Decoders(Limits()).find(Channel(id=1, topic="/t", message_encoding="ros1", metadata={}, schema_id=1), schema)(b"\0" * 64)


def test_a_message_of_text_only_says_its_topics(raw: Store, tmp_path: Path, take: Take) -> None:
    ros1(tmp_path / "raw/a.bag", [Said("/chatter", "std_msgs/msg/String", NOON, {"data": "hello"})])
    (refused,) = take(raw, "a.bag")
    assert refused == Refused("no joint states and no camera: topics were /chatter (std_msgs/String)", start_ns=NOON)


def test_bags_in_object_storage(moto_s3: StoreConfig, store: Store, tmp_path: Path) -> None:
    """Folders, parts and companions are found again by key, where nothing is a folder."""
    said = episode(steps=30, marked=False)
    ros2(tmp_path / "arm/rec", said)
    for number, part in enumerate((said[:45], said[45:])):
        ros1(tmp_path / f"arm/old_{number}.bag", part)
    raw = Store(moto_s3)
    for path in tmp_path.joinpath("arm").rglob("*.*"):
        raw.put_file(str(path.relative_to(tmp_path)), path)
    uploads = from_bytes(store.get(index(UploadsConfig(store=store.config, raw=moto_s3)).key))
    assert [(row["path"], row["format"], row["robot"]) for row in uploads] == [("arm/old_0.bag", "ros1", "arm"), ("arm/rec", "rosbag2", "arm")]
    rows = [row for upload in uploads for row in read_upload(store, raw, upload, IngestSettings())]
    assert [(row["status"], row["states"], row["frames"]) for row in rows] == [("ok", 30, 30)] * 2
    assert len({row["episode_id"] for row in rows}) == 1


@pytest.mark.parametrize("encoding", ["ros1msg", "ros2idl"])
def test_mcap_holds_ros1_and_idl_too(raw: Store, tmp_path: Path, take: Take, encoding: str) -> None:
    """What `mcap convert` makes of a ROS 1 bag, and what rosbag2 writes for types defined in IDL."""
    store = typestore(Stores.ROS1_NOETIC if encoding == "ros1msg" else Stores.ROS2_HUMBLE)
    if encoding == "ros1msg":
        name, text = "sensor_msgs/JointState", store.generate_msgdef("sensor_msgs/msg/JointState", ros_version=1)[0]
    else:
        name = "acme_msgs/msg/JointState"
        own = "module acme_msgs { module msg { struct JointState { sequence<string> name; sequence<double> position; }; }; };"
        other = "module acme_msgs { module msg { struct Other { double x; }; }; };"
        text = "".join(f"{'=' * 80}\nIDL: acme_msgs/msg/{title}\n{body}\n" for title, body in (("JointState", own), ("Other", other)))
        store.register(get_types_from_idl(own))
    sink = io.BytesIO()
    writer = McapWriter(sink)
    writer.start()
    channel = writer.register_channel("/joint_states", "ros1" if encoding == "ros1msg" else "cdr", writer.register_schema(name, encoding, text.encode()))
    for n in range(5):
        message = built(store, "sensor_msgs/msg/JointState" if encoding == "ros1msg" else name, {"name": ["a"], "position": [n]})
        data = store.serialize_ros1(message, message.__msgtype__) if encoding == "ros1msg" else store.serialize_cdr(message, message.__msgtype__)
        writer.add_message(channel, NOON + n, bytes(data), NOON + n)
    writer.finish()
    write(tmp_path / "raw/a.mcap", sink.getvalue())
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and item.meta.state_names == ("a",) and item.streams["state"].values[:, 0].tolist() == [0, 1, 2, 3, 4]
