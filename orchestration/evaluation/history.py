"""The champion's history: every move that a run or a person published, in order, and what follows for the next one.

A run moves the champion by a verdict about two policies, and two runs may both have judged against the same champion. So the moves are a
chain: each is published at the place after those that the mover read, and one mover alone gets a place. Whoever loses reads the chain
again and decides anew. So no policy ever follows one that it was not compared with, and what a run was told of its move stays true.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ray_jobs.seam.layout import generations, pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store

CURRENT = "current"  # partitions/champion/current/<place>.json
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
    """The chain, oldest first."""
    keys = [pointer("champion", CURRENT, name) for name in generations(store, "champion", CURRENT)]
    return [move_of(Pointer.model_validate_json(store.get(key))) for key in keys]


def place_after(chain: Sequence[Move]) -> str:
    """Where the next move is published. Places sort as text, and after the generations by which moves were named once."""
    return f"move-{len(chain) + 1:06d}"


def champion(chain: Sequence[Move]) -> str | None:
    """None before the first move."""
    return chain[-1].model if chain else None


def current_champion(store: Store) -> str | None:
    """The champion's model prefix, or None before the first."""
    return champion(read_moves(store))


def champion_before(store: Store, day: str) -> str | None:
    """The champion that the gate made of earlier days, or a person of any: what a policy of the day may go on from, whoever won since."""
    return champion([move for move in read_moves(store) if move.day is None or move.day < day])


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
    """What the champion step does about a verdict. move: None where the champion stays; promoted: whether the day's policy is the champion now.

    before: the champion that the verdict met.
    """

    move: Move | None
    promoted: bool
    reasons: tuple[str, ...]
    before: str | None


def obey(day: str, judged: Mapping[str, Any], against: str | None, chain: Sequence[Move], generation: str = "", run_id: str = "") -> Obeyed:
    """Pure. judged: the output of the day's evaluation; against: the champion that it was compared with."""
    reasons = tuple(judged.get("reasons", ("nothing was evaluated",)))
    now = champion(chain)
    if not judged.get("promote"):
        return Obeyed(None, False, reasons, now)
    model = judged["model"]
    if model == now:
        last = chain[-1]
        if (last.how, last.day, last.before) == ("gate", day, against):  # this verdict's own move, by a step that died before it could publish its day
            return Obeyed(None, True, reasons, last.before)
        return Obeyed(None, True, (*reasons, "it is the champion already"), now)
    if rolled := withdrawn(chain).get(model):
        return Obeyed(None, False, (f"rolled back by a person: {'; '.join(rolled.reasons)}; the job `promote` overrules that", *reasons), now)
    if against != now:
        stale = f"judged against {against or 'no champion'}, and the champion is {now or 'none'} since: materialize `evaluation` again"
        return Obeyed(None, False, (stale,), now)
    return Obeyed(Move(generation, model, now, "gate", reasons, day, run_id), True, reasons, now)
