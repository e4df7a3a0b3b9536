"""Our side of the overhead: a run worker with one heavy asset, which launches the tiny job where the deployment's settings say.

`python -m benchmarks.overhead_asset turns NAME COUNT` prints one JSON line a turn: {"start", "first_line", "done", "materialized", "metadata"};
the first turn of a process is cold. `… step FOLDER NAME UNTIL [ROOT]` executes one run in the instance of that folder, whose job waits for the
object UNTIL; ROOT is the run that it retries.
"""

import json
import sys
import tempfile
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from benchmarks.tiny_job import TinyConfig
from orchestration.partitions import DAILY
from orchestration.settings import current
from orchestration.steps import Flywheel, Planned, heavy
from ray_jobs.seam.results import read_pointer


def asset(turn: str, until: str | None = None) -> dg.AssetsDefinition:
    """`turn` makes the day's inputs new, so that a job runs."""

    @dg.asset(partitions_def=DAILY, output_required=False)
    def tiny(context: dg.AssetExecutionContext, flywheel: Flywheel):  # type: ignore[no-untyped-def]
        def config(days: tuple[str, ...]) -> TinyConfig:
            return TinyConfig(store=flywheel.settings.store_config(), days=days, until=until)

        days = {day: {"turn": turn} for day in context.partition_keys}
        yield from heavy(context, flywheel, Planned(asset="tiny", module="benchmarks.tiny_job", settings=None, day_inputs=days, config_for=config))

    return tiny


def materialized(turn: str) -> dict[str, Any]:
    day = current().first_day
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        result = dg.materialize([asset(turn)], partition_key=day, resources={"flywheel": Flywheel()}, instance=instance)
        events = {entry.dagster_event.event_type_value: entry for entry in instance.all_logs(result.run_id) if entry.dagster_event}
    pointer = read_pointer(Flywheel().store, "tiny", day)
    assert pointer
    shown: Any = events["ASSET_MATERIALIZATION"].dagster_event
    return {
        "start": events["STEP_START"].timestamp,
        "first_line": pointer.output["first_line"],
        "done": pointer.output["done"],
        "materialized": events["ASSET_MATERIALIZATION"].timestamp,
        "metadata": "answer" in shown.event_specific_data.materialization.metadata,
    }


def step(folder: str, turn: str, until: str, root: str | None = None) -> None:
    """What a run worker does: SIGTERM interrupts it as Dagster interrupts a run, SIGKILL kills it."""
    defs = dg.Definitions(
        assets=[asset(turn, until)], resources={"flywheel": Flywheel()}, jobs=[dg.define_asset_job("tiny_job", "tiny", executor_def=dg.in_process_executor)]
    )
    job = defs.get_job_def("tiny_job")
    tags = {"dagster/partition": current().first_day, **({"dagster/retry_number": "1"} if root else {})}
    with dg.DagsterInstance.local_temp(folder) as instance:
        run = instance.create_run_for_job(job, tags=tags, root_run_id=root, parent_run_id=root)
        execute_run(InMemoryJob(job), run, instance)


if __name__ == "__main__":
    if sys.argv[1] == "turns":
        for number in range(int(sys.argv[3])):
            print(json.dumps(materialized(f"{sys.argv[2]}-{number}")), flush=True)
    else:
        step(*sys.argv[2:])
