"""What a job leaves behind: closed.json, and the pointers that a step makes of it."""

from typing import Any, Literal

from ray_jobs.seam.errors import FailureClass
from ray_jobs.seam.layout import generations, pointer
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store


class Shown(Strict):
    """One metadata value that the Dagster UI shows. `md` may hold small data-URI pictures."""

    type: Literal["int", "float", "text", "md", "json", "url"]
    value: Any


class DayResult(Strict):
    """One day's result. `output_digest` hashes the content alone, so an unchanged result is recognised downstream."""

    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    counts: dict[str, int] = {}
    output: dict[str, Any] = {}
    output_digest: str = ""
    shown: dict[str, Shown] = {}


class Closed(Strict):
    """closed.json: written last by an execution, and the truth about it."""

    step: str
    execution: str
    days: dict[str, DayResult]
    seconds: float
    peak_memory_bytes: int


class JobError(Strict):
    """error.json: a job's own report of why it failed; it outranks the platform's guess."""

    failure_class: FailureClass
    message: str
    evidence: str = ""
    peak_memory_bytes: int = 0  # of the container, where its end was about memory


REPORT_MARK = "error.json: "  # before a JobError on a line of the log, where the store would not take it


class Pointer(Strict):
    """A published day of an asset: immutable; readers take the highest generation."""

    asset: str
    day: str
    generation: str
    run_id: str
    attempt: str | None = None
    execution: str | None = None
    inputs: dict[str, str] = {}
    input_digest: str = ""
    counts: dict[str, int] = {}
    output: dict[str, Any] = {}
    output_digest: str = ""
    shown: dict[str, Shown] = {}


def read_pointer(store: Store, asset: str, day: str) -> Pointer | None:
    """The current pointer of a day, or None where nothing was published."""
    names = generations(store, asset, day)
    if not names:
        return None
    return Pointer.model_validate_json(store.get(pointer(asset, day, names[-1])))
