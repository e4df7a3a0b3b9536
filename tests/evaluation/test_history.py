"""The champion's history: what follows from it, what a person's move means, and runs that race."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.evaluation.history import (
    CURRENT,
    Move,
    before_last,
    champion,
    current_champion,
    obey,
    output_of,
    place_after,
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


def test_what_a_person_rolled_back_from_stays_withdrawn_until_a_person_promotes_it() -> None:
    chain = [gate("1", "a", None), gate("2", "b", "a"), hand("3", "rollback", "a", "b"), gate("5", "d", "a")]
    assert champion([]) is None and champion(chain) == "d"
    assert set(withdrawn(chain)) == {"b"}
    promoted = [*chain, hand("6", "promote", "b", "d")]
    assert champion(promoted) == "b" and not withdrawn(promoted)


def test_where_a_rollback_goes() -> None:
    chain = [gate("1", "a", None), gate("2", "b", "a"), gate("3", "c", "b")]
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
        ("b", True, "b", CHAIN, False, True, "good; it is the champion already"),
        ("b", True, "a", [*CHAIN, hand("3", "rollback", "a", "b")], False, False, "rolled back by a person: because; the job `promote` overrules that"),
    ],
)
def test_what_the_champion_does_about_a_verdict(
    model: str, promote: bool, against: str | None, chain: list[Move], moves: bool, promoted: bool, said: str
) -> None:
    obeyed = obey(DAY, judged(model, promote), against, chain, "9")
    assert (obeyed.move is not None, obeyed.promoted) == (moves, promoted)
    assert said in "; ".join(obeyed.reasons)


def test_a_step_that_died_after_its_move_says_the_same_when_it_is_done_again() -> None:
    first = obey(DAY, judged("c"), "b", CHAIN)
    assert first.move
    again = obey(DAY, judged("c"), "b", [*CHAIN, first.move])
    assert again == replace(first, move=None) and again.before == "b"
    other = obey("2026-01-06", judged("c"), "b", [*CHAIN, first.move])
    assert "already" in other.reasons[-1] and other.before == "c", "another day did not move it"


def test_what_is_published_is_read_back(store: Store) -> None:
    moves = [gate("20260105T090000.000001Z-aaaa", "models/a", None), hand("20260106T090000.000001Z-bbbb", "promote", "models/b", "models/a")]
    for number, move in enumerate(moves):
        made = Pointer(asset="champion", day=CURRENT, generation=move.generation, run_id="", output=output_of(move))
        assert store.create(pointer("champion", CURRENT, place_after(moves[:number])), made.model_dump_json().encode())
    assert read_moves(store) == moves
    assert current_champion(store) == "models/b"
    store.put(pointer("champion", CURRENT, "20251231T090000.000001Z-cccc"), store.get(pointer("champion", CURRENT, place_after([]))))
    assert [move.model for move in read_moves(store)] == ["models/a", "models/a", "models/b"], "it comes before"
    assert moves[0].when is not None and moves[0].when.day == 5


@dataclass
class Told:
    promoted: bool | None = None


def run(chain: list[Move], generation: str, model: str, against: str | None, told: Told) -> Iterator[None]:
    """The champion step, one store access at a time. chain: the store, in which a place is given once."""
    while True:
        seen = list(chain)
        yield
        obeyed = obey(DAY, judged(model), against, seen, generation)
        told.promoted = obeyed.promoted
        if not obeyed.move:
            return
        if place_after(seen) == place_after(chain):
            chain.append(obeyed.move)
            yield
            return


def person(chain: list[Move], model: str) -> Iterator[None]:
    """By hand, and again where the gate was first."""
    while True:
        seen = list(chain)
        yield
        if place_after(seen) == place_after(chain):
            chain.append(hand("9", "promote", model, champion(seen)))
            return


@given(st.permutations(["2", "3", "4"]), st.lists(st.integers(0, 3), max_size=20), st.lists(st.sampled_from(["a", "x", "p", None]), min_size=3, max_size=3))
def test_runs_that_race_never_crown_a_policy_that_was_not_compared_with_its_predecessor(
    generations: list[str], order: list[int], against: list[str | None]
) -> None:
    chain = [gate("1", "a", None)]
    told = [Told() for _ in generations]
    runs = [run(chain, generation, f"m{number}", against[number], told[number]) for number, generation in enumerate(generations)]
    steps = [*runs, person(chain, "p")]
    for number in [*order, *(number for _ in range(9) for number in range(4))]:
        next(steps[number], None)
    judgements = {f"m{number}": against[number] for number in range(3)}
    for before, move in zip([None, *chain], chain, strict=False):
        assert move.before == (before.model if before else None)
        assert move.model not in judgements or judgements[move.model] == move.before, "crowned by a verdict about another champion"
    crowned = {move.model for move in chain} & set(judgements)
    assert crowned == {f"m{number}" for number in range(3) if told[number].promoted}, "what a run was told stays true"
    assert sum(move.model == "p" for move in chain) == 1, "a person gets through"
