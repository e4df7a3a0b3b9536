"""What the store knows of a base, and what follows from it. `decide` is pure: the whole policy of attempts is in it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from orchestration.launching.effects import ListKeys, Program, Read
from orchestration.launching.failures import RETRIES
from orchestration.launching.patience import patiently
from orchestration.launching.work import MAX_ATTEMPTS, Attempt, Ended, Resources, RunInfo, Submitted
from ray_jobs.seam.errors import FailureClass
from ray_jobs.seam.model import Strict
from ray_jobs.seam.results import Closed, DayResult, JobError


@dataclass
class AttemptSeen:
    """One attempt as the store knows it. `closed` and `errors` by execution; `messages` and `logs` are keys in order."""

    number: int
    attempt: Attempt | None = None
    submitted: Submitted | None = None
    ended: Ended | None = None
    closed: dict[str, Closed] = field(default_factory=dict)
    errors: dict[str, JobError] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    executions: set[str] = field(default_factory=set)

    @property
    def started(self) -> bool:
        """A driver has shown itself."""
        return bool(self.executions)

    @property
    def over(self) -> bool:
        return self.ended is not None or bool(self.closed)


@dataclass(frozen=True)
class Made:
    """A finished day, and who made it."""

    result: DayResult
    attempt: str
    execution: str


@dataclass
class Seen:
    attempts: dict[int, AttemptSeen] = field(default_factory=dict)

    @property
    def last(self) -> AttemptSeen | None:
        return self.attempts[max(self.attempts)] if self.attempts else None

    def made(self) -> dict[str, Made]:
        """day -> the first complete result by (attempt, execution), so that every reader takes the same one."""
        made: dict[str, Made] = {}
        for number in sorted(self.attempts):
            seen = self.attempts[number]
            for execution in sorted(seen.closed):
                for day, result in seen.closed[execution].days.items():
                    if result.status == "ok" and seen.attempt is not None:
                        made.setdefault(day, Made(result, seen.attempt.name, execution))
        return made


_DOCUMENTS: dict[str, type[Strict]] = {"attempt.json": Attempt, "submitted.json": Submitted, "ended.json": Ended}


def survey(base: str, known: dict[str, bytes], budget_s: float) -> Program[Seen]:
    """Everything the store holds of this base. `known` keeps immutable documents from one survey to the next."""
    seen = Seen()
    prefix = f"attempts/{base}/"
    keys: list[str] = yield from patiently(ListKeys(prefix), budget_s)
    for key in keys:
        parts = key.removeprefix(prefix).split("/")
        if len(parts) < 2 or not parts[0][1:].isdigit():
            continue
        at = seen.attempts.setdefault(int(parts[0][1:]), AttemptSeen(int(parts[0][1:])))
        if len(parts) == 2 and parts[1] in _DOCUMENTS:
            data = yield from _document(key, known, budget_s, changes=parts[1] == "submitted.json")
            if data is not None:
                setattr(at, parts[1].removesuffix(".json"), _DOCUMENTS[parts[1]].model_validate_json(data))
        elif len(parts) == 3 and parts[2] in ("closed.json", "error.json"):
            data = yield from _document(key, known, budget_s)
            if data is not None and parts[2] == "closed.json":
                at.closed[parts[1]] = Closed.model_validate_json(data)
            elif data is not None:
                at.errors[parts[1]] = JobError.model_validate_json(data)
        elif len(parts) == 4 and parts[2] == "messages":
            at.messages.append(key)
        elif len(parts) == 4 and parts[2] == "log":
            at.logs.append(key)
        if len(parts) > 2:
            at.executions.add(parts[1])
    seen.attempts = {number: at for number, at in seen.attempts.items() if at.attempt is not None}
    return seen


def _document(key: str, known: dict[str, bytes], budget_s: float, changes: bool = False) -> Program[bytes | None]:
    if key not in known or changes:
        data = yield from patiently(Read(key), budget_s)
        if data is None:
            return None
        known[key] = data
    return known[key]


@dataclass(frozen=True)
class Finish:
    """Nothing is left to be made."""


@dataclass(frozen=True)
class Follow:
    """The last attempt is not over: create its job, or adopt it."""

    attempt: Attempt


@dataclass(frozen=True)
class Mint:
    """A new attempt is due. `after`: why the one before it failed, None for the first."""

    number: int
    days: tuple[str, ...]
    series: str
    resources: Resources
    after: FailureClass | None = None
    tries: int = 0


@dataclass(frozen=True)
class Fail:
    """No further attempt is allowed. `reasons`: day -> why, where the job said so itself."""

    failure_class: FailureClass
    evidence: str
    attempt: str
    reasons: dict[str, str]


def decide(
    seen: Seen, todo: Collection[str], run: RunInfo, resources: Resources, retries: Mapping[FailureClass, int] = RETRIES
) -> Finish | Follow | Mint | Fail:
    """What the store's knowledge asks for next. `todo`: the days this step still owes, in order."""
    made = seen.made()
    remaining = tuple(day for day in todo if day not in made)
    last = seen.last
    if not remaining:
        return Finish()
    if last is None or last.attempt is None:
        return Mint(1, remaining, run.run_id, resources)
    if not last.over:
        return Follow(last.attempt)
    series = last.attempt.series if run.retry else run.run_id
    number = last.number + 1
    again = last.attempt.resources if series == last.attempt.series else resources
    if not any(at.attempt and at.attempt.series == series for at in seen.attempts.values()):
        if number > MAX_ATTEMPTS:
            return Fail("user", f"{MAX_ATTEMPTS} attempts were made", last.attempt.name, {})
        return Mint(number, remaining, series, again)  # a person asks anew
    if last.attempt.series != series:
        evidence = last.ended.evidence if last.ended else "some days failed"
        return Fail("cancelled", f"another run took this over, and it ended so: {evidence}", last.attempt.name, {})
    if last.closed:
        results = {day: result for closed in last.closed.values() for day, result in closed.days.items()}
        reasons = {day: results[day].reason or "failed without a reason" for day in remaining if day in results}
        reasons |= {day: "the job closed without a word about this day" for day in remaining if day not in results and day in last.attempt.days}
        if reasons:
            day, reason = next(iter(reasons.items()))
            return Fail("data", f"{len(reasons)} of {len(todo)} days failed; {day}: {reason}", last.attempt.name, reasons)
        return Mint(number, remaining, series, again)  # the attempt was asked for other days
    assert last.ended is not None
    failure = last.ended.failure_class or "infrastructure"
    tries = sum(1 for at in seen.attempts.values() if at.attempt and at.attempt.series == series and at.ended and at.ended.failure_class == failure)
    if tries > retries[failure] or number > MAX_ATTEMPTS:
        return Fail(failure, last.ended.evidence, last.attempt.name, {})
    if failure == "out_of_memory":
        more = _more_memory(again, last.ended.peak_memory_bytes)
        if more is None:
            return Fail(failure, last.ended.evidence + f"; it may not have more than {again.memory_limit} bytes", last.attempt.name, {})
        again = more
    return Mint(number, remaining, series, again, failure, tries)


def _more_memory(resources: Resources, peak: int) -> Resources | None:
    """Twice what it had or half more than it was seen to use, up to the limit. None: it already had the limit."""
    had = resources.memory or peak
    if had >= resources.memory_limit:
        return None
    wanted = max(2 * had, int(1.5 * peak))
    return resources.model_copy(update={"memory": min(wanted, resources.memory_limit) or None})
