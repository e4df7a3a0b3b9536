"""The effects that the protocol asks for, one at a time. A shell does them; the state machine plays them.

An effect that fails raises into the program: StoreError (the store), Unreachable (the cluster), InvalidSpec (refused).
An error does not say that nothing happened: a reply can be lost after the effect. While an effect is done, one of
INTERRUPTIONS may come from outside; it is raised into the program too. Anything else is a mistake of ours, and ends it.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from dagster import DagsterExecutionInterruptedError

from orchestration.launching.work import Attempt
from ray_jobs.seam.errors import FailureClass, FlywheelError

INTERRUPTIONS = (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit)  # a run that is terminated, Ctrl-C, a process that is told to exit


class Unreachable(FlywheelError):
    """The cluster's control plane does not answer. Nothing is known of what it did."""

    failure_class: FailureClass = "infrastructure"


class Denied(Unreachable):
    """The control plane answers, and refuses our credentials. Asking again changes nothing, so a step says so at once."""

    failure_class: FailureClass = "invalid_spec"


class InvalidSpec(FlywheelError):
    """The cluster refuses the job as written, or a job of that name belongs to somebody else."""

    failure_class: FailureClass = "invalid_spec"


Phase = Literal["queued", "starting", "running", "succeeded", "failed", "stopped"]
OVER: frozenset[str] = frozenset({"succeeded", "failed", "stopped"})


@dataclass(frozen=True)
class Job:
    """A job as the cluster shows it. `exit_code`, `error_type` and `message` as far as it says.

    `note` is one line for a person: what the job is waiting for, or what befell it. `failure` is the class of what the cluster
    itself saw (a container out of memory, a pod that fits nowhere), None where it saw nothing. `lost` names pods on nodes that
    are gone: they hold a place that the cluster does not give away by itself. `memory`: bytes that its largest container may use.
    """

    name: str
    uid: str
    phase: Phase
    labels: dict[str, str]
    message: str = ""
    error_type: str = ""
    exit_code: int | None = None
    note: str = ""
    failure: FailureClass | None = None
    lost: tuple[str, ...] = ()
    memory: int = 0

    @property
    def alive(self) -> bool:
        return self.phase not in OVER


@dataclass(frozen=True)
class Read:
    """-> bytes, or None where there is no such object."""

    key: str


@dataclass(frozen=True)
class Write:
    key: str
    data: bytes


@dataclass(frozen=True)
class Create:
    """Write where nothing is. -> whether these bytes stand there now."""

    key: str
    data: bytes


@dataclass(frozen=True)
class ListKeys:
    """-> sorted keys below the folder."""

    prefix: str


@dataclass(frozen=True)
class RunStatus:
    """-> the status of the run that this step belongs to, as Dagster names it; NOT_FOUND where it was deleted."""


@dataclass(frozen=True)
class Ensure:
    """Create the attempt's job, or find it under its name with our owner label and spec hash. -> uid."""

    attempt: Attempt


@dataclass(frozen=True)
class Observe:
    """-> Job, or None where the cluster has none of that name."""

    name: str


@dataclass(frozen=True)
class ListJobs:
    """-> every Job of this deployment."""

    deployment: str


@dataclass(frozen=True)
class Stop:
    """Ask the job to stop, if it still has this uid. Returns before it has."""

    name: str
    uid: str


@dataclass(frozen=True)
class Delete:
    """Remove the job if it still has this uid; absent is fine."""

    name: str
    uid: str


@dataclass(frozen=True)
class Replace:
    """Give up the job's pods on nodes that are gone, so that the cluster makes new ones."""

    name: str
    pods: tuple[str, ...]


@dataclass(frozen=True)
class LogTail:
    """-> the last lines that the job printed, as far as the cluster has them."""

    name: str


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Await:
    """Until the cluster says that the job changed, and for so many seconds at most."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Now:
    """-> seconds since 1970."""


@dataclass(frozen=True)
class Tell:
    """One line for the person who watches."""

    text: str


@dataclass(frozen=True)
class Message:
    """One Pipes message of the job's driver, for whoever listens."""

    content: dict[str, Any]


@dataclass(frozen=True)
class Log:
    """What the job printed, in order."""

    text: str


Effect = (
    Read | Write | Create | ListKeys | RunStatus | Ensure | Observe | ListJobs | Stop | Delete | Replace | LogTail | Wait | Await | Now | Tell | Message | Log
)

T = TypeVar("T")
Program = Generator[Effect, Any, T]
