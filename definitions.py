"""Everything Dagster loads: assets, checks, jobs, triggers."""

import dagster as dg

from orchestration import checks
from orchestration.curation.assets import measurements, verdicts
from orchestration.dataset.assets import curated_dataset, dataset_at_compute
from orchestration.evaluation.assets import champion, curation_effect, evaluation
from orchestration.ingest.assets import episodes, uploads
from orchestration.placement.asset import placement
from orchestration.steps import Flywheel
from orchestration.training.assets import policy, tuning
from orchestration.triggers import jobs, sensors

defs = dg.Definitions(
    assets=[uploads, episodes, measurements, verdicts, curated_dataset, placement, dataset_at_compute, tuning, policy, evaluation, champion, curation_effect],
    asset_checks=checks.ALL,
    jobs=[jobs.index_uploads, jobs.curate, jobs.learn, jobs.tune, jobs.study, jobs.promote, jobs.rollback],
    sensors=[sensors.arrivals, sensors.changed, sensors.reconciler, sensors.sweeper],
    schedules=[sensors.daily],
    resources={"flywheel": Flywheel()},
    executor=dg.in_process_executor,  # the steps only launch and wait; a process each would cost four seconds a run
)
