"""No asset and no job may know what was planted: the checks must find it out."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.defects import DEFECTS
from fleet.record import record_day

ROOT = Path(__file__).parents[2]
PRIVATE = {"fleet.truth", "fleet.defects", "fleet.damage", "fleet.record", "fleet.expert", "fleet.mcap_log"}
# What a simulator is to an evaluation; nothing of it tells what was planted.
PUBLIC = {"fleet", "fleet.arm", "fleet.render", "fleet.rollout", "fleet.levels"}
ORDINARY = {"idle", "blur"}  # four letters that chance writes; and an option of x264, which writes all of them into its stream


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


# The command that lets the fleet record, as a robot would, is neither an asset nor a job: it may start recording, and no more.
RECORDERS = {ROOT / "orchestration" / "cli.py": {"fleet.record"}}


def test_no_asset_and_no_job_imports_what_knows_the_truth() -> None:
    paths = sources("ray_jobs", "orchestration")
    assert len(paths) > 10
    forbidden = {str(path): sorted((imported(path) & PRIVATE) - RECORDERS.get(path, set())) for path in paths}
    assert {path: names for path, names in forbidden.items() if names} == {}


def test_curation_does_not_know_the_simulator_nor_the_simulator_curation() -> None:
    for path in sources("ray_jobs/curation", "orchestration/curation"):
        assert not [name for name in imported(path) if name.split(".")[0] == "fleet"], path
    for path in sources("fleet"):
        assert not [name for name in imported(path) if name.split(".")[0] in ("ray_jobs", "orchestration", "dagster", "ray", "torch")], path


def test_no_asset_and_no_job_reads_the_truth_by_another_name() -> None:
    for path in sources("ray_jobs", "orchestration"):
        text = path.read_text(encoding="utf-8")
        assert "read_truth" not in text and "TruthRow" not in text, path


def test_the_simulator_of_an_evaluation_loads_nothing_that_knows_the_truth() -> None:
    """Importing what the evaluation uses does not import the rest behind its back."""
    code = "import sys, fleet.rollout; print(' '.join(sorted(name for name in sys.modules if name.split('.')[0] == 'fleet')))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert set(loaded) == PUBLIC


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret")
    record_day(folder / "raw", folder / "truth", "2026-01-06", ("arm-1",), episodes_per_robot=5, damaged=1.0)
    assert any((folder / "truth").rglob("*.json"))
    return folder / "raw"


def test_nothing_in_raw_tells_the_damage(raw: Path) -> None:
    """Neither the names of the files nor what they hold name a defect, or differ in kind between damaged and sound episodes."""
    for path in raw.rglob("*"):
        assert path.is_dir() or path.suffix == ".mcap"
        assert not any(name in path.name for name in DEFECTS)
        if path.is_file():
            content = path.read_bytes()
            assert not any(name.encode() in content for name in DEFECTS.keys() - ORDINARY) and b"severity" not in content
