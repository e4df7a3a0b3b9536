"""The glue between a Dagster step and the execution protocol: heavy steps launch a Ray job, light ones decide by themselves."""

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import DagsterInstance, RunsFilter

from orchestration.launching.code import code
from orchestration.launching.head import Head
from orchestration.launching.places import build
from orchestration.launching.protocol import run_step
from orchestration.launching.shell import Ports, perform, publish, publish_next
from orchestration.launching.target import Target
from orchestration.launching.work import DayOutcome, Outcome, Resources, RunInfo, Work
from orchestration.settings import EMBEDDED, REPOSITORY, Settings, current
from ray_jobs.seam.configs import JobConfig
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.model import Strict, digest
from ray_jobs.seam.results import DayResult, Pointer, read_pointer
from ray_jobs.seam.store import Store

PROGRESS = "flywheel progress "  # the prefix by which a log line is known as a progress message


class Flywheel(dg.ConfigurableResource):
    """The deployment as a step sees it: its settings, its store, its launch target."""

    @property
    def settings(self) -> Settings:
        return current()

    @property
    def store(self) -> Store:
        return Store(current().store_config())

    def existing_targets(self, on_error: Callable[[str, str], None]) -> dict[str, Target]:
        """Every target whose Ray may hold jobs of ours, by name: looking must not start one. `on_error`: (name, why it cannot be used)."""
        found: dict[str, Target] = {}
        for name in sorted({EMBEDDED, *current().targets}):
            if name != EMBEDDED or Head(current().home_path).alive():
                try:
                    found[name] = self.target(name)
                except FlywheelError as error:
                    on_error(name, str(error))
        return found

    def target(self, name: str) -> Target:
        return build(name, current().place(name), current().home_path, current().store_config())


@dataclass(frozen=True)
class Planned:
    """What a heavy asset wants done for some days. `settings` is all of its configuration that does not depend on a day."""

    asset: str
    module: str
    settings: Any
    day_inputs: dict[str, dict[str, str]]  # day -> what was read -> its digest, absences listed
    config_for: Callable[[tuple[str, ...]], JobConfig]
    finish: Callable[[str, DayResult], DayResult] | None = None
    redo: frozenset[str] = frozenset()  # days to make again though nothing has changed


def needed(pointer: Pointer | None, otherwise: str) -> Pointer:
    if pointer is None:
        raise dg.Failure(otherwise, allow_retries=False)
    return pointer


def run_info(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> RunInfo:
    record = context.instance.get_run_record_by_id(context.run.run_id)
    created = record.create_timestamp if record else datetime.now(UTC)
    created = created if created.tzinfo else created.replace(tzinfo=UTC)
    retry = "dagster/retry_number" in context.run.tags
    return RunInfo(run_id=context.run.run_id, root_run_id=context.run.root_run_id or context.run.run_id, created=created, retry=retry)


def run_status(instance: DagsterInstance, run_id: str) -> str:
    """The run's status now, or NOT_FOUND."""
    run = instance.get_run_by_id(run_id)
    return run.status.value if run else "NOT_FOUND"


def run_is_alive(instance: DagsterInstance, root_run_id: str) -> bool:
    """Does any run of this root still work, queue, or wait to be retried?"""
    runs = [run for run in [instance.get_run_by_id(root_run_id)] if run]
    runs += instance.get_runs(RunsFilter(tags={"dagster/root_run_id": root_run_id}))
    return any(not run.is_finished or run.is_complete_and_waiting_to_retry for run in runs)


def heavy(context: dg.AssetExecutionContext, flywheel: Flywheel, planned: Planned) -> Iterator[dg.MaterializeResult]:
    """Run the step's days as one Ray job where settings say, and tell Dagster what was published."""
    yield from told(context, launch(context, flywheel, planned, tuple(context.partition_keys), flywheel.settings.target_of(planned.asset)))


def launch(context: dg.AssetExecutionContext, flywheel: Flywheel, planned: Planned, days: tuple[str, ...], on: str, placed: str = "") -> Outcome:
    """Make days of an asset by the execution protocol, as one Ray job on the target `on`. `placed`: the decision that chose it, if one did."""
    place = flywheel.settings.place(on)
    work = Work(
        asset=planned.asset,
        days=days,
        module=planned.module,
        settings={"settings": _plain(planned.settings)},
        day_inputs=planned.day_inputs,
        config_for=lambda days: planned.config_for(days).model_dump(mode="json"),
        finish=planned.finish,
        redo=planned.redo,
        code=code().sha256,
        placed=placed,
        deployment=flywheel.settings.deployment,
        resources=Resources(memory_limit=place.memory_limit),
        budgets=place.budgets,
    )
    run = run_info(context)
    try:
        target = flywheel.target(on)
    except FlywheelError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    ports = Ports(
        store=flywheel.store,
        target=target,
        run_status=lambda: run_status(context.instance, run.run_id),
        log=context.log.info,
        on_message=lambda message: _pass_on(context, message),
        on_log=_print,
    )
    try:
        return perform(run_step(work, run), ports)
    except FlywheelError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def _print(text: str) -> None:
    """What the job prints goes where the step prints: into Dagster's compute logs."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _pass_on(context: dg.AssetExecutionContext, message: dict[str, Any]) -> None:
    """What a job says on the way (Dagster Pipes' own message format): progress, and whatever it logs."""
    told = message.get("params") or {}
    if message.get("method") == "report_custom_message" and isinstance(told.get("payload"), dict):
        context.log.info(PROGRESS + json.dumps(told["payload"]))
    elif message.get("method") == "log":
        context.log.info(str(told.get("message")))


def told(context: dg.AssetExecutionContext, outcome: Outcome) -> Iterator[dg.MaterializeResult]:
    """A range is told day by day, each with its own metadata; superseded days are not materialized; bad ones fail the step by name."""
    extra = _times(outcome)
    good = {day: metadata(each.pointer) | extra for day, each in outcome.days.items() if each.pointer and each.state in ("published", "unchanged")}
    failed = {day: each.reason for day, each in outcome.days.items() if each.state == "failed"}
    for day, each in outcome.days.items():
        if each.state == "superseded":
            context.log.warning(f"{day} is superseded: a newer run published {each.reason}")
        elif each.state == "unchanged":
            context.log.info(f"{day} is unchanged: its inputs, settings and code are those of its current publication, so nothing was run")
    if len(good) == len(outcome.days) and not outcome.error:
        if len(good) == 1:
            yield dg.MaterializeResult(metadata=next(iter(good.values())))
        else:
            for day, shown in good.items():
                context.add_asset_metadata(shown, partition_key=day)
            yield dg.MaterializeResult()
        return
    for day, shown in good.items():
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=day, metadata=shown))
    if outcome.error:
        raise dg.Failure(outcome.error, allow_retries=False)
    if failed:
        raise dg.Failure("; ".join(f"{day}: {reason}" for day, reason in failed.items()), allow_retries=False)


def _times(outcome: Outcome) -> dict[str, dg.MetadataValue]:
    """Seconds from one moment of the launch to the next, where both are known."""
    moments = [name for name in ("asked", "submitted", "first_line", "ended", "published") if name in outcome.timings]
    spans = {f"seconds {before} to {after}": outcome.timings[after] - outcome.timings[before] for before, after in itertools.pairwise(moments)}
    return {name: dg.MetadataValue.float(round(value, 3)) for name, value in spans.items()}


def light(
    context: dg.AssetExecutionContext, flywheel: Flywheel, asset: str, partition: str, inputs: dict[str, str], result: DayResult, settings: Any = None
) -> Iterator[dg.MaterializeResult]:
    """Publish what a small step made of one partition by itself."""
    pointer, published = publish_light(context, flywheel, asset, partition, inputs, result, settings)
    if published:
        yield dg.MaterializeResult(metadata=metadata(pointer))


def light_days(
    context: dg.AssetExecutionContext,
    flywheel: Flywheel,
    asset: str,
    settings: Any,
    make: Callable[[str], tuple[dict[str, str], DayResult]],
) -> Iterator[dg.MaterializeResult]:
    """Make and publish each day of the step in order."""
    days: dict[str, DayOutcome] = {}
    for day in context.partition_keys:
        try:
            inputs, result = make(day)
            pointer, published = publish_light(context, flywheel, asset, day, inputs, result, settings)
        except FlywheelError as error:
            days[day] = DayOutcome("failed", reason=str(error))
            continue
        days[day] = DayOutcome("published", pointer) if published else DayOutcome("superseded", reason=pointer.generation)
    yield from told(context, Outcome(days=days))


def light_digest(asset: str, inputs: dict[str, str], settings: Any) -> str:
    """What a small step made a partition of, in one word."""
    return digest(asset, inputs, _plain(settings))


def publish_light(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    flywheel: Flywheel,
    asset: str,
    day: str,
    inputs: dict[str, str],
    result: DayResult,
    settings: Any = None,
) -> tuple[Pointer, bool]:
    """Publish under the run's own generation. -> (ours, True), or (the newer run's, False) where that was published before."""
    pointer = _light_pointer(context, asset, day, inputs, result, settings)
    if publish(flywheel.store, pointer, lambda: run_status(context.instance, pointer.run_id)) == "published":
        return pointer, True
    newer = read_pointer(flywheel.store, asset, day)
    return newer or pointer, False


def publish_place(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    flywheel: Flywheel,
    asset: str,
    chain: str,
    place: str,
    inputs: dict[str, str],
    result: DayResult,
) -> bool:
    """Publish at a place of a chain. -> whether this run got it, or another was first."""
    pointer = _light_pointer(context, asset, chain, inputs, result, None)
    return publish_next(flywheel.store, pointer, place, lambda: run_status(context.instance, pointer.run_id))


def _light_pointer(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, asset: str, day: str, inputs: dict[str, str], result: DayResult, settings: Any
) -> Pointer:
    run = run_info(context)
    return Pointer(
        asset=asset,
        day=day,
        generation=run.generation,
        run_id=run.run_id,
        inputs=inputs,
        input_digest=light_digest(asset, inputs, settings),
        counts=result.counts,
        output=result.output,
        output_digest=result.output_digest,
        shown=result.shown,
    )


def metadata(pointer: Pointer) -> dict[str, dg.MetadataValue]:
    """What a person looks at in the UI: pictures and tables first, then counts, then where everything lies."""
    kinds: dict[str, Callable[[Any], dg.MetadataValue]] = {
        "int": dg.MetadataValue.int,
        "float": dg.MetadataValue.float,
        "text": dg.MetadataValue.text,
        "md": dg.MetadataValue.md,
        "json": dg.MetadataValue.json,
        "url": dg.MetadataValue.url,
    }
    shown: dict[str, dg.MetadataValue] = {name: kinds[value.type](value.value) for name, value in pointer.shown.items()}
    for name, count in pointer.counts.items():
        shown.setdefault(name.replace("_", " "), dg.MetadataValue.int(count))
    for name, value in {"generation": pointer.generation, "attempt": pointer.attempt, "execution": pointer.execution}.items():
        if value:
            shown[name] = dg.MetadataValue.text(value)
    return shown


def subprocess_json(context: dg.AssetExecutionContext, module: str, config: Strict) -> dict[str, Any]:
    """Run a small step of ray_jobs without Ray and read its last line. Raises dg.Failure with the process's own last words."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as document:
        document.write(config.model_dump_json())
        document.flush()
        command = [sys.executable, "-m", module, "--config", document.name]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    for line in done.stderr.splitlines():
        context.log.info(line)
    if done.returncode:
        raise dg.Failure((done.stderr.strip().splitlines() or [f"{module} ended with {done.returncode}"])[-1], allow_retries=False)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.model_dump(mode="json") if isinstance(value, Strict) else value
