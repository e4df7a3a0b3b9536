"""One launcher against the real cluster: steps of the protocol with small real jobs, without Dagster around them."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dagster import DagsterExecutionInterruptedError

from orchestration.launching.code import archive, code
from orchestration.launching.kuberay.api import Kubernetes
from orchestration.launching.kuberay.target import KubeRayTarget
from orchestration.launching.protocol import run_step
from orchestration.launching.shell import Ports, perform
from orchestration.launching.target import Target
from orchestration.launching.work import Budgets, Outcome, Resources, RunInfo, Work, base_of
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.store import Store, StoreConfig
from testbed import audit
from tests.cluster.cluster import BUDGET_S, SECRET, Cluster, until

DAY = "2026-01-05"
HERE = Path(__file__).parent
START = datetime(2026, 11, 21, tzinfo=UTC)
BUDGETS = Budgets(queued=300.0, starting=240.0, running=600.0, unreachable=120.0, stopping=60.0)


@dataclass
class Bench:
    """One test's own launcher. `token` keeps its names apart from every other test's; `status` is what Dagster says of every run."""

    cluster: Cluster
    token: str
    manifest: Path
    since: datetime = field(default_factory=audit.now)
    began: float = field(default_factory=time.monotonic)
    status: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    bases: set[str] = field(default_factory=set)
    extra_code: dict[str, bytes] = field(default_factory=dict)
    job_store: StoreConfig | None = None  # where jobs believe the store to be, if not where the launcher does

    def __post_init__(self) -> None:
        self.store = Store(self.cluster.store)

    # -- what is launched

    def target(self, manifest: Path | None = None, api: Kubernetes | None = None, **options: Any) -> KubeRayTarget:
        api = api or Kubernetes(self.cluster.namespace, self.cluster.launcher)
        return KubeRayTarget(api, manifest or self.manifest, self.job_store or self.cluster.store, self.code_uri, secret=SECRET, **options)

    def code_uri(self, sha256: str) -> str:
        """The project's archive, with the probe job and what a test edited."""
        files = {f"tests/cluster/{path.relative_to(HERE)}": path.read_bytes() for path in [HERE / "__init__.py", *(HERE / "jobs").glob("*.py")]}
        key = f"code/tests-{self.token}-{sha256[:8]}/flywheel.zip"
        self.store.put(key, archive({**code().files, "tests/__init__.py": b"", **files, **self.extra_code}))
        return f"{self.cluster.store.url}/{key}"

    def work(self, mode: str = "ok", budgets: Budgets = BUDGETS, resources: Resources | None = None, version: str = "1", **more: Any) -> Work:
        store = (self.job_store or self.cluster.store).model_dump()
        fixed = {"store": store, "marks": self.marks, "mode": mode, **more}
        return Work(
            asset=f"probe-{self.token}",
            days=(DAY,),
            module="tests.cluster.jobs.probe",
            config_for=lambda days: {**fixed, "days": list(days)},
            settings={"mode": mode},
            code=version,
            budgets=budgets,
            resources=resources or Resources(memory_limit=3 * 2**30),
            deployment=self.deployment,
        )

    def run(self, number: int = 1, root: int = 1, retry: bool = False) -> RunInfo:
        return RunInfo(f"{self.token}-{number:04d}", f"{self.token}-{root:04d}", START + timedelta(seconds=number), retry)

    def perform(self, work: Work, run: RunInfo | None = None, target: Target | None = None, interrupted_if: Callable[[], bool] = lambda: False) -> Outcome:
        """Do the step. `interrupted_if`: raise into it, as Dagster does, as soon as this is true."""
        run = run or self.run()
        self.bases.add(base_of(work, run))
        self.status.setdefault(run.run_id, "STARTED")

        def log(line: str) -> None:
            self.lines.append(line)
            print(f"{time.monotonic() - self.began:7.1f} {line}", flush=True)

        ports = Ports(self.store, target or self.target(), lambda: self.status[run.run_id], log, self.messages.append, self.printed.append)
        return perform(_interruptible(run_step(work, run), interrupted_if), ports)

    def begin(self, work: Work, run: RunInfo | None = None, target: Target | None = None, interrupted_if: Callable[[], bool] = lambda: False) -> "Going":
        """The same in a thread of its own."""
        going = Going()

        def do() -> None:
            try:
                going.outcome = self.perform(work, run, target, interrupted_if)
            except (FlywheelError, DagsterExecutionInterruptedError) as error:  # the test looks at it; any other is pytest's to tell
                going.error = error

        going.thread = threading.Thread(target=do, daemon=True)
        going.thread.start()
        return going

    # -- what happened

    @property
    def marks(self) -> str:
        return f"marks/{self.token}"

    @property
    def deployment(self) -> str:
        """Of this test alone: a reconciler removes the jobs of its deployment, and other tests run beside this one."""
        return f"test-{self.token}"

    @property
    def prefix(self) -> str:
        """What every RayJob of this test is called."""
        return f"probe-{self.token}"

    def go(self) -> None:
        self.store.put(f"{self.marks}/go", b"")

    def starts(self) -> list[str]:
        """The executions that began, oldest first."""
        return sorted(entry.key.rsplit("/", 1)[1] for entry in self.store.list(f"{self.marks}/starts/"))

    def executions(self) -> list[str]:
        """The same of a job that leaves no marks: the folders below its attempts."""
        keys = [entry.key for base in self.bases for entry in self.store.list(f"attempts/{base}/")]
        return sorted({"/".join(key.split("/")[:4]) for key in keys if key.count("/") >= 4})

    def await_start(self, count: int = 1, budget_s: float = BUDGET_S) -> None:
        until(lambda: len(self.starts()) >= count, f"start {count} of the driver", budget_s)

    def tasks(self) -> dict[str, str]:
        """task -> the execution that did it."""
        return {entry.key.rsplit("/", 1)[1]: self.store.get(entry.key).decode().split()[0] for entry in self.store.list(f"{self.marks}/tasks/")}

    def pointers(self) -> list[str]:
        return [entry.key for entry in self.store.list(f"partitions/{self.prefix}/")]

    def created(self) -> list[str]:
        """The names of the RayJobs that were ever created for this test, one for each uid."""
        return sorted(name for name, _ in self.cluster.created(self.since) if name.startswith(self.prefix))

    def assert_once(self, created: int = 1, budget_s: float = 60.0) -> None:
        """Published once, as many RayJobs as expected were ever made, and nothing is left."""
        assert len(self.pointers()) == 1, self.pointers()
        assert len(self.created()) == created, self.created()
        self.assert_nothing_left(budget_s)

    def assert_nothing_left(self, budget_s: float = 60.0) -> None:
        until(lambda: not self.cluster.left(self.prefix), f"the end of {self.cluster.left(self.prefix)}", budget_s)


@dataclass
class Going:
    """A step at work in a thread."""

    thread: threading.Thread | None = None
    outcome: Outcome | None = None
    error: FlywheelError | DagsterExecutionInterruptedError | None = None

    def end(self, budget_s: float = 300.0) -> Outcome:
        assert self.thread is not None
        self.thread.join(budget_s)
        assert not self.thread.is_alive(), f"the step was not over within {budget_s:.0f} s"
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome


def _interruptible(program: Any, interrupted_if: Callable[[], bool]) -> Any:
    """The same program, into which the interruption is raised at the next effect."""
    reply: Any = None
    error: BaseException | None = None
    interrupted = False
    while True:
        try:
            effect = program.throw(error) if error is not None else program.send(reply)
        except StopIteration as stop:
            return stop.value
        reply, error = None, None
        if not interrupted and interrupted_if():
            interrupted, error = True, DagsterExecutionInterruptedError()
            continue
        try:
            reply = yield effect
        except FlywheelError as raised:  # an effect's: of the store, or of the cluster; the program decides
            error = raised


def token() -> str:
    return os.urandom(3).hex()
