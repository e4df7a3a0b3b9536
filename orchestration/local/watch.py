"""Watch one run from outside and tell a person how it goes: day, asset, stage, rate, time left."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dagster import DagsterEventType, DagsterInstance

from orchestration.local.graphql import DONE, GraphQL
from orchestration.steps import PROGRESS
from ray_jobs.seam.errors import StoreError

POLL_S = 0.4
SAY_EVERY_S = 2.0


@dataclass
class Watch:
    """What was seen of a run so far. `failure` is the one line that a step or the run failed with."""

    instance: DagsterInstance
    graphql: GraphQL
    say: Callable[[str], None] = lambda line: print(line, flush=True)
    cursor: str | None = None
    failure: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)
    _said: dict[str, float] = field(default_factory=dict)

    def run(self, run_id: str, label: str, budget_s: float) -> str:
        """Follow the run to its end; returns its final status. Raises StoreError past the budget."""
        deadline = time.monotonic() + budget_s
        self.cursor = None
        while time.monotonic() < deadline:
            status = self.graphql.status(run_id)
            self._read(run_id, label)
            if status in DONE:
                return status
            time.sleep(POLL_S)
        raise StoreError(f"{label}: the run {run_id} was not over within {budget_s:.0f} s")

    def _read(self, run_id: str, label: str) -> None:
        records = self.instance.get_records_for_run(run_id, cursor=self.cursor)
        self.cursor = records.cursor
        for record in records.records:
            entry = record.event_log_entry
            if not entry.dagster_event:
                if PROGRESS in entry.user_message:
                    self._progress(label, entry.step_key or "", entry.timestamp, json.loads(entry.user_message.split(PROGRESS, 1)[1]))
                continue
            kind, step = entry.dagster_event.event_type, entry.step_key or ""
            if kind == DagsterEventType.STEP_START:
                self._started[step] = entry.timestamp
            elif kind == DagsterEventType.STEP_SUCCESS:
                self.seconds[step] = entry.timestamp - self._started.get(step, entry.timestamp)
                if not any(step.startswith(asset + "_") for asset in self._started):  # a check's step is named after its asset
                    self.say(f"{label}  {step:<19} done in {self.seconds[step]:.1f} s")
            elif kind in (DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE):
                self.failure = self.failure or _one_line(entry.dagster_event.message, getattr(entry.dagster_event.event_specific_data, "error", None))

    def _progress(self, label: str, asset: str, at: float, message: dict[str, object]) -> None:
        """A line a second for each stage is enough for a person; its last line always comes."""
        stage = f"{asset} {message.get('stage')} {message.get('day')}"
        if message.get("done") == message.get("total") or at - self._said.get(stage, 0.0) >= SAY_EVERY_S:
            self._said[stage] = at
            self.say(progress_line(label, asset, message))


def _one_line(message: str | None, error: object) -> str:
    text = str(getattr(error, "message", "") or message or "the run failed without a word")
    return " ".join(text.replace("dagster._core.definitions.events.Failure: ", "").split())


def progress_line(label: str, asset: str, message: dict[str, object]) -> str:
    """One line of progress: 2026-01-05  measurements  image 12/36 episodes, 4.1/s, 6 s left."""
    done, total, elapsed = float(str(message.get("done", 0))), float(str(message.get("total", 0))), float(str(message.get("elapsed_s", 0)))
    rate = float(str(message.get("rate") or (done / elapsed if elapsed > 0 else 0.0)))
    left = f", {(total - done) / rate:.0f} s left" if rate and total > done else ""
    label = str(message.get("day") or label)
    return f"{label}  {asset:<19} {message.get('stage', '')} {done:.0f}/{total:.0f} {message.get('unit', '')}, {rate:.1f}/s{left}"
