"""What was really planted. Only the report on detection reads it; it lies outside the raw store, and no asset or job opens it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class TruthRow:
    """One recorded episode. file: its upload, relative to raw; episode: its number in the episode markers; start_ns: UTC, before any clock step.

    defect: a name of fleet.defects.DEFECTS, or None. Of a duplicate upload the copy carries the defect and `duplicate_of`, and either of the two may
    be the one that is kept. A copy of an episode that is damaged itself carries that damage's name nowhere: look at the original's row.
    success: whether the block lay on the target in the end, which no recording says.
    """

    robot: str
    day: str
    file: str
    episode: int
    start_ns: int
    end_ns: int
    steps: int
    success: bool
    defect: str | None = None
    severity: str | None = None
    duplicate_of: str | None = None


def write_truth(truth: Path, file: str, rows: list[TruthRow]) -> None:
    """One JSON document per upload, so that robots which record at once never share one."""
    path = truth / f"{file}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read_truth(truth: Path) -> list[TruthRow]:
    """Every row below `truth`, in order of file and episode."""
    return [TruthRow(**row) for path in sorted(truth.rglob("*.mcap.json")) for row in json.loads(path.read_text())]
