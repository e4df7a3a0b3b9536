"""Publishing a day: one immutable object per generation, and readers take the highest. Nothing is compared and swapped.

What follows from what was published before (the champion) is a chain instead: its places are numbered, and one run alone gets each.
"""

from orchestration.launching.effects import Create, ListKeys, Program, Read, RunStatus, Write
from orchestration.launching.patience import patiently
from ray_jobs.seam import layout
from ray_jobs.seam.errors import FailureClass, FlywheelError
from ray_jobs.seam.results import Pointer

ALIVE = "STARTED"
STOPPED_BY_A_PERSON = frozenset({"CANCELING", "CANCELED", "NOT_FOUND"})


class NotOurs(FlywheelError):
    """The run this step belongs to is over, or was never begun: nothing more may be done in its name."""

    failure_class: FailureClass = "cancelled"

    def __init__(self, status: str):
        super().__init__(f"this step's run is {status}, so it does nothing more; a later run carries on from what the store holds")
        self.status = status


def still_ours(budget_s: float) -> Program[None]:
    """Re-read our own run; only STARTED goes on. Raises NotOurs."""
    status: str = yield from patiently(RunStatus(), budget_s)
    if status != ALIVE:
        raise NotOurs(status)


def current(asset: str, day: str, budget_s: float) -> Program[Pointer | None]:
    """The highest pointer of a day."""
    names = yield from _generations(asset, day, budget_s)
    if not names:
        return None
    data: bytes | None = yield from patiently(Read(layout.pointer(asset, day, names[-1])), budget_s)
    return None if data is None else Pointer.model_validate_json(data)


def publishing(pointer: Pointer, budget_s: float) -> Program[Pointer]:
    """Publish, once. -> the pointer that now counts: ours (as it was first written), or a higher generation's."""
    asset, day, generation = pointer.asset, pointer.day, pointer.generation
    names = yield from _generations(asset, day, budget_s)
    if not names or (generation not in names and names[-1] < generation):
        yield from still_ours(budget_s)
        yield from patiently(Write(layout.pointer(asset, day, generation), pointer.model_dump_json().encode()), budget_s)
    counts = yield from current(asset, day, budget_s)
    return counts or pointer


def publishing_next(pointer: Pointer, place: str, budget_s: float) -> Program[bool]:
    """Publish at a place of a chain. -> whether it is ours; another run may have been first."""
    yield from still_ours(budget_s)
    ours: bool = yield from patiently(Create(layout.pointer(pointer.asset, pointer.day, place), pointer.model_dump_json().encode()), budget_s)
    return ours


def _generations(asset: str, day: str, budget_s: float) -> Program[list[str]]:
    prefix = layout.pointer_prefix(asset, day) + "/"
    keys: list[str] = yield from patiently(ListKeys(prefix), budget_s)
    names = (key.removeprefix(prefix) for key in keys)
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json") and "/" not in name)
