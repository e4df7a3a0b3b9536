"""The champion's history: every move that a run or a person published, which of them count, and what follows for the next one.

A run moves the champion by a verdict about two policies. Two runs may both have judged against the same champion and both publish. Nothing is
compared and swapped; instead a reader goes through the publications in order of their generations, and a gate's move counts only where the
champion was then the one that the verdict was about. So whoever reads the same publications sees the same champion, and no policy
ever follows one that it was not compared with. A person's move always counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ray_jobs.seam.layout import generations, pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store

CURRENT = "current"  # partitions/champion/current/<generation>.json
How = Literal["gate", "promote", "rollback"]


@dataclass(frozen=True)
class Move:
    """model, before: prefixes in the store; before is the champion that the mover saw. day: whose evaluation it was, for a gate's move."""

    generation: str
    model: str
    before: str | None
    how: How
    reasons: tuple[str, ...]
    day: str | None = None
    run_id: str = ""

    @property
    def when(self) -> datetime | None:
        """When the run that moved was created (UTC); None for a generation that is no time."""
        try:
            return datetime.strptime(self.generation.split("-")[0], "%Y%m%dT%H%M%S.%fZ")
        except ValueError:
            return None


def output_of(move: Move) -> dict[str, Any]:
    """What a publication of the move holds."""
    return {"model": move.model, "before": move.before, "promoted": True, "how": move.how, "reasons": list(move.reasons), "day": move.day}


def move_of(published: Pointer) -> Move:
    told = published.output
    return Move(published.generation, told["model"], told["before"], told.get("how", "gate"), tuple(told.get("reasons", ())), told.get("day"), published.run_id)


def read_moves(store: Store) -> list[Move]:
    """Every publication, oldest generation first."""
    keys = [pointer("champion", CURRENT, name) for name in generations(store, "champion", CURRENT)]
    return [move_of(Pointer.model_validate_json(store.get(key))) for key in keys]


def counted(moves: Sequence[Move]) -> list[Move]:
    """Those that count, oldest first: a person's, and a gate's that was judged against the champion of that time."""
    chain: list[Move] = []
    for move in moves:
        if move.how != "gate" or move.before == champion(chain):
            chain.append(move)
    return chain


def champion(chain: Sequence[Move]) -> str | None:
    """Of moves that count, or None before the first."""
    return chain[-1].model if chain else None


def current_champion(store: Store) -> str | None:
    """The champion's model prefix, or None before the first."""
    return champion(counted(read_moves(store)))


def champion_before(store: Store, day: str) -> str | None:
    """The champion that the gate made of earlier days, or a person of any: what a policy of the day may go on from, whoever won since."""
    return champion([move for move in counted(read_moves(store)) if move.day is None or move.day < day])


def withdrawn(chain: Sequence[Move]) -> dict[str, Move]:
    """Models that a person rolled back from, and the move that did it, unless a person promoted them since."""
    found: dict[str, Move] = {}
    for move in chain:
        if move.how == "rollback" and move.before:
            found[move.before] = move
        if move.how != "gate":
            found.pop(move.model, None)
    return found


def before_last(chain: Sequence[Move]) -> str | None:
    """Where a rollback goes: the last other champion that nobody rolled back from. None where there is none."""
    bad = withdrawn(chain)
    return next((move.model for move in reversed(chain) if move.model != champion(chain) and move.model not in bad), None)


@dataclass(frozen=True)
class Obeyed:
    """What the champion step does about a verdict. move: None where the champion stays; promoted: whether the day's policy is the champion now."""

    move: Move | None
    promoted: bool
    reasons: tuple[str, ...]


def obey(day: str, judged: Mapping[str, Any], against: str | None, chain: Sequence[Move], generation: str = "", run_id: str = "") -> Obeyed:
    """Pure. judged: the output of the day's evaluation; against: the champion that it was compared with."""
    reasons = tuple(judged.get("reasons", ("nothing was evaluated",)))
    now = champion(chain)
    if not judged.get("promote"):
        return Obeyed(None, False, reasons)
    model = judged["model"]
    if model == now:
        return Obeyed(None, True, (*reasons, "it is the champion already"))
    if rolled := withdrawn(chain).get(model):
        return Obeyed(None, False, (f"rolled back by a person: {'; '.join(rolled.reasons)}; the job `promote` overrules that", *reasons))
    if against != now:
        return Obeyed(None, False, (f"judged against {against or 'no champion'}, and the champion is {now or 'none'} since: materialize `evaluation` again",))
    return Obeyed(Move(generation, model, now, "gate", reasons, day, run_id), True, reasons)


def after_publishing(obeyed: Obeyed, moves: Sequence[Move]) -> Obeyed:
    """What really came of a published move, seen from all publications: another run may have been first."""
    if obeyed.move is None:
        return obeyed
    chain = counted(moves)
    if any(move.generation == obeyed.move.generation for move in chain):
        return obeyed
    now = champion(chain)
    return Obeyed(None, False, (f"another run moved the champion to {now} at the same time, and this policy was not compared with it: evaluate again",))
