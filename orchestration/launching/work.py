"""What a step wants done, and the documents by which the store remembers it: plan, attempt, submitted, ended."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ray_jobs.seam import layout
from ray_jobs.seam.errors import FailureClass
from ray_jobs.seam.model import Strict, digest
from ray_jobs.seam.results import DayResult, Pointer

MAX_BASE = 43  # so that <base>-a<n> stays a DNS-1035 label of at most 47 characters, which is what KubeRay allows
MAX_ATTEMPTS = 99


class Resources(Strict):
    """What the driver asks of the cluster: logical CPUs, and memory in bytes (None: whatever there is)."""

    num_cpus: float = 0.0
    memory: int | None = None
    memory_limit: int = 64 * 2**30  # an out-of-memory retry never asks for more


class Budgets(Strict):
    """Seconds a job may spend in each phase, and how long the control plane or the store may be silent."""

    queued: float = 3600.0
    starting: float = 300.0
    running: float = 4 * 3600.0
    unreachable: float = 30.0
    stopping: float = 20.0
    poll: float = 0.25  # grows to 5 s as a job gets older


@dataclass(frozen=True)
class Work:
    """One step's work on the days of one asset.

    `inputs` are shared by all days and `day_inputs` belong to one: name -> digest of what was read, "absent" where there
    was nothing. `settings` is the part of the job's config that no day changes. Together with `code` (a hash) they say
    whether a day must be made again; `config_for(days)` builds the job's config for the days that must.
    """

    asset: str
    days: tuple[str, ...]
    module: str
    config_for: Callable[[tuple[str, ...]], dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    day_inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    code: str = ""
    finish: Callable[[str, DayResult], DayResult] | None = None  # what orchestration adds before a day is published: a gate's verdict
    resources: Resources = field(default_factory=Resources)
    budgets: Budgets = field(default_factory=Budgets)
    redo: frozenset[str] = frozenset()  # days to make again though nothing has changed: what they published is gone
    placed: str = ""  # the placement's decision, if one says where: another one is another base, but makes no day anew
    deployment: str = "local"

    def inputs_of(self, day: str) -> dict[str, str]:
        return {**self.inputs, **self.day_inputs.get(day, {})}

    def input_digest(self, day: str) -> str:
        """The same for a range and for a single day: what a day is made of, and by what."""
        return digest(self.asset, day, self.inputs_of(day), self.settings, self.code)


@dataclass(frozen=True)
class RunInfo:
    """The run that asks. `created`: when the run was created (UTC). `retry`: Dagster started it by itself, no person did."""

    run_id: str
    root_run_id: str
    created: datetime
    retry: bool = False

    @property
    def generation(self) -> str:
        """Sorts by time: 20261121T090000.123456Z-<run_id[:8]>."""
        return f"{self.created.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{self.run_id[:8]}"


def base_of(work: Work, run: RunInfo) -> str:
    """Readable slug and hash: the same for every run of a root run that wants the same done. DNS-1035, <= 43 characters."""
    days = [re.sub(r"[^a-z0-9]", "", day.lower()) for day in (work.days[0], work.days[-1])]
    span = days[0][:8] if days[0] == days[1] else f"{days[0][:8]}-{days[1][-4:]}"
    asset = re.sub(r"[^a-z0-9]+", "-", work.asset.lower())[:16].strip("-")
    days_wanted = [work.input_digest(day) for day in work.days]
    meant = digest(run.root_run_id, work.deployment, work.asset, work.module, days_wanted, work.config_for(work.days), sorted(work.redo), work.placed)
    return f"{asset}-{span}-{meant[:12]}"


class Plan(Strict):
    """plan.json: what a step decided before it did anything. A retry that wants the same keeps this generation."""

    base: str
    asset: str
    days: tuple[str, ...]
    todo: tuple[str, ...]
    generation: str
    root_run: str
    run_id: str
    code: str
    placed: str = ""
    inputs: dict[str, dict[str, str]]  # day -> name -> digest


class Attempt(Strict):
    """attempt.json: one Ray job to launch. The job's spec is built from this document as read back, and nothing else."""

    base: str
    number: int
    deployment: str
    asset: str
    days: tuple[str, ...]
    module: str
    config: dict[str, Any]
    code: str
    generation: str
    root_run: str
    run_id: str
    series: str  # the run a person started; its automatic retries count against the same bounds
    resources: Resources

    @property
    def name(self) -> str:
        return f"{self.base}-a{self.number}"

    @property
    def key(self) -> str:
        return layout.attempt(self.base, self.number)

    @property
    def spec_hash(self) -> str:
        """Of what the job means. Memory is left out: two steps that race may have seen different peaks."""
        return digest(self.base, self.number, self.module, self.config)


class Submitted(Strict):
    """submitted.json: the uid of the job, and the run that last took it on."""

    uid: str
    run_id: str
    at: float


class Ended(Strict):
    """ended.json: an attempt is over. `failure_class` is None where it closed well."""

    failure_class: FailureClass | None
    evidence: str
    peak_memory_bytes: int = 0
    at: float = 0.0


@dataclass(frozen=True)
class DayOutcome:
    """published: `pointer` is ours; unchanged: `pointer` was there; superseded: `reason` is the higher generation; failed: why."""

    state: Literal["published", "unchanged", "superseded", "failed"]
    pointer: Pointer | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of each day. `error` is one line (class, evidence, advice) where days failed, else None.

    timings: seconds since 1970 of asked, submitted, first_line, ended, published, where they happened.
    `launched` says that this step created a job; `reused` that no job had to run at all for it.
    """

    days: dict[str, DayOutcome]
    attempt: str | None = None
    execution: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    launched: bool = False
    reused: bool = False
    failure_class: FailureClass | None = None
    error: str | None = None
