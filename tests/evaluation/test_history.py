"""The champion's history: which moves count, what a person's move means, and two runs that race."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.evaluation.history import (
    CURRENT,
    Move,
    after_publishing,
    before_last,
    champion,
    counted,
    current_champion,
    obey,
    output_of,
    read_moves,
    withdrawn,
)
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store

DAY = "2026-01-05"


def gate(generation: str, model: str, before: str | None) -> Move:
    return Move(generation, model, before, "gate", ("good",), DAY)


def hand(generation: str, how: str, model: str, before: str | None) -> Move:
    return Move(generation, model, before, how, ("because",))  # type: ignore[arg-type]


def judged(model: str, promote: bool = True) -> dict[str, object]:
    return {"model": model, "promote": promote, "reasons": ["good" if promote else "bad"]}


def test_a_move_counts_only_where_it_was_judged_against_the_champion_of_that_time() -> None:
    moves = [gate("1", "a", None), gate("2", "b", "a"), gate("3", "c", "a"), gate("4", "d", "b")]
    assert [move.model for move in counted(moves)] == ["a", "b", "d"]
    assert champion(counted([])) is None


def test_a_persons_move_always_counts_and_undoes_what_was_before() -> None:
    chain = counted([gate("1", "a", None), gate("2", "b", "a"), hand("3", "rollback", "a", "b"), gate("4", "c", "b"), gate("5", "d", "a")])
    assert [move.model for move in chain] == ["a", "b", "a", "d"]
    assert set(withdrawn(chain)) == {"b"}
    promoted = counted([*chain, hand("6", "promote", "b", "d")])
    assert champion(promoted) == "b" and not withdrawn(promoted)


def test_where_a_rollback_goes() -> None:
    chain = counted([gate("1", "a", None), gate("2", "b", "a"), gate("3", "c", "b")])
    assert before_last(chain) == "b"
    assert before_last([*chain, hand("4", "rollback", "b", "c")]) == "a", "not to the one that was left"
    assert before_last(chain[:1]) is None and before_last([]) is None


CHAIN = [gate("1", "a", None), gate("2", "b", "a")]


@pytest.mark.parametrize(
    ("model", "promote", "against", "chain", "moves", "promoted", "said"),
    [
        ("c", True, "b", CHAIN, True, True, "good"),
        ("c", False, "b", CHAIN, False, False, "bad"),
        ("c", True, "a", CHAIN, False, False, "judged against a, and the champion is b since: materialize `evaluation` again"),
        ("c", True, None, CHAIN, False, False, "judged against no champion"),
        ("c", True, None, [], True, True, "good"),
        ("b", True, "b", CHAIN, False, True, "it is the champion already"),
        ("b", True, "a", [*CHAIN, hand("3", "rollback", "a", "b")], False, False, "rolled back by a person: because; the job `promote` overrules that"),
    ],
)
def test_what_the_champion_does_about_a_verdict(
    model: str, promote: bool, against: str | None, chain: list[Move], moves: bool, promoted: bool, said: str
) -> None:
    obeyed = obey(DAY, judged(model, promote), against, chain, "9")
    assert (obeyed.move is not None, obeyed.promoted) == (moves, promoted)
    assert said in "; ".join(obeyed.reasons)


def test_what_is_published_is_read_back(store: Store) -> None:
    moves = [gate("20260105T090000.000001Z-aaaa", "models/a", None), hand("20260106T090000.000001Z-bbbb", "promote", "models/b", "models/a")]
    for move in moves:
        made = Pointer(asset="champion", day=CURRENT, generation=move.generation, run_id="", output=output_of(move))
        store.put(pointer("champion", CURRENT, move.generation), made.model_dump_json().encode())
    assert read_moves(store) == moves
    assert current_champion(store) == "models/b"
    assert moves[0].when is not None and moves[0].when.day == 5


@dataclass
class Shelf:
    """A store in which a generation is written once, and one lower than what was seen there is not written at all, as publishing does."""

    moves: dict[str, Move] = field(default_factory=dict)

    def read(self) -> list[Move]:
        return [move for _, move in sorted(self.moves.items())]


@dataclass
class Told:
    promoted: bool | None = None


def run(shelf: Shelf, generation: str, model: str, against: str | None, told: Told) -> Iterator[None]:
    """The champion step, one store access at a time."""
    chain = counted(shelf.read())
    yield
    obeyed = obey(DAY, judged(model), against, chain, generation)
    if obeyed.move:
        seen = sorted(shelf.moves)
        yield
        if not seen or seen[-1] < generation:
            shelf.moves[generation] = obeyed.move
            yield
    told.promoted = after_publishing(obeyed, shelf.read()).promoted
    yield


@settings(deadline=None)
@given(st.permutations(["2", "3", "4"]), st.lists(st.integers(0, 2), max_size=20), st.lists(st.sampled_from(["a", "x", None]), min_size=3, max_size=3))
def test_runs_that_race_never_crown_a_policy_that_was_not_compared_with_its_predecessor(
    generations: list[str], order: list[int], against: list[str | None]
) -> None:
    shelf = Shelf({"1": gate("1", "a", None)})
    told = [Told() for _ in generations]
    judgements = {f"m{number}": against[number] for number in range(3)}
    runs = [run(shelf, generation, f"m{number}", against[number], told[number]) for number, generation in enumerate(generations)]
    for number in [*order, *(number for _ in range(6) for number in range(3))]:
        next(runs[number], None)
    chain = counted(shelf.read())
    for before, move in zip([None, *chain], chain, strict=False):
        assert move.before == (before.model if before else None)
        assert move.model == "a" or judgements[move.model] == move.before, "crowned by a verdict about another champion"
    crowned = {move.model for move in chain}
    assert champion(chain) in crowned
    if "a" in against:
        assert len(crowned) >= 2, "one of those judged against the champion gets through"
    lost = [f"m{number}" for number in range(3) if told[number].promoted is False]
    assert not crowned & set(lost), "whoever was told no is not the champion"
