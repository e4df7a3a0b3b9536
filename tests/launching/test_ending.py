"""The end of an attempt whose job is to be removed while the cluster does not yet listen."""

from collections.abc import Iterable

import pytest

from orchestration.launching.effects import Delete, Denied, Effect, Job, Now, Observe, Program, Stop, Unreachable, Wait
from orchestration.launching.ending import REMOVE_BUDGET_S, end_attempt
from orchestration.launching.work import Ended

JOB = Job("b-a1", "u", "running", {"base": "b", "number": "1"})


def play(program: Program[None], refusals: Iterable[Exception]) -> list[Effect]:
    """The cluster's answers to the first effects that ask it are `refusals`, and then it does what it is asked. -> what it did."""
    left, did, now = list(refusals), [], 0.0
    effect = next(program, None)
    while effect is not None:
        match effect:
            case Observe() | Stop() | Delete() if left:
                refusal = left.pop(0)
                try:
                    effect = program.throw(refusal)
                except StopIteration:
                    return did
                continue
            case Observe():
                did.append(effect)
                reply: object = JOB
            case Now():
                reply = now
            case Wait(seconds):
                now += seconds
                reply = None
            case Stop() | Delete():
                did.append(effect)
                reply = None
            case _:  # of the store: nothing is recorded yet, and what is written is kept
                reply = None
        try:
            effect = program.send(reply)
        except StopIteration:
            return did
    return did


@pytest.mark.parametrize("refusal", [Unreachable("503"), Denied("403, for it has not read the roles yet")], ids=["silent", "starting"])
def test_a_job_is_removed_by_an_api_server_that_has_just_been_started(refusal: Exception) -> None:
    ended = Ended(failure_class=None, evidence="closed", at=0.0)
    assert play(end_attempt("b", 1, ended, 60.0), [refusal] * 4) == [Observe("b-a1"), Stop("b-a1", "u"), Delete("b-a1", "u")]


@pytest.mark.parametrize("refusal", [Unreachable("503"), Denied("401")])
def test_what_is_refused_for_good_is_left_to_the_reconciler(refusal: Exception) -> None:
    assert play(end_attempt("b", 1, Ended(failure_class=None, evidence="closed", at=0.0), 60.0), [refusal] * int(REMOVE_BUDGET_S / 0.2)) == []
