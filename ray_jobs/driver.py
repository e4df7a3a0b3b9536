"""One start of a job's driver: mint an execution, run the step, and write closed.json last.

`python -m ray_jobs.<step> --attempt attempts/<base>/a<n>/attempt.json --store '{"url": …}'` under the launcher;
`python -m ray_jobs.<step> --config file.json` by hand, without Dagster.
"""

import argparse
import json
import logging
import os
import resource
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ray_jobs.seam.configs import JobConfig
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.results import Closed, DayResult, JobError
from ray_jobs.seam.store import Store, StoreConfig


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
        self.report({"day": day, "stage": stage, "done": done, "total": total, "unit": unit, "elapsed_s": round(elapsed, 1)})

    def siblings(self) -> list[str]:
        """Prefixes of the other executions of this base, this attempt's and earlier ones', to resume from."""
        base = self.prefix.rsplit("/", 2)[0]
        found = {"/".join(entry.key.split("/")[:4]) for entry in self.store.list(base + "/") if entry.key.count("/") >= 4}
        return sorted(found - {self.prefix})


Step = Callable[[Any, Execution], dict[str, DayResult]]


def connect() -> None:
    """Join the cluster this job was launched on (RAY_ADDRESS), else a small one of our own. No-op when already connected."""
    import ray

    if ray.is_initialized():
        return
    address = "auto" if os.environ.get("RAY_ADDRESS") else "local"
    options: dict[str, Any] = {} if address == "auto" else {"num_cpus": max(4, (os.cpu_count() or 1) + 2), "include_dashboard": False}
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **options)


def main(step: str, config_type: type[JobConfig], run: Step) -> None:
    """Run a step as a process. Exit 0: closed.json is written (by us or by a sibling); 1: error.json says why."""
    parser = argparse.ArgumentParser(prog=f"python -m ray_jobs.{step}")
    parser.add_argument("--attempt", help="key of attempt.json in the store")
    parser.add_argument("--store", help="the store, as JSON")
    parser.add_argument("--config", type=Path, help="a config document, to run by hand")
    arguments = parser.parse_args()
    try:
        if arguments.attempt:
            store = Store(StoreConfig.model_validate_json(arguments.store))
            prefix = arguments.attempt.rsplit("/", 1)[0]
            document = json.loads(store.get(arguments.attempt))["config"]
        else:
            document = json.loads(arguments.config.read_text())
            prefix = f"attempts/by-hand-{step.replace('_', '-')}/a1"
        config = config_type.model_validate(document)
        store = Store(config.store)
    except (ValidationError, OSError, json.JSONDecodeError) as error:
        sys.exit(f"the config of {step} is not valid: {error}")
    sys.exit(execute(step, config, store, prefix, run))


def execute(step: str, config: JobConfig, store: Store, attempt_prefix: str, run: Step) -> int:
    if any(entry.key.endswith("/closed.json") for entry in store.list(attempt_prefix + "/")):
        print("a sibling execution has closed this attempt", flush=True)
        return 0
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
    execution = Execution(store, f"{attempt_prefix}/{name}")
    sys.excepthook = lambda kind, error, trace: _unexpected(execution, kind, error, trace)
    try:
        days = run(config, execution)
    except FlywheelError as error:
        return _failed(execution, JobError(failure_class=error.failure_class, message=str(error)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    closed = Closed(step=step, execution=name, days=days, seconds=time.monotonic() - execution.started, peak_memory_bytes=peak)
    store.put(f"{execution.prefix}/closed.json", closed.model_dump_json().encode())
    return 0


def _unexpected(execution: Execution, kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Whatever nobody foresaw still leaves its evidence in the store before the process ends with 1."""
    evidence = "".join(traceback.format_exception(kind, error, trace))[-4000:]
    _failed(execution, JobError(failure_class="user", message=f"{kind.__name__}: {error}", evidence=evidence))


def _failed(execution: Execution, error: JobError) -> int:
    print(f"{error.message}\n{error.evidence}".rstrip(), file=sys.stderr, flush=True)
    execution.store.put(f"{execution.prefix}/error.json", error.model_dump_json().encode())
    return 1
