"""A model of the world around the protocol: a store, a cluster with drivers, and Dagster's runs. It can fail at any effect."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from orchestration.launching.effects import (
    Await,
    Delete,
    Effect,
    Ensure,
    Job,
    ListJobs,
    ListKeys,
    Log,
    LogTail,
    Message,
    Now,
    Observe,
    Phase,
    Program,
    Read,
    RunStatus,
    Stop,
    Tell,
    Unreachable,
    Wait,
    Write,
)
from orchestration.launching.protocol import run_step
from orchestration.launching.reconcile import reconciling
from orchestration.launching.target import labels_of
from orchestration.launching.work import Attempt, Budgets, Outcome, RunInfo, Work
from ray_jobs.seam.errors import FlywheelError, StoreError
from ray_jobs.seam.results import Closed, DayResult, JobError, Pointer

DAYS = ("2026-01-05", "2026-01-06")
BUDGETS = Budgets(queued=1e6, starting=1e6, running=1e6, unreachable=1.5, stopping=3.0, poll=0.5)
START = datetime(2026, 11, 21, tzinfo=UTC)
STORE_SIDE = Read | Write | ListKeys | RunStatus
Fault = Literal["fails before", "fails after", "crash before", "crash after", "late", "interrupt before", "interrupt after"]
FAULTS: tuple[Fault, ...] = ("fails before", "fails after", "crash before", "crash after", "late", "interrupt before", "interrupt after")


@dataclass
class ModelJob:
    name: str
    uid: str
    attempt: Attempt
    phase: Phase = "queued"
    execution: str | None = None  # of the driver that is at work now
    starts: int = 0
    message: str = ""
    exit_code: int | None = None

    @property
    def alive(self) -> bool:
        return self.phase in ("queued", "starting", "running")

    def seen(self) -> Job:
        return Job(self.name, self.uid, self.phase, labels_of(self.attempt), self.message, "", self.exit_code)


@dataclass
class Step:
    program: Program[Outcome]
    run_id: str
    work: Work
    effect: Effect | None = None
    trail: list[tuple[Effect, Any]] = field(default_factory=list)  # effects and replies since the last RunStatus
    faulty: bool = False  # since it was interrupted


@dataclass
class Run:
    info: RunInfo
    versions: dict[str, int]
    days: tuple[str, ...]
    status: str = "STARTED"
    step: Step | None = None
    outcome: Outcome | None = None

    @property
    def alive(self) -> bool:
        return self.status in ("STARTED", "CANCELING")


class World:
    def __init__(self) -> None:
        self.store: dict[str, bytes] = {}
        self.jobs: dict[str, ModelJob] = {}
        self.runs: list[Run] = []
        self.now = 1000.0
        self.count = 0
        self.versions = dict.fromkeys(DAYS, 0)
        self.late: list[Effect] = []
        self.working: set[str] = set()  # base of every driver at work, to see two of them

    # -- Dagster -------------------------------------------------------------------------------------------------

    def launch(self, days: tuple[str, ...], root: Run | None = None, retry: bool = False) -> Run:
        self.count += 1
        run_id = f"run{self.count:05d}"
        info = RunInfo(run_id, root.info.root_run_id if root else run_id, START + timedelta(seconds=self.count), retry)
        run = Run(info, dict(self.versions), root.days if root else days)
        work = Work(
            asset="episodes",
            days=run.days,
            module="model",
            config_for=lambda chosen: {"days": list(chosen), "versions": {day: run.versions[day] for day in chosen}},
            day_inputs={day: {"upload": str(run.versions[day])} for day in run.days},
            code="1",
            budgets=BUDGETS,
        )
        run.step = Step(run_step(work, info), run_id, work)
        self.runs.append(run)
        self.resume(run, None, None)
        return run

    def resume(self, run: Run, reply: Any, error: BaseException | None) -> None:
        """Send the step its reply or an error; it either asks for the next effect or is over."""
        step = run.step
        assert step is not None
        try:
            step.effect = step.program.throw(error) if error is not None else step.program.send(reply)
        except StopIteration as stop:
            run.outcome, run.step = stop.value, None
            if run.status == "STARTED":
                run.status = "FAILURE" if run.outcome is not None and run.outcome.error else "SUCCESS"
        except FlywheelError:
            run.step = None
            run.status = "CANCELED" if run.status == "CANCELING" else ("FAILURE" if run.status == "STARTED" else run.status)
        except KeyboardInterrupt:
            self.interrupted(run, step)
            run.step = None
            run.status = "CANCELED" if run.status == "CANCELING" else ("FAILURE" if run.status == "STARTED" else run.status)

    def interrupted(self, run: Run, step: Step) -> None:
        """A cancelled step that could do all it wanted leaves no job of its own alive."""
        alone = not any(other.alive for other in self.runs if other is not run and other.info.root_run_id == run.info.root_run_id)
        if run.status == "CANCELING" and not step.faulty and alone and not self.late:
            live = [job.name for job in self.jobs.values() if job.alive and self.last_owner(job) == run.info.run_id]
            assert not live, f"a cancelled step left {live}"

    def last_owner(self, job: ModelJob) -> str | None:
        data = self.store.get(f"attempts/{job.attempt.base}/a{job.attempt.number}/submitted.json")
        return json.loads(data)["run_id"] if data else None

    def advance(self, run: Run, fault: Fault | None = None) -> None:
        step = run.step
        assert step is not None and step.effect is not None
        effect = step.effect
        if fault and fault.startswith("interrupt") and run.status == "STARTED":
            run.status = "CANCELING"
        if fault and fault.startswith("fails") and isinstance(effect, Wait | Await | Now | Tell | Message | Log):
            fault = None
        step.faulty = step.faulty or (fault is not None and not fault.startswith("interrupt"))
        error: BaseException | None = None
        reply = None
        if fault == "late":
            if isinstance(effect, Ensure | Write | Stop | Delete):
                self.late.append(effect)
        elif fault is None or fault.endswith("after"):
            try:
                reply = self.apply(run, step, effect)
            except FlywheelError as raised:
                error = raised
        if fault is not None:
            if fault.startswith("crash") or fault == "late":
                step.program.close()
                run.step = None
                return
            if fault.startswith("fails"):
                kind = StoreError if isinstance(effect, STORE_SIDE) else Unreachable
                error = kind("the model says no")
            else:
                error = KeyboardInterrupt()
        self.resume(run, reply, error)

    # -- effects -------------------------------------------------------------------------------------------------

    def apply(self, run: Run | None, step: Step | None, effect: Effect) -> Any:
        if step is not None and run is not None:
            self.guard(run, step, effect)
        reply = self._apply(run, effect)
        if step is not None:
            step.trail = [] if isinstance(effect, RunStatus) else step.trail
            step.trail.append((effect, reply))
        return reply

    def guard(self, run: Run, step: Step, effect: Effect) -> None:
        """Mint, create and publish only directly after one's own run was read as STARTED; delete only what has its end recorded."""
        guarded = isinstance(effect, Ensure) or (isinstance(effect, Write) and effect.key.startswith("partitions/"))
        guarded = guarded or (isinstance(effect, Write) and effect.key.endswith("/attempt.json"))
        if guarded:
            since = [done for done, _ in step.trail if not isinstance(done, Wait | Await | Now) and done != effect]
            assert since and isinstance(since[0], RunStatus) and len(since) == 1, f"{effect} without asking whether the run goes on"
            assert step.trail[0][1] == "STARTED", f"{effect} in the name of a run that is {step.trail[0][1]}"
        if isinstance(effect, Delete) and effect.name in self.jobs:
            attempt = self.jobs[effect.name].attempt
            assert f"attempts/{attempt.base}/a{attempt.number}/ended.json" in self.store, f"{effect.name} is deleted before its end is recorded"

    def _apply(self, run: Run | None, effect: Effect) -> Any:
        match effect:
            case Read(key):
                return self.store.get(key)
            case Write(key, data):
                self.store[key] = data
            case ListKeys(prefix):
                return sorted(key for key in self.store if key.startswith(prefix.rstrip("/") + "/"))
            case RunStatus():
                return run.status if run else "STARTED"
            case Now():
                return self.now
            case Wait(seconds) | Await(_, seconds):
                self.now += seconds
            case Ensure(attempt):
                if attempt.name not in self.jobs:
                    self.count += 1
                    self.jobs[attempt.name] = ModelJob(attempt.name, f"uid{self.count}", attempt)
                return self.jobs[attempt.name].uid
            case Observe(name):
                return self.jobs[name].seen() if name in self.jobs else None
            case ListJobs():
                return [job.seen() for job in self.jobs.values()]
            case Stop(name, uid):
                if name in self.jobs and self.jobs[name].uid == uid and self.jobs[name].alive:
                    self.end_driver(self.jobs[name], "stopped")
            case Delete(name, uid):
                if name in self.jobs and self.jobs[name].uid == uid:
                    self.end_driver(self.jobs[name], "stopped")
                    del self.jobs[name]
            case LogTail(name):
                return self.jobs[name].message if name in self.jobs else ""
        return None

    # -- drivers -------------------------------------------------------------------------------------------------

    def start_driver(self, job: ModelJob) -> None:
        """A first start or a restart under the same name: a new execution, which first looks whether the attempt is over."""
        folder = f"attempts/{job.attempt.base}/a{job.attempt.number}/"
        job.phase, job.execution = "running", None
        keys = [key for key in self.store if key.startswith(folder)]
        if folder + "ended.json" in keys or any(key.endswith("/closed.json") for key in keys):
            job.phase = "succeeded"
            return
        job.starts += 1
        others = [other.name for other in self.jobs.values() if other.execution and other is not job and other.attempt.base == job.attempt.base]
        assert not others, f"{job.name} works beside {others}"
        self.count += 1
        job.execution = f"e{self.count:05d}"
        self.store[f"{folder}{job.execution}/messages/000000.json"] = b'{"method": "opened", "params": {"extras": {}}}\nhalf a line'
        self.store[f"{folder}{job.execution}/log/000000.txt"] = b"half a \xe2 letter"

    def close_driver(self, job: ModelJob, bad: bool = False) -> None:
        """The driver writes its result; it is still alive after that."""
        if job.execution is None:
            return
        versions = job.attempt.config["versions"]
        days = {day: DayResult(output={"version": versions[day]}) for day in job.attempt.config["days"]}
        if bad:
            days[max(days)] = DayResult(status="failed", reason="the content is bad")
        closed = Closed(step="model", execution=job.execution, days=days, seconds=1.0, peak_memory_bytes=1)
        self.store[f"attempts/{job.attempt.base}/a{job.attempt.number}/{job.execution}/closed.json"] = closed.model_dump_json().encode()
        job.execution = None

    def end_driver(self, job: ModelJob, phase: Phase, exit_code: int | None = None, message: str = "", report: JobError | None = None) -> None:
        if report is not None and job.execution is not None:
            key = f"attempts/{job.attempt.base}/a{job.attempt.number}/{job.execution}/error.json"
            self.store[key] = report.model_dump_json().encode()
        if job.alive:
            job.phase, job.exit_code, job.message = phase, exit_code, message
        job.execution = None

    def suspend(self, job: ModelJob) -> None:
        job.phase, job.execution = "queued", None

    def land(self) -> None:
        """An effect of a step that is gone arrives now."""
        self._apply(None, self.late.pop(0))

    def reconcile(self) -> None:
        alive = {run.info.root_run_id for run in self.runs if run.alive}
        program = reconciling("local", lambda root: root in alive)
        reply = None
        while True:
            try:
                reply = self._apply(None, program.send(reply))
            except StopIteration:
                return

    # -- what must hold ------------------------------------------------------------------------------------------

    def pointers(self) -> dict[str, Pointer]:
        return {key: Pointer.model_validate_json(data) for key, data in self.store.items() if key.startswith("partitions/")}

    def check(self) -> None:
        for key, pointer in self.pointers().items():
            base, number = str(pointer.attempt).rsplit("-a", 1)
            data = self.store.get(f"attempts/{base}/a{number}/{pointer.execution}/closed.json")
            assert data is not None, f"{key} names a result that does not exist"
            result = Closed.model_validate_json(data).days[pointer.day]
            assert result.status == "ok", f"{key} names a day that failed"
            assert str(result.output["version"]) == pointer.inputs["upload"], f"{key} names a result of other inputs"
        for run in self.runs:
            for day, outcome in (run.outcome.days if run.outcome else {}).items():
                if outcome.state == "published":
                    assert outcome.pointer is not None and f"partitions/episodes/{day}/{outcome.pointer.generation}.json" in self.store
