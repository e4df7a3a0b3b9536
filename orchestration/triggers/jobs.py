"""The jobs that triggers and people launch: the index, a day up to its verdicts, and a day from there to the champion."""

import dagster as dg

from orchestration.curation.assets import measurements, verdicts
from orchestration.dataset.assets import curated_dataset, dataset_at_compute
from orchestration.evaluation import by_hand
from orchestration.evaluation.assets import champion, curation_effect, evaluation
from orchestration.ingest.assets import episodes, uploads
from orchestration.placement.asset import placement
from orchestration.training.assets import policy, tuning

index_uploads = dg.define_asset_job("index_uploads", [uploads], description="Index what arrived.")
curate = dg.define_asset_job("curate", [episodes, measurements, verdicts], description="Ingest, measure and judge a day.")
learn = dg.define_asset_job(
    "learn",
    [curated_dataset, placement, dataset_at_compute, policy, evaluation, champion],
    description="Pack, place, copy, train, evaluate, and move the champion or not.",
)
tune = dg.define_asset_job("tune", [tuning], description="Search for better training settings at small scale; the policies of the window's days take them.")
study = dg.define_asset_job("study", [curation_effect], description="What curation is worth on a day.")
promote, rollback = by_hand.promote, by_hand.rollback
