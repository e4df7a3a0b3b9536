"""`python -m tests.ingest.fuzzing FORMAT SHARED_DATA FOLDER EXAMPLES`: mutated real files through index and ingest, in this process.

Whatever is done to a file: a row per file with a reason, within seconds, within 1 GiB more memory, and no exception. A
crash, a hang or a lack of memory ends this process, which the test that runs it sees; the last printed line is the example.
"""

import os
import resource
import shutil
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ray_jobs.ingest.gather import gather
from ray_jobs.ingest.index import describe
from ray_jobs.ingest.job import read_upload
from ray_jobs.seam.configs import IngestSettings, Limits
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.seam.tables import UPLOADS, to_bytes
from tests.ingest.bags import odometry, ros2, twist
from tests.ingest.recorded import NOON, SECOND, episode
from tests.ingest.test_hdf5_reader import aloha

PATIENCE_S = 20
MEMORY_BYTES = 1 << 30
SETTINGS = IngestSettings(limits=Limits(chunk_mb=64, message_mb=32, picture_mpx=8, episode_mb=64, document_mb=16, unpacked_mb=64))

# What the recordings of each format are: from the shared data, or written by the libraries where it holds none.
Make = Callable[[Path, Path], None]


def copied(*paths: str) -> Make:
    def make(shared: Path, root: Path) -> None:
        for path in paths:
            source, target = shared / path, root / Path(path).name
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copyfile(source, target)

    return make


def databases(shared: Path, root: Path) -> None:
    ros2(root / "robot", episode(steps=20))
    mobile = [odometry("/odom", NOON + n * SECOND // 20, n / 20) for n in range(40)] + [twist("/cmd_vel", NOON + n * SECOND // 20, 1.0, 0.0) for n in range(40)]
    ros2(root / "mobile", mobile)
    shutil.copyfile(root / "mobile/mobile.db3", root / "lone.db3")


def hdf5(shared: Path, root: Path) -> None:
    copied("hdf5-robosuite-human-demos/wipe/panda/demo.hdf5")(shared, root)
    aloha(root / "raw.hdf5")
    aloha(root / "padded.hdf5", "padded")


FORMATS: dict[str, Make] = {
    "ros1": copied("damaged-bags/rosbagjs/example-lz4.bag", "damaged-bags/rosbagjs/example-bz2.bag", "damaged-bags/rosbagjs/example-unsorted-chunks.bag"),
    "mcap": copied("damaged-bags/rosbags-rs-no-summary/test_bag_mcap", "damaged-bags/tiryoh/test_sample.mcap"),
    "rosbag2": databases,
    "hdf5": hdf5,
    "lerobot": copied("lerobot30-so101-frozen-sim"),
}

# What once ended in an exception, replayed first: (end of the file's name, plan).
FOUND: dict[str, list[tuple[str, list[tuple[str, float, bytes]]]]] = {
    "mcap": [
        ("test_sample.mcap", [("swap", 0.12232879816404377, b"../../../etc/passwd")]),  # a length beyond what can be sought
        ("test_bag_mcap.mcap", [("swap", 0.45680944121378964, b"NaN")]),  # a length beyond what there is
    ],
    "hdf5": [("hdf5", [("put", 0.3785686256283193, b"\xff" * 8), ("head", 0.08059297749055673, b"\xff\xff\xff\x7f")])],  # a root without its list
    "rosbag2": [("robot.db3", [("head", 0.5625097892755694, b"\xff" * 4), ("put", 0.10744346556059162, b"\xff" * 4)])],  # an error text that is no UTF-8
}

NUMBERS = [b"\0" * 4, b"\xff" * 4, b"\xff" * 8, b"\0" * 8, struct.pack("<I", 0x7FFFFFFF), struct.pack("<Q", 1 << 40), struct.pack("<d", 1e300), b"\x80"]
TEXTS = [b"../../../etc/passwd", b"{0.__class__}", b"[[[[[[[[", b'"', b"1e999", b"-1", b"99999999999999999999", b"null", b"NaN"]
PUT = st.tuples(st.just("put"), st.floats(0, 1), st.one_of(st.sampled_from(NUMBERS), st.binary(min_size=1, max_size=16)))
OTHERS = (
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(b"")),
    st.tuples(st.just("swap"), st.floats(0, 1), st.sampled_from(TEXTS)),
    st.tuples(st.just("head"), st.floats(0, 1), st.sampled_from(NUMBERS)),
    st.tuples(st.just("drop"), st.floats(0, 1), st.just(b"x" * 64)),
)
mutations = st.one_of(st.lists(PUT, min_size=1, max_size=6), st.lists(st.one_of(PUT, *OTHERS), min_size=1, max_size=3))  # most containers survive some puts


def mutated(data: bytes, plan: list[tuple[str, float, bytes]]) -> bytes:
    """head: within the first 2 KiB, where the containers keep their counts and offsets."""
    for kind, share, what in plan:
        at = int(share * (min(len(data), 2048) if kind == "head" else len(data)))
        if kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + len(what) :]
        elif kind == "swap":
            data = data[:at] + what + data[at:]
        else:
            data = data[:at] + what + data[at + len(what) :]
    return data


def main(name: str, shared: Path, folder: Path, examples: int) -> None:
    root = folder / "raw"
    root.mkdir(parents=True)
    FORMATS[name](shared, root)
    raw, store = Store(StoreConfig.local(root)), Store(StoreConfig.local(folder / "store"))
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("LICENSE"))
    read(raw, store)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 2 * MEMORY_BYTES, held + 2 * MEMORY_BYTES))
    signal.signal(signal.SIGALRM, late)
    seen: dict[str, int] = {}

    def one(file: Path, plan: Any) -> None:
        print(file.relative_to(root), plan, flush=True)
        whole = file.read_bytes()
        try:
            file.write_bytes(mutated(whole, plan))
            signal.alarm(PATIENCE_S)
            for status in read(raw, store, file):
                seen[status] = seen.get(status, 0) + 1
        finally:
            signal.alarm(0)
            file.write_bytes(whole)

    for end, plan in FOUND.get(name, ()):
        for file in files:
            if file.name.endswith(end):
                one(file, plan)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(which=st.integers(0, len(files) - 1), plan=mutations)
    def fuzz(which: int, plan: Any) -> None:
        one(files[which], plan)

    fuzz()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < MEMORY_BYTES, f"memory grew by {grown} bytes"
    print(f"rows: {seen}, memory grew by {grown >> 20} MiB")


def late(*given: Any) -> None:
    print(f"a file took more than {PATIENCE_S} s", flush=True)
    os._exit(3)


def read(raw: Store, store: Store, changed: Path | None = None) -> list[str]:
    """The statuses of every row of the upload that holds the changed file, or of all."""
    found = []
    for upload in gather(raw.list()).values():
        assert raw.root is not None
        if changed is not None and str(changed.relative_to(raw.root)) not in {entry.key for entry in upload.files}:
            continue
        row = describe(raw, upload, SETTINGS)
        to_bytes([row], UPLOADS)
        rows = read_upload(store, raw, row, SETTINGS) if row["status"] == "ok" else [row]
        assert rows and all(each["status"] == "ok" or each["reason"] for each in rows)
        found += [each["status"] for each in rows]
    return found


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
