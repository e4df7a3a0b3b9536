"""Where jobs run: the one interface that every launch target has."""

import time
from abc import ABC, abstractmethod

from orchestration.launching.effects import InvalidSpec, Job
from orchestration.launching.work import Attempt


class Target(ABC):
    """A place that runs a named job at most once at a time. Bring your own by subclassing; assets never see which it is.

    A name is `<base>-a<n>`. A uid tells two jobs that had the same name one after the other apart. Every method raises
    Unreachable where the control plane does not answer, and never waits for the job itself. Nothing here decides:
    what a silence, a failure or a success means is the protocol's business.
    """

    @abstractmethod
    def ensure(self, attempt: Attempt) -> str:
        """Create the attempt's job, or find it under its name; -> uid. Raises InvalidSpec where it is refused or not ours."""

    @abstractmethod
    def find(self, name: str) -> Job | None:
        """The job as the cluster shows it now, with `labels_of` its attempt; None only where it certainly does not run."""

    @abstractmethod
    def jobs(self, deployment: str) -> list[Job]:
        """Every job of a deployment, alive or over."""

    @abstractmethod
    def stop(self, name: str, uid: str) -> None:
        """Ask the job to end, if it is still this one. Returns at once; absent or over is fine."""

    @abstractmethod
    def delete(self, name: str, uid: str) -> None:
        """Remove what is left of the job, if it is still this one. Absent is fine."""

    def wait(self, name: str, seconds: float) -> None:
        """Return when the job may have changed, after `seconds` at the latest."""
        time.sleep(seconds)

    def replace(self, name: str, pods: tuple[str, ...]) -> None:
        """Give up these pods of the job, which are on nodes that are gone. Only a cluster with pods has any."""
        raise InvalidSpec(f"{name} has no pods to replace")

    @abstractmethod
    def logs(self, name: str, offset: int = 0) -> str:
        """What the job printed, from a character offset on, as far as the cluster has it; the store has what drivers printed."""

    def log_tail(self, name: str) -> str:
        """The last 40 lines."""
        return "\n".join(self.logs(name).splitlines()[-40:])


def labels_of(attempt: Attempt) -> dict[str, str]:
    """What a job carries about its owner: strings alone."""
    return {
        "deployment": attempt.deployment,
        "base": attempt.base,
        "number": str(attempt.number),
        "asset": attempt.asset,
        "days": ",".join(attempt.days),
        "generation": attempt.generation,
        "root_run": attempt.root_run,
        "spec": attempt.spec_hash,
    }
