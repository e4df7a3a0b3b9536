"""The shell that does what the protocol asks for: against a store, a target and the orchestrator's own record of runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, Literal, TypeVar

from orchestration.launching.effects import (
    INTERRUPTIONS,
    Await,
    Create,
    Delete,
    Effect,
    Ensure,
    ListJobs,
    ListKeys,
    Log,
    LogTail,
    Message,
    Now,
    Observe,
    Program,
    Read,
    Replace,
    RunStatus,
    Stop,
    Tell,
    Wait,
    Write,
)
from orchestration.launching.publishing import publishing, publishing_next
from orchestration.launching.target import Target
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store

PUBLISH_BUDGET_S = 30.0


@dataclass(frozen=True)
class Ports:
    """What a step touches. `run_status` re-reads the step's own run: Dagster's status name, NOT_FOUND where it is deleted."""

    store: Store
    target: Target | None
    run_status: Callable[[], str]
    log: Callable[[str], None] = print
    on_message: Callable[[dict[str, Any]], None] = lambda message: None
    on_log: Callable[[str], None] = lambda text: None  # what the job prints, in order


T = TypeVar("T")


def perform(program: Program[T], ports: Ports) -> T:
    """Run a program to its end. What an effect raises, and what interrupts it, goes to the program, which decides what becomes of the job.

    A mistake of ours ends it here; whatever it was doing can be read again, and a job that nobody follows is the reconciler's.
    """
    reply: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = program.throw(error) if error is not None else program.send(reply)
            error = None
            reply = _do(effect, ports)
        except StopIteration as stop:
            if getgeneratorstate(program) == GEN_CLOSED:
                result: T = stop.value
                return result
            error = stop  # a mistake in an effect, and no end of the program: thrown into it, Python makes it a RuntimeError
        except (FlywheelError, *INTERRUPTIONS) as raised:
            if getgeneratorstate(program) == GEN_CLOSED:
                raise
            error = raised


def publish(store: Store, pointer: Pointer, run_status: Callable[[], str]) -> Literal["published", "superseded"]:
    """Publish a day of an asset that needs no job. Raises NotOurs where its run is over, StoreError."""
    counts = perform(publishing(pointer, PUBLISH_BUDGET_S), Ports(store, None, run_status))
    return "published" if counts.generation == pointer.generation else "superseded"


def publish_next(store: Store, pointer: Pointer, place: str, run_status: Callable[[], str]) -> bool:
    """Publish at a place that one run alone gets. -> whether it is ours. Raises NotOurs where its run is over, StoreError."""
    return perform(publishing_next(pointer, place, PUBLISH_BUDGET_S), Ports(store, None, run_status))


def _do(effect: Effect, ports: Ports) -> Any:
    match effect:
        case Read(key):
            return ports.store.find(key)
        case Write(key, data):
            return ports.store.put(key, data)
        case Create(key, data):
            return ports.store.create(key, data)
        case ListKeys(prefix):
            return sorted(entry.key for entry in ports.store.list(prefix))
        case RunStatus():
            return ports.run_status()
        case Wait(seconds):
            return time.sleep(seconds)
        case Now():
            return time.time()
        case Tell(text):
            return ports.log(text)
        case Message(content):
            return ports.on_message(content)
        case Log(text):
            return ports.on_log(text)
    if ports.target is None:
        raise TypeError(f"{effect} needs a target")
    match effect:
        case Ensure(attempt):
            return ports.target.ensure(attempt)
        case Observe(name):
            return ports.target.find(name)
        case ListJobs(deployment):
            return ports.target.jobs(deployment)
        case Stop(name, uid):
            return ports.target.stop(name, uid)
        case Delete(name, uid):
            return ports.target.delete(name, uid)
        case Replace(name, pods):
            return ports.target.replace(name, pods)
        case Await(name, seconds):
            return ports.target.wait(name, seconds)
        case LogTail(name):
            return ports.target.log_tail(name)
