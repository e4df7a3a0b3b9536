"""`make loop`: real Dagster runs on an embedded Ray, day by day, and a table of what came of it."""

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TextIO

import yaml
from dagster import DagsterInstance

from orchestration.launching.head import Head
from orchestration.local import dagster_dev, report
from orchestration.local.graphql import DONE, GraphQL
from orchestration.local.watch import Watch
from orchestration.settings import REPOSITORY, Settings, load
from ray_jobs.seam.configs import UploadsConfig
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.layout import UNPARTITIONED
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store, StoreConfig

RUN_BUDGET_S = 3600.0
CANCEL_BUDGET_S = 40.0
DAYS = 3
GAP_DAYS = 14
PACK = ["curated_dataset", "dataset_at_compute"]


class Loop:
    """One loop over one home: the processes it needs, and the runs it launches."""

    def __init__(self, settings: Settings, document: Path):
        self.settings, self.document = settings, document
        self.store = Store(settings.store_config())
        self.environ = dagster_dev.environment(settings, document) | {"FLYWHEEL_TRIGGERS__ENABLED": "false"}
        self.active: str | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Dagster up until the block ends; however it ends, no run, no Dagster and no Ray is left."""
        os.environ.update(self.environ)
        with dagster_dev.dagster_dev(self.settings, self.document) as dagster, DagsterInstance.from_config(self.environ["DAGSTER_HOME"]) as instance:
            self.graphql = GraphQL(dagster.url)
            self.watch = Watch(instance, self.graphql)
            self._sweep()
            try:
                yield
            finally:
                self._cancel_active()
                Head(self.settings.home_path).stop()

    def _sweep(self) -> None:
        """Runs that a killed loop left as STARTED have no process any more: without this they would hold their place."""
        for run in self.graphql.runs({"statuses": ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"]}):
            self.graphql.stop(run["runId"], at_once=True)

    def _cancel_active(self) -> None:
        if self.active is None:
            return
        if self.graphql.status(self.active) not in DONE:
            print("stopping the run and its Ray job", flush=True)
            self.graphql.stop(self.active)
            self.graphql.await_run(self.active, CANCEL_BUDGET_S)

    def run(self, job: str, label: str, day: str | None = None, last_day: str | None = None, assets: list[str] | None = None) -> float:
        """Launch, follow, and insist on success; returns seconds. Raises UserError with the step's own one line."""
        started = time.monotonic()
        self.watch.failure = None
        self.active = self.graphql.launch(job, day, last_day, assets)
        status = self.watch.run(self.active, label, RUN_BUDGET_S)
        run_id, self.active = self.active, None
        if status != "SUCCESS":
            raise UserError(f"{label}: {job} ended with {status}: {self.watch.failure or 'see `make ui`'} (run {run_id})")
        return time.monotonic() - started


def demo(days: int = DAYS) -> list[dict[str, Any]]:
    """Three days of the simulated fleet: each is recorded, curated, trained on and gated before the next one comes."""
    document = REPOSITORY / "flywheel.yaml"
    settings = load(document)
    with only_one(settings.home_path):
        loop = Loop(settings, document)
        first = date.fromisoformat(settings.first_day)
        names = [(first + timedelta(days=number)).isoformat() for number in range(days)]
        rows = []
        with loop.running():
            for day in names:
                seconds = record(settings, day)
                seconds += loop.run("index_uploads", day)
                seconds += loop.run("curate", day, day)
                if settings.tuning is not None and day == names[-1] and len(names) > 1:
                    seconds += loop.run("tune", names[-2], names[-2])
                seconds += loop.run("learn", day, day)
                if day == names[-1]:
                    seconds += loop.run("study", day, day)
                rows.append(report.day_row(loop.store, day, seconds))
        return rows


def own(folder: Path) -> list[dict[str, Any]]:
    """Own recordings: everything below the folder, read in place; to the packed dataset, and a policy where actions allow."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: DATA must name the folder that holds your recordings")
    home = own_home(folder)
    document = own_document(home, folder)
    settings = load(document)
    with only_one(home):
        loop = Loop(settings, document)
        rows = []
        with loop.running():
            loop.run("index_uploads", "index")
            index = read_pointer(loop.store, "uploads", UNPARTITIONED)
            days = sorted(index.output["days"]) if index else []
            if not days:
                print(f"nothing to ingest below {folder}: {index.counts if index else {}}", flush=True)
                return []
            seconds = 0.0
            for first, last in stretches(days):
                label = first if first == last else f"{first}..{last}"
                seconds += loop.run("curate", label, first, last)
                seconds += loop.run("learn", label, first, last, PACK)
            seconds += loop.run("learn", days[-1], days[-1])
            for day in days:
                rows.append(report.day_row(loop.store, day, seconds / len(days)))
        return rows


def stretches(days: list[str]) -> list[tuple[str, str]]:
    """(first, last) of each run of days, given in order, that no more than GAP_DAYS part: a range of years costs a run for all its empty days."""
    found: list[tuple[str, str]] = []
    for day in days:
        if found and (date.fromisoformat(day) - date.fromisoformat(found[-1][1])).days <= GAP_DAYS:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def own_home(folder: Path) -> Path:
    """Where the loop over this folder lives, below the demo's home; made the environment's home, which outranks documents."""
    slug = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    home = load(REPOSITORY / "flywheel.yaml").home_path / "own" / f"{slug}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["FLYWHEEL_HOME"] = str(home)
    return home


def own_document(home: Path, folder: Path) -> Path:
    """Settings for own recordings, written once so that a person may edit them; the first day is that of the oldest upload."""
    document = home / "flywheel.yaml"
    if document.exists():
        return document
    raw = StoreConfig.local(folder)
    config = UploadsConfig(store=StoreConfig.local(home / "store"), raw=raw)
    with (home / "peek.json").open("w") as handle:
        handle.write(config.model_dump_json())
    found = subprocess.run(
        [sys.executable, "-m", "ray_jobs.ingest.index", "--config", str(home / "peek.json")], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise UserError((found.stderr.strip().splitlines() or ["the folder cannot be read"])[-1])
    days = json.loads(found.stdout.strip().splitlines()[-1])["days"]
    settings = {
        "deployment": home.name,
        "home": str(home),
        "raw": {"url": raw.url},
        "first_day": min(days, default=date.today().isoformat()),
        "evaluation": {"evaluator": None},
    }
    document.write_text(
        "# Written by `make loop DATA=…`; edit it as you like, it is kept. Every key: orchestration/settings.py\n" + yaml.safe_dump(settings, sort_keys=False)
    )
    return document


def record(settings: Settings, day: str) -> float:
    """Let the fleet record the day, unless it has. The truth about the planted defects goes where no asset or job looks."""
    truth = settings.home_path / "truth"
    mark = truth / f"{day}.recorded"
    if mark.exists():
        return 0.0
    started = time.monotonic()
    raw = settings.home_path / "raw"
    command = [sys.executable, "-m", "fleet", "record", "--raw", str(raw), "--truth", str(truth), "--days", day]
    done = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError("the fleet did not record: " + (done.stderr.strip().splitlines() or ["no word"])[-1])
    mark.touch()
    seconds = time.monotonic() - started
    print(f"{day}  the fleet recorded in {seconds:.1f} s", flush=True)
    return seconds


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """One loop per home at a time. Raises UserError where another is running."""
    home.mkdir(parents=True, exist_ok=True)
    lock: TextIO
    with (home / "loop.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another loop is running in {home}: wait for it or end it with Ctrl-C") from None
        yield
