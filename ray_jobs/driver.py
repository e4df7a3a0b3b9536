"""One start of a job's driver: mint an execution, run the step, and write closed.json last.

`python -m ray_jobs.guard ray_jobs.<step> --attempt attempts/<base>/a<n>/attempt.json --store '{"url": …}'` under the launcher;
`python -m ray_jobs.<step> --config file.json` by hand, without Dagster.
"""

import argparse
import errno
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext
from pydantic import ValidationError

from ray_jobs.guard import EXECUTION, execution_name
from ray_jobs.messages import open_messages
from ray_jobs.ray_errors import class_of, telling_line
from ray_jobs.seam.configs import JobConfig
from ray_jobs.seam.errors import FailureClass, FlywheelError, StoreError, UserError
from ray_jobs.seam.results import REPORT_MARK, Closed, DayResult, JobError
from ray_jobs.seam.store import Store, StoreConfig


class DeadlineExceeded(FlywheelError, KeyboardInterrupt):
    """The job ran for all the time it was given. Never retried by itself: it would do so again."""

    failure_class: FailureClass = "user"


class Terminated(FlywheelError, KeyboardInterrupt):
    """SIGTERM: somebody stopped the job, or its node goes away. What is finished is kept.

    Both are a KeyboardInterrupt, for nothing else that a signal handler raises ends a ray.get that waits; out of that comes a bare one.
    """

    failure_class: FailureClass = "preempted"


@dataclass
class Execution:
    """What a step sees of its own start. `prefix` is its folder in the store: attempts/<base>/a<n>/<execution>."""

    store: Store
    prefix: str
    started: float = field(default_factory=time.monotonic)
    report: Callable[[dict[str, Any]], None] = lambda message: print(json.dumps(message), flush=True)

    def progress(self, day: str, stage: str, done: int, total: int, unit: str = "episodes") -> None:
        """Tell the person who watches: one line, and one message through the store where a launcher listens."""
        elapsed = time.monotonic() - self.started
        message = {"day": day, "stage": stage, "done": done, "total": total, "unit": unit, "elapsed_s": round(elapsed, 1)}
        self.report({**message, "peak_memory_bytes": peak_memory()})

    def siblings(self) -> list[str]:
        """Prefixes of the other executions of this base, this attempt's and earlier ones', to resume from."""
        base = self.prefix.rsplit("/", 2)[0]
        found = {"/".join(entry.key.split("/")[:4]) for entry in self.store.list(base + "/") if entry.key.count("/") >= 4}
        return sorted(found - {self.prefix})


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

Step = Callable[[Any, Execution], dict[str, DayResult]]


def connect() -> None:
    """Join the cluster this job was launched on (RAY_ADDRESS), else a small one of our own. No-op when already connected."""
    import ray

    if ray.is_initialized():
        return
    address = "auto" if os.environ.get("RAY_ADDRESS") else "local"
    options: dict[str, Any] = {} if address == "auto" else {"num_cpus": max(4, (os.cpu_count() or 1) + 2), "include_dashboard": False}
    on_term = signal.getsignal(signal.SIGTERM)
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **options)
    if callable(on_term) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)  # Ray's own handler leaves without a word


def peak_memory() -> int:
    """Bytes that this process has had resident at most; those of Ray's workers are not among them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(step: str, config_type: type[JobConfig], run: Step) -> None:
    """Run a step as a process. Exit 0: closed.json is written (by us or by a sibling); 1: error.json says why."""
    parser = argparse.ArgumentParser(prog=f"python -m ray_jobs.{step}")
    parser.add_argument("--attempt", help="key of attempt.json in the store")
    parser.add_argument("--store", help="the store, as JSON")
    parser.add_argument("--config", type=Path, help="a config document, to run by hand")
    arguments = parser.parse_args()
    if not arguments.config and not (arguments.attempt and arguments.store):
        parser.error("give --config, or --attempt and --store")
    try:
        sys.exit(_launched(step, config_type, run, arguments) if arguments.attempt else _by_hand(step, config_type, run, arguments.config))
    except FlywheelError as error:  # before there was an execution, or the store itself
        _print_report(JobError(failure_class=error.failure_class, message=str(error)))
        sys.exit(1)


def _launched(step: str, config_type: type[JobConfig], run: Step, arguments: argparse.Namespace) -> int:
    attempt_prefix = arguments.attempt.rsplit("/", 1)[0]
    store = Store(_parsed(step, lambda: StoreConfig.model_validate_json(arguments.store)))
    attempt = _parsed(step, lambda: json.loads(store.get(arguments.attempt)))
    config = _parsed(step, lambda: config_type.model_validate(attempt["config"]))
    return execute(step, config, store, attempt_prefix, run, attempt)


def _by_hand(step: str, config_type: type[JobConfig], run: Step, path: Path) -> int:
    config = _parsed(step, lambda: config_type.model_validate(json.loads(path.read_text())))
    return execute(step, config, Store(config.store), f"attempts/by-hand-{step.replace('_', '-')}/a1", run)


def _parsed(step: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'document'}: {item['msg']}" for item in error.errors())
        raise UserError(f"the config of {step} is not valid: {told}") from error
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"the config of {step} cannot be read: {error}") from error


def execute(step: str, config: JobConfig, store: Store, attempt_prefix: str, run: Step, attempt: dict[str, Any] | None = None) -> int:
    """One execution. `attempt`, the attempt's document, says that a launcher listens. -> the exit code."""
    if attempt is not None and (reason := _already_over(store, attempt_prefix)):
        print(reason, flush=True)
        return 0
    name = os.environ.get(EXECUTION) or execution_name()
    execution = Execution(store, f"{attempt_prefix}/{name}")
    pipes: PipesContext | None = None
    if attempt is not None:
        pipes = open_messages(store, execution.prefix, attempt["asset"], attempt["run_id"], config.days)
        execution.report = pipes.report_custom_message
    sys.excepthook = lambda kind, error, trace: _unexpected(execution, kind, error, trace)
    try:
        with _ends_in_time(config.deadline_s):
            days = run(config, execution)
        closed = Closed(step=step, execution=name, days=days, seconds=time.monotonic() - execution.started, peak_memory_bytes=peak_memory())
        if pipes is not None:
            pipes.close()
        store.put(f"{execution.prefix}/closed.json", closed.model_dump_json().encode())
    except FlywheelError as error:
        return _failed(execution, JobError(failure_class=error.failure_class, message=str(error)))
    return 0


def _already_over(store: Store, attempt_prefix: str) -> str | None:
    """A restart under the same name, or a create that arrived late, must not do again what is closed or given up."""
    keys = [entry.key for entry in store.list(attempt_prefix + "/")]
    if any(key.endswith("/closed.json") for key in keys):
        return "a sibling execution has closed this attempt"
    return "this attempt has ended" if f"{attempt_prefix}/ended.json" in keys else None


@contextmanager
def _ends_in_time(deadline_s: float) -> Iterator[None]:
    """SIGTERM and the deadline end the step as errors that say so, wherever its main thread is."""

    raised: list[FlywheelError] = []

    def on_alarm(signum: int, frame: Any) -> None:
        raised.append(
            DeadlineExceeded(f"the job did not finish within its {deadline_s:.0f} s; raise deadline_s or give it fewer days, what it finished is kept")
        )
        raise raised[-1]

    def on_term(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # asked once is asked: the guard passes on what the whole group got
        raised.append(Terminated("the job was asked to stop (SIGTERM); what it finished is kept"))
        raise raised[-1]

    before = {signal.SIGALRM: signal.signal(signal.SIGALRM, on_alarm), signal.SIGTERM: signal.signal(signal.SIGTERM, on_term)}
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    try:
        yield
    except KeyboardInterrupt as error:
        if raised and not isinstance(error, FlywheelError):
            raise raised[-1] from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _unexpected(execution: Execution, kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Whatever nobody foresaw still leaves its evidence in the store before the process ends with 1."""
    evidence = "".join(traceback.format_exception(kind, error, trace))[-4000:]
    failure: FailureClass = "out_of_memory" if isinstance(error, MemoryError) else class_of(error) or "user"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        failure, evidence = "infrastructure", ""
    _failed(execution, JobError(failure_class=failure, message=f"{kind.__name__}: {telling_line(error)}", evidence=evidence))


def _failed(execution: Execution, report: JobError) -> int:
    try:
        execution.store.put(f"{execution.prefix}/error.json", report.model_dump_json().encode())
        print(f"{report.message}\n{report.evidence}".rstrip(), file=sys.stderr, flush=True)
    except StoreError:
        _print_report(report)  # the log is the last way to be heard
    return 1


def _print_report(report: JobError) -> None:
    print(f"{REPORT_MARK}{report.model_dump_json()}\n{report.message}", file=sys.stderr, flush=True)
