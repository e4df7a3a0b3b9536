"""The execution protocol of docs/protocol.md as a program: it yields effects, is sent replies, and decides.

It holds nothing that it could not read again: drop it between any two effects and start another, and the work goes on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestration.launching.effects import INTERRUPTIONS, ListJobs, Log, Message, Now, Program, Read, Tell, Wait, Write
from orchestration.launching.ending import end_attempt, settle, stop_job
from orchestration.launching.failures import RETRIES, RETRIES_PLACED, one_line
from orchestration.launching.following import follow
from orchestration.launching.patience import patiently
from orchestration.launching.publishing import STOPPED_BY_A_PERSON, NotOurs, current, publishing, still_ours
from orchestration.launching.survey import Fail, Finish, Follow, Made, Mint, Seen, decide, survey
from orchestration.launching.work import Attempt, DayOutcome, Ended, Outcome, Plan, RunInfo, Work, base_of
from ray_jobs.seam import layout
from ray_jobs.seam.results import Pointer


def run_step(work: Work, run: RunInfo) -> Program[Outcome]:
    """Everything one step does, from plan to publication. Raises FlywheelError where the step itself cannot go on."""
    step = _Step(work, run, base_of(work, run))
    try:
        return (yield from step.run_all())
    except NotOurs as error:
        if error.status in STOPPED_BY_A_PERSON:
            yield from settle(step.base, run)
        raise
    except INTERRUPTIONS:
        yield from settle(step.base, run)
        raise


@dataclass
class _Step:
    """What one step remembers while it runs; all of it can be read again."""

    work: Work
    run: RunInfo
    base: str
    known: dict[str, bytes] = field(default_factory=dict)
    outcomes: dict[str, DayOutcome] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)
    launched: bool = False
    peak_memory: int = 0
    used: Made | None = None
    tried: str | None = None

    def run_all(self) -> Program[Outcome]:
        self.timings["asked"] = yield Now()
        plan = yield from self._plan()
        if plan is None:
            return self._outcome(None)
        while True:
            seen = yield from survey(self.base, self.known, self.work.budgets.unreachable)
            yield from self._publish(plan, seen)
            owed = [day for day in plan.todo if day not in self.outcomes]
            verdict = decide(seen, owed, self.run, self.work.resources, RETRIES_PLACED if self.work.placed else RETRIES)
            match verdict:
                case Finish():
                    yield from self._clean_up(seen)
                    return self._outcome(None)
                case Fail():
                    for day in owed:
                        self.outcomes[day] = DayOutcome("failed", reason=verdict.reasons.get(day) or verdict.evidence)
                    yield from self._clean_up(seen)
                    return self._outcome(verdict)
                case Mint():
                    yield from self._mint(plan, verdict)
                case Follow():
                    if (yield from self._clear_the_way(verdict.attempt)):
                        self.tried = verdict.attempt.name
                        yield from follow(self, verdict.attempt)

    def survey_again(self) -> Program[Seen]:
        """Look at the store and pass on what the drivers said and printed since."""
        seen = yield from survey(self.base, self.known, self.work.budgets.unreachable)
        for number in sorted(seen.attempts):
            for key in seen.attempts[number].messages:
                for message in _messages((yield from self._fresh(key))):
                    self._note(message)
                    yield Message(message)
            for key in seen.attempts[number].logs:
                printed = yield from self._fresh(key)
                if printed:
                    yield Log(printed.decode(errors="replace"))
        return seen

    def _fresh(self, key: str) -> Program[bytes | None]:
        """The object's bytes the first time it is asked for: its number is the offset up to which a person has been told."""
        if key in self.delivered:
            return None
        self.delivered.add(key)
        data: bytes | None = yield from patiently(Read(key), self.work.budgets.unreachable)
        return data

    def _note(self, message: Mapping[str, Any]) -> None:
        """What the drivers' messages tell the launcher itself: when a driver first spoke, and the memory it was seen to use."""
        told = message.get("params") or {}
        said = told.get("extras") if message.get("method") == "opened" else told.get("payload")
        if isinstance(said, dict):
            if message.get("method") == "opened" and isinstance(said.get("at"), float):
                self.timings["first_line"] = said["at"]
            if isinstance(said.get("peak_memory_bytes"), int):
                self.peak_memory = max(self.peak_memory, said["peak_memory_bytes"])

    def _plan(self) -> Program[Plan | None]:
        """The plan of this base: the one that is there, or a new one of the days that changed. None: nothing is to be done."""
        work, budget = self.work, self.work.budgets.unreachable
        data: bytes | None = yield from patiently(Read(layout.plan(self.base)), budget)
        if data is None:
            todo = []
            for day in work.days:
                pointer = yield from current(work.asset, day, budget)
                if pointer is not None and pointer.generation > self.run.generation:
                    self.outcomes[day] = DayOutcome("superseded", pointer, pointer.generation)
                elif pointer is not None and pointer.input_digest == work.input_digest(day) and day not in work.redo:
                    self.outcomes[day] = DayOutcome("unchanged", pointer)
                else:
                    todo.append(day)
            if not todo:
                return None
            yield from still_ours(budget)
            plan = Plan(
                base=self.base,
                asset=work.asset,
                days=work.days,
                todo=tuple(todo),
                generation=self.run.generation,
                root_run=self.run.root_run_id,
                run_id=self.run.run_id,
                code=work.code,
                placed=work.placed,
                inputs={day: work.inputs_of(day) for day in work.days},
            )
            yield from patiently(Write(layout.plan(self.base), plan.model_dump_json().encode()), budget)
            data = yield from patiently(Read(layout.plan(self.base)), budget)
        plan = Plan.model_validate_json(data or b"")
        for day in work.days:
            pointer = None if day in self.outcomes else (yield from current(work.asset, day, budget))
            if pointer is not None and pointer.generation > plan.generation:
                self.outcomes[day] = DayOutcome("superseded", pointer, pointer.generation)
            elif pointer is not None and day not in plan.todo:
                self.outcomes[day] = DayOutcome("unchanged", pointer)
        return plan

    def _publish(self, plan: Plan, seen: Seen) -> Program[None]:
        """Publish each day that is made, unless a higher generation has."""
        for day, made in seen.made().items():
            if day not in plan.todo or day in self.outcomes:
                continue
            result = self.work.finish(day, made.result) if self.work.finish else made.result
            pointer = Pointer(
                asset=plan.asset,
                day=day,
                generation=plan.generation,
                run_id=self.run.run_id,
                attempt=made.attempt,
                execution=made.execution,
                inputs=self.work.inputs_of(day),
                input_digest=self.work.input_digest(day),
                counts=result.counts,
                output=result.output,
                output_digest=result.output_digest,
                shown=result.shown,
            )
            counts = yield from publishing(pointer, self.work.budgets.unreachable)
            if counts.generation > plan.generation:
                self.outcomes[day] = DayOutcome("superseded", counts, counts.generation)
            else:
                self.outcomes[day] = DayOutcome("published", counts)
                self.used = made
                self.timings["published"] = yield Now()

    def _mint(self, plan: Plan, due: Mint) -> Program[None]:
        """Write attempt.json, unless it is there; who goes on reads it back."""
        budget = self.work.budgets.unreachable
        if due.after is not None:
            yield Tell(f"attempt {due.number - 1} ended ({due.after}); trying again")
            yield Wait(min(0.5 * 2.0**due.tries, 30.0))
        attempt = Attempt(
            base=self.base,
            number=due.number,
            deployment=self.work.deployment,
            asset=self.work.asset,
            days=due.days,
            module=self.work.module,
            config=self.work.config_for(due.days),
            code=self.work.code,
            generation=plan.generation,
            root_run=self.run.root_run_id,
            run_id=self.run.run_id,
            series=due.series,
            resources=due.resources,
        )
        if (yield from patiently(Read(attempt.key), budget)) is None:
            yield from still_ours(budget)
            yield from patiently(Write(attempt.key, attempt.model_dump_json().encode()), budget)

    def _clear_the_way(self, attempt: Attempt) -> Program[bool]:
        """Stop live jobs that this attempt replaces: earlier attempts, and those of other inputs, code or config.

        -> False where a later attempt of this base lives, so that the store must be looked at again.
        """
        jobs = yield from patiently(ListJobs(attempt.deployment), self.work.budgets.unreachable)
        for job in jobs:
            labels = job.labels
            days = set(labels.get("days", "").split(","))
            ours = labels.get("root_run") == attempt.root_run and labels.get("asset") == attempt.asset and days & set(self.work.days)
            if not ours or job.name == attempt.name or not job.alive:
                continue
            base, number = labels.get("base", ""), int(labels.get("number", "0"))
            if base == attempt.base and number > attempt.number:
                yield Wait(self.work.budgets.poll)
                return False
            if base != attempt.base and labels.get("generation", "") > attempt.generation:
                raise NotOurs(f"replaced by {job.name}, which has newer inputs")
            yield from still_ours(self.work.budgets.unreachable)
            yield Tell(f"stopping {job.name}, which {attempt.name} replaces")
            yield from stop_job(job.name, self.work.budgets.stopping)
            now: float = yield Now()
            ended = Ended(failure_class="cancelled", evidence=f"replaced by {attempt.name}", at=now)
            yield from end_attempt(base, number, ended, self.work.budgets.unreachable)
        return True

    def _clean_up(self, seen: Seen) -> Program[None]:
        """Every attempt ends: what closed is recorded as such, and what still runs without need is stopped."""
        for at in seen.attempts.values():
            if at.ended is not None:
                continue
            if not at.closed:
                yield from still_ours(self.work.budgets.unreachable)
            now: float = yield Now()
            self.timings.setdefault("ended", now)
            peak = max((closed.peak_memory_bytes for closed in at.closed.values()), default=0)
            ended = Ended(failure_class=None if at.closed else "cancelled", evidence="closed" if at.closed else "not needed", peak_memory_bytes=peak, at=now)
            yield from end_attempt(self.base, at.number, ended, self.work.budgets.unreachable)

    def _outcome(self, fail: Fail | None) -> Outcome:
        days = {day: self.outcomes[day] for day in self.work.days}
        error = one_line(fail.failure_class, fail.evidence, fail.attempt) if fail else None
        attempt = self.used.attempt if self.used else self.tried
        execution = self.used.execution if self.used else None
        reused = not self.launched and self.tried is None and fail is None
        return Outcome(days, attempt, execution, self.timings, self.launched, reused, fail.failure_class if fail else None, error)


def _messages(data: bytes | None) -> list[dict[str, Any]]:
    """The Pipes messages of one object, one JSON document a line. A line that is none is dropped: losing one loses nothing else."""
    found = []
    for line in (data or b"").decode(errors="replace").splitlines():
        try:
            message = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(message, dict):
            found.append(message)
    return found
