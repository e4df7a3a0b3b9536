"""Which files make one upload: a table of names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.ingest.gather import gather
from ray_jobs.seam.store import Entry


def grouped(*keys: str) -> dict[str, list[str]]:
    entries = [Entry(key=key, size=1, etag="", modified_ns=0) for key in keys]
    return {path: [entry.key for entry in upload.files] for path, upload in gather(entries).items()}


CASES: dict[str, tuple[tuple[str, ...], dict[str, list[str]]]] = {
    "every file is one": (("a.mcap", "b/c.bag", "d.hdf5"), {"a.mcap": ["a.mcap"], "b/c.bag": ["b/c.bag"], "d.hdf5": ["d.hdf5"]}),
    "a set": (("s/meta/info.json", "s/data/x.parquet", "t.mcap"), {"s": ["s/data/x.parquet", "s/meta/info.json"], "t.mcap": ["t.mcap"]}),
    "a bag's folder": (
        ("r/metadata.yaml", "r/r_0.db3", "r/r_1.db3", "r/notes.txt"),
        {"r": ["r/metadata.yaml", "r/r_0.db3", "r/r_1.db3"], "r/notes.txt": ["r/notes.txt"]},
    ),
    "a bag's folder is not the folders below it": (("metadata.yaml", "a.mcap", "x/b.mcap"), {".": ["a.mcap", "metadata.yaml"], "x/b.mcap": ["x/b.mcap"]}),
    "metadata of something else": (("metadata.yaml", "x/a.mcap"), {"x/a.mcap": ["x/a.mcap"]}),
    "parts below their name": (("r/r_0.mcap", "r/r_1.mcap", "r/s_1.mcap"), {"r/r_0.mcap": ["r/r_0.mcap", "r/r_1.mcap"], "r/s_1.mcap": ["r/s_1.mcap"]}),
    "dated parts": (
        ("rosbag2_2025_09_10-13_03_56_0.mcap", "rosbag2_2025_09_10-13_03_56_1.mcap"),
        {"rosbag2_2025_09_10-13_03_56_0.mcap": ["rosbag2_2025_09_10-13_03_56_0.mcap", "rosbag2_2025_09_10-13_03_56_1.mcap"]},
    ),
    "parts of ROS 1 have each their own date": (
        ("x_2025-09-10-13-03-56_0.bag", "x_2025-09-10-13-04-56_1.bag"),
        {"x_2025-09-10-13-03-56_0.bag": ["x_2025-09-10-13-03-56_0.bag", "x_2025-09-10-13-04-56_1.bag"]},
    ),
    "episodes are counted, not split": (
        ("episode_0.bag", "episode_1.bag", "arm_0.mcap", "arm_1.mcap"),
        {k: [k] for k in ("episode_0.bag", "episode_1.bag", "arm_0.mcap", "arm_1.mcap")},
    ),
    "a part is missing": (("x_0.bag", "x_1.bag", "x_3.bag"), {"x_0.bag": ["x_0.bag", "x_1.bag"], "x_3.bag": ["x_3.bag"]}),
    "no beginning": (("x_1.bag", "x_2.bag"), {"x_1.bag": ["x_1.bag"], "x_2.bag": ["x_2.bag"]}),
    "a journal": (("a.db3", "a.db3-wal", "b.db3-wal"), {"a.db3": ["a.db3", "a.db3-wal"]}),
    "videos beside": (
        ("run.bag", "run.mp4", "run_wrist.mkv", "run_wrist_timestamps.csv", "run/top.mp4", "other.mp4", "run.txt"),
        {"run.bag": ["run.bag", "run.mp4", "run.txt", "run/top.mp4", "run_wrist.mkv", "run_wrist_timestamps.csv"], "other.mp4": ["other.mp4"]},
    ),
    "the longest name": (
        ("run.bag", "run_1.bag", "run_1.mp4", "run_1_top.mp4"),
        {"run.bag": ["run.bag"], "run_1.bag": ["run_1.bag", "run_1.mp4", "run_1_top.mp4"]},
    ),
    "a bag's videos": (("r/metadata.yaml", "r/r_0.db3", "r/top.mp4"), {"r": ["r/metadata.yaml", "r/r_0.db3", "r/top.mp4"]}),
    "a set's videos are its own": (("s/meta/info.json", "s/videos/a.mp4"), {"s": ["s/meta/info.json", "s/videos/a.mp4"]}),
    "unfinished": (("a.bag.part", ".a.bag", "b.bag"), {"b.bag": ["b.bag"]}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_names_decide(case: tuple[tuple[str, ...], dict[str, list[str]]]) -> None:
    keys, expected = case
    assert grouped(*keys) == expected


NAMES = st.sampled_from(["r", "r_0", "r_1", "ep_0", "s", "metadata", "top", "r_2025-01-01-00-00-00_0"])
ENDS = st.sampled_from([".bag", ".mcap", ".db3", ".db3-wal", ".yaml", ".mp4", ".csv", ".hdf5", ""])


@given(st.lists(st.builds(lambda folder, name, end: f"{folder}{name}{end}", st.sampled_from(["", "r/", "r/s/"]), NAMES, ENDS), unique=True))
def test_no_file_is_lost_or_counted_twice(keys: list[str]) -> None:
    """Every file is in one upload, but for companions of nothing."""
    found = [key for files in grouped(*keys).values() for key in files]
    assert len(found) == len(set(found))
    assert all(key.endswith((".db3-wal", "metadata.yaml")) for key in set(keys) - set(found))
