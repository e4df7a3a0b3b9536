"""Each reader on mutated real files: a reason per file, and no crash, hang or lack of memory. See fuzzing.py."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.shared_data
EXAMPLES = {"ros1": 40, "mcap": 150, "rosbag2": 120, "hdf5": 200, "lerobot": 60}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_reader_survives_whatever_is_done_to_its_files(shared_data: Path, tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "tests.ingest.fuzzing", name, str(shared_data), str(tmp_path), str(EXAMPLES[name])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "'quarantined'" in done.stdout and "'ok'" in done.stdout, "some files are read and some are not"
