"""The end of an attempt whose job is to be removed while the cluster does not yet listen, and of a step that something is raised into."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from dagster import DagsterExecutionInterruptedError

from orchestration.launching.effects import Delete, Denied, Effect, Job, ListKeys, Now, Observe, Program, RunStatus, Stop, Unreachable, Wait
from orchestration.launching.ending import REMOVE_BUDGET_S, end_attempt
from orchestration.launching.protocol import run_step
from orchestration.launching.shell import Ports, perform
from orchestration.launching.work import Ended, RunInfo, Work
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.store import Store

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


def test_a_job_is_removed_by_an_api_server_that_has_just_been_started() -> None:
    ended = Ended(failure_class=None, evidence="closed", at=0.0)
    assert play(end_attempt("b", 1, ended, 60.0), [Unreachable("it is starting")] * 4) == [Observe("b-a1"), Stop("b-a1", "u"), Delete("b-a1", "u")]


@pytest.mark.parametrize("refusals", [[Unreachable("503")] * int(REMOVE_BUDGET_S / 0.2), [Denied("401")]], ids=["silent for long", "denied"])
def test_what_is_refused_for_good_is_left_to_the_reconciler(refusals: list[Exception]) -> None:
    assert play(end_attempt("b", 1, Ended(failure_class=None, evidence="closed", at=0.0), 60.0), refusals) == []


def step() -> Program[object]:
    return run_step(Work("episodes", ("2026-01-05",), "m", lambda days: {}), RunInfo("r", "r", datetime(2026, 1, 6, tzinfo=UTC), False))


@pytest.mark.parametrize("raised", [DagsterExecutionInterruptedError(), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_an_interruption_ends_the_jobs_of_a_run_that_a_person_ended_and_goes_on(raised: BaseException) -> None:
    program, asked = step(), []
    effect = next(program)
    with pytest.raises(type(raised)) as told:
        effect = program.throw(raised)
        while True:
            asked.append(type(effect))
            effect = program.send({RunStatus: "CANCELING", ListKeys: []}.get(type(effect)))
    assert told.value is raised and asked == [RunStatus, ListKeys], "it looked for attempts to end, and there were none"


@pytest.mark.parametrize("raised", [StoreError("full"), Unreachable("silent"), ZeroDivisionError("a mistake of ours"), GeneratorExit()], ids=repr)
def test_what_is_no_interruption_is_told_and_settles_nothing(raised: Exception) -> None:
    program = step()
    next(program)
    with pytest.raises(type(raised)) as told:
        program.throw(raised)
    assert told.value is raised


def raising(raised: BaseException, seen: list[BaseException], store: Store) -> None:
    """Perform a program whose one effect raises; `seen` is what came to the program."""

    def status() -> str:
        raise raised

    def program() -> Program[None]:
        try:
            yield RunStatus()
        except type(raised) as error:
            seen.append(error)
            raise

    perform(program(), Ports(store, None, status))


@pytest.mark.parametrize(
    "raised", [DagsterExecutionInterruptedError(), KeyboardInterrupt(), SystemExit(1), StoreError("full"), Unreachable("silent")], ids=repr
)
def test_what_is_raised_in_an_effect_reaches_the_program_and_then_the_caller(raised: BaseException, store: Store) -> None:
    seen: list[BaseException] = []
    with pytest.raises(type(raised)) as told:
        raising(raised, seen, store)
    assert told.value is raised and seen == [raised]


def test_a_mistake_in_an_effect_reaches_the_caller_alone(store: Store) -> None:
    seen: list[BaseException] = []
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError(), seen, store)
    assert seen == []


def test_an_iterator_that_ends_in_an_effect_is_a_mistake_and_not_the_programs_result(store: Store) -> None:
    def status() -> str:
        return next(iter(()))

    def program() -> Program[str]:
        return (yield RunStatus())

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        perform(program(), Ports(store, None, status))
