"""The seam, held by reading every import: who may import what."""

import ast
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "orchestration": ("ray", "torch", "vllm", "fleet"),
    "ray_jobs": ("dagster", "dagster_k8s", "dagster_webserver", "orchestration"),
    "fleet": ("dagster", "orchestration", "ray_jobs"),
    "ray_jobs/seam": ("ray", "torch", "vllm", "av", "mcap", "dagster_pipes", "mujoco", "ray_jobs.ingest", "ray_jobs.curation", "ray_jobs.packing"),
    "ray_jobs/curation": ("fleet",),
    "ray_jobs/ingest": ("fleet",),
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_nothing_reaches_across_the_seam(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        crossing = {name for name in imports(path) for bad in FORBIDDEN[package] if name == bad or name.startswith(bad + ".")}
        assert not crossing, f"{path.relative_to(ROOT)} imports {crossing}"


def test_orchestration_imports_only_the_seam_of_ray_jobs():
    for path in (ROOT / "orchestration").rglob("*.py"):
        beyond = {name for name in imports(path) if name.startswith("ray_jobs") and not name.startswith("ray_jobs.seam")}
        assert not beyond, f"{path.relative_to(ROOT)} imports {beyond}"


def test_what_few_runs_need_is_imported_when_it_is_needed() -> None:
    """Each run of Dagster's is a process of its own, which imports the definitions before its first step."""
    code = "import sys, definitions; print(*sorted({name.split('.')[0] for name in sys.modules} & {'kubernetes', 'matplotlib', 'pandas', 'scipy'}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []


def test_processes_here_start_and_end_as_those_of_the_images_do() -> None:
    """`make setup` has put deploy/images/collector.pth where Python reads it, as the Dockerfile does."""
    wanted = (ROOT / "deploy" / "images" / "collector.pth").read_text()
    assert (Path(sysconfig.get_path("purelib")) / "collector.pth").read_text() == wanted, "run `make setup`"
    done = subprocess.run([sys.executable, "-c", "import gc; print(*gc.get_threshold())"], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["50000", "10", "10"]
