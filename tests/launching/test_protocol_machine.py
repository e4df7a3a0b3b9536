"""The launching program itself, one effect at a time, in a world that fails anywhere; and proof that the machine can fail."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from orchestration.launching import following, protocol, publishing, survey
from orchestration.launching.effects import Await, Delete, Observe, Program, Wait
from orchestration.launching.survey import Made
from ray_jobs.seam.results import DayResult, JobError
from tests.launching.model import DAYS, FAULTS, STORE_SIDE, Fault, ModelJob, Run, World

BOUNDED = settings(
    max_examples=int(os.environ.get("FLYWHEEL_DEEP", "250")),
    stateful_step_count=40,
    deadline=None,
    derandomize="FLYWHEEL_DEEP" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
FINDING = settings(BOUNDED, max_examples=400, phases=[Phase.generate])
PICK = st.integers(0, 2)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.highest: dict[str, str] = {}

    def steps(self) -> list[Run]:
        return [run for run in self.world.runs if run.step is not None]

    def live(self) -> list[ModelJob]:
        return [job for job in self.world.jobs.values() if job.alive]

    def ends(self) -> int:
        return sum(key.endswith("/ended.json") for key in self.world.store)

    # -- runs

    @precondition(lambda self: len(self.world.runs) < 4)
    @rule(days=st.sampled_from([DAYS, DAYS[:1], DAYS[1:]]))
    def launch(self, days: tuple[str, ...]) -> None:
        self.world.launch(days)

    @precondition(lambda self: 0 < len(self.world.runs) < 6)
    @rule(pick=PICK, by_person=st.booleans())
    def launch_again(self, pick: int, by_person: bool) -> None:
        """A retry of a run that lost its worker, or a person's re-execution, even beside a step that still goes on."""
        run = self.world.runs[pick % len(self.world.runs)]
        if not by_person:
            if run.status in ("SUCCESS", "CANCELED"):
                return
            run.status = "FAILURE"  # its step, where it lives, is a zombie now
        self.world.launch(run.days, root=run, retry=not by_person)

    @precondition(lambda self: self.steps())
    @rule(pick=PICK, count=st.integers(1, 60))
    def advance(self, pick: int, count: int) -> None:
        run = self.steps()[pick % len(self.steps())]
        for _ in range(count):
            if run.step is not None:
                self.world.advance(run)

    @precondition(lambda self: self.steps())
    @rule(pick=PICK, fault=st.sampled_from(FAULTS))
    def fault(self, pick: int, fault: Fault) -> None:
        self.world.advance(self.steps()[pick % len(self.steps())], fault)

    @precondition(lambda self: self.steps())
    @rule(pick=PICK, count=st.integers(2, 12))
    def silence(self, pick: int, count: int) -> None:
        """Nothing answers for a while, longer than the budget or not."""
        run = self.steps()[pick % len(self.steps())]
        for _ in range(count):
            if run.step is not None:
                self.world.advance(run, "fails before")

    @precondition(lambda self: self.steps())
    @rule(pick=PICK)
    def cluster_is_given_up(self, pick: int) -> None:
        """A job is at work, then the cluster alone answers nothing until the step has recorded an end and moved on."""
        run = self.steps()[pick % len(self.steps())]
        for _ in range(60):
            if run.step is None or (isinstance(run.step.effect, Wait | Await) and self.live()):
                break
            self.world.advance(run)
        self.drivers_start()
        before = self.ends()
        for _ in range(80):
            if run.step is None or (self.ends() > before and isinstance(run.step.effect, Wait | Await)):
                return
            self.world.advance(run, None if isinstance(run.step.effect, STORE_SIDE) else "fails before")

    @precondition(lambda self: self.steps())
    @rule(pick=PICK)
    def force_terminate(self, pick: int) -> None:
        self.steps()[pick % len(self.steps())].status = "CANCELED"

    @precondition(lambda self: self.world.late)
    @rule()
    def land(self) -> None:
        self.world.land()

    @rule()
    def reconcile(self) -> None:
        self.world.reconcile()

    @rule(day=st.sampled_from(DAYS))
    def inputs_change(self, day: str) -> None:
        self.world.versions[day] += 1

    # -- drivers

    @rule()
    def drivers_start(self) -> None:
        for job in self.live():
            if job.phase == "queued":
                self.world.start_driver(job)

    @precondition(lambda self: self.live())
    @rule(pick=PICK)
    def driver_restarts(self, pick: int) -> None:
        job = self.live()[pick % len(self.live())]
        if job.phase == "running":
            self.world.start_driver(job)

    @precondition(lambda self: self.live())
    @rule(pick=PICK)
    def queue_takes_it_back(self, pick: int) -> None:
        """Preempted: the driver is gone, the job waits under its name and starts again later."""
        self.world.suspend(self.live()[pick % len(self.live())])

    @precondition(lambda self: self.live())
    @rule(pick=PICK, bad=st.sampled_from([False, False, False, True]), leaves=st.booleans())
    def driver_closes(self, pick: int, bad: bool, leaves: bool) -> None:
        job = self.live()[pick % len(self.live())]
        self.world.close_driver(job, bad)
        if leaves:
            self.world.end_driver(job, "succeeded")

    @precondition(lambda self: self.live())
    @rule(pick=PICK, how=st.sampled_from(["killed", "out of memory", "user", "vanishes", "silent success"]))
    def driver_dies(self, pick: int, how: str) -> None:
        job = self.live()[pick % len(self.live())]
        if how == "vanishes":
            self.world.end_driver(job, "failed")
            del self.world.jobs[job.name]
        elif how == "user":
            self.world.end_driver(job, "failed", 1, report=JobError(failure_class="user", message="a bug"))
        elif how == "silent success":
            self.world.end_driver(job, "succeeded", 0)
        else:
            self.world.end_driver(job, "failed", 137, message=how)

    # -- what holds after every rule

    @invariant()
    def pointers_name_complete_results(self) -> None:
        self.world.check()

    @invariant()
    def newer_is_never_hidden(self) -> None:
        for pointer in self.world.pointers().values():
            self.highest[pointer.day] = max(self.highest.get(pointer.day, ""), pointer.generation)
        for day, generation in self.highest.items():
            assert f"partitions/episodes/{day}/{generation}.json" in self.world.store

    def teardown(self) -> None:
        """The faults stop. Every step ends, what can be made is made, and no job outlives its run."""
        world = self.world
        while world.late:
            world.land()
        for turn in range(4000):
            for run in self.steps():
                world.advance(run)
            self.work_on(closes=turn % 40 == 39)  # long enough at work to be seen beside another
            if not self.steps():
                break
        assert not self.steps(), f"a step never ended: {[run.step.effect for run in self.steps() if run.step]}"
        last = world.launch(DAYS)
        for turn in range(800):
            if last.step is None:
                break
            world.advance(last)
            self.work_on(closes=turn % 40 == 39)
        assert last.outcome is not None and last.outcome.error is None, f"a healthy world did not do: {last.outcome}"
        for day in DAYS:
            current = max((pointer for pointer in world.pointers().values() if pointer.day == day), key=lambda pointer: pointer.generation)
            assert current.inputs["upload"] == str(world.versions[day]), f"{day} is made of old inputs: {current}"
        for run in world.runs:
            run.status = "FAILURE" if run.status == "STARTED" else run.status
        world.reconcile()
        assert not self.live(), f"jobs without a run: {self.live()}"
        world.check()

    def work_on(self, closes: bool) -> None:
        for job in self.live():
            if job.phase == "queued":
                self.world.start_driver(job)
            elif closes and job.execution:
                self.world.close_driver(job)
            elif job.execution is None:
                self.world.end_driver(job, "succeeded")


@pytest.mark.timeout(0 if "FLYWHEEL_DEEP" in os.environ else 120)
def test_protocol_survives() -> None:
    run_state_machine_as_test(Machine, settings=BOUNDED)


def test_without_faults_one_execution_and_one_pointer_per_day() -> None:
    world = World()
    machine = Machine()
    machine.world = world
    run = world.launch(DAYS)
    job_starts = 0
    for _ in range(200):
        if run.step is None:
            break
        world.advance(run)
        machine.work_on(closes=True)
        job_starts = max(job_starts, sum(job.starts for job in world.jobs.values()))
    assert run.outcome is not None and {day.state for day in run.outcome.days.values()} == {"published"}
    assert job_starts == 1 and len(world.pointers()) == 2
    again = world.launch(DAYS[1:])
    while again.step is not None:
        world.advance(again)
    assert again.outcome is not None and again.outcome.days[DAYS[1]].state == "unchanged" and again.outcome.reused


def _publishes_before_closed(patch: pytest.MonkeyPatch) -> None:
    whole = survey.Seen.made

    def early(self: survey.Seen) -> dict[str, Made]:
        made = whole(self)
        for at in self.attempts.values():
            if at.started and at.attempt is not None:
                for day in at.attempt.days:
                    made.setdefault(day, Made(DayResult(), at.attempt.name, "e1"))
        return made

    patch.setattr(survey.Seen, "made", early)


def _never_rereads_its_run(patch: pytest.MonkeyPatch) -> None:
    def trusting(budget_s: float) -> Program[None]:
        return
        yield

    for module in (protocol, publishing, following):
        patch.setattr(module, "still_ours", trusting)


def _mints_beside_a_live_attempt(patch: pytest.MonkeyPatch) -> None:
    def hasty(self: Any, attempt: Any) -> Program[bool]:
        return True
        yield

    patch.setattr(protocol._Step, "_clear_the_way", hasty)


def _deletes_before_it_records(patch: pytest.MonkeyPatch) -> None:
    whole = following.end_attempt

    def hasty(base: str, number: int, ended: Any, budget_s: float) -> Program[None]:
        job = yield Observe(f"{base}-a{number}")
        if job is not None:
            yield Delete(job.name, job.uid)
        yield from whole(base, number, ended, budget_s)

    patch.setattr(following, "end_attempt", hasty)


@pytest.mark.parametrize("mutate", [_publishes_before_closed, _never_rereads_its_run, _mints_beside_a_live_attempt, _deletes_before_it_records])
def test_machine_finds_the_mutation(mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=FINDING)
