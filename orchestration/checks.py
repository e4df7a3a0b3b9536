"""Asset checks: what a person would verify by hand before trusting a day, read from what was published."""

import json

import dagster as dg

from orchestration.curation.assets import verdicts
from orchestration.dataset.assets import curated_dataset, dataset_at_compute
from orchestration.evaluation.assets import evaluation
from orchestration.ingest.assets import episodes
from orchestration.partitions import DAILY
from orchestration.placement.asset import decision_for
from orchestration.placement.decision import COPIES
from orchestration.steps import Flywheel
from ray_jobs.seam.results import Pointer, read_pointer


def _published(context: dg.AssetCheckExecutionContext, flywheel: Flywheel, asset: str) -> list[Pointer]:
    return [pointer for day in context.partition_keys if (pointer := read_pointer(flywheel.store, asset, day))]


def _result(bad: dict[str, str], good: str) -> dg.AssetCheckResult:
    text = "; ".join(f"{day}: {reason}" for day, reason in bad.items()) or good
    return dg.AssetCheckResult(passed=not bad, description=text, metadata={"summary": text})


@dg.asset_check(asset=episodes, partitions_def=DAILY, blocking=True, description="uploaded = ok + quarantined + superseded: nothing is lost.")
def every_upload_accounted_for(context: dg.AssetCheckExecutionContext, flywheel: Flywheel) -> dg.AssetCheckResult:
    bad = {}
    for pointer in _published(context, flywheel, "episodes"):
        counts = pointer.counts
        parts = counts.get("ok", 0) + counts.get("quarantined", 0) + counts.get("superseded", 0)
        if counts.get("uploaded", 0) != parts:
            bad[pointer.day] = f"{counts.get('uploaded', 0)} uploaded, but {parts} accounted for"
    return _result(bad, "every uploaded episode is a row")


@dg.asset_check(asset=verdicts, partitions_def=DAILY, blocking=True, description="uploaded = kept + rejected + quarantined + superseded.")
def counts_add_up(context: dg.AssetCheckExecutionContext, flywheel: Flywheel) -> dg.AssetCheckResult:
    bad = {}
    for pointer in _published(context, flywheel, "verdicts"):
        counts = pointer.counts
        parts = sum(counts.get(name, 0) for name in ("kept", "rejected", "quarantined", "superseded"))
        if counts.get("uploaded", 0) != parts:
            bad[pointer.day] = f"{counts.get('uploaded', 0)} uploaded, but {parts} judged"
    return _result(bad, "every uploaded episode has one verdict")


@dg.asset_check(asset=verdicts, partitions_def=DAILY, description="Has the fleet's context changed since these verdicts (a late upload on an earlier day)?")
def context_is_current(context: dg.AssetCheckExecutionContext, flywheel: Flywheel) -> dg.AssetCheckResult:
    from orchestration.curation.decide import context_digest

    bad = {
        pointer.day: "earlier days have changed since: a backfill of verdicts re-judges"
        for pointer in _published(context, flywheel, "verdicts")
        if pointer.output.get("context") != context_digest(flywheel.store, pointer.day, flywheel.settings.thresholds)
    }
    text = "; ".join(f"{day}: {reason}" for day, reason in bad.items()) or "the context is current"
    return dg.AssetCheckResult(passed=not bad, severity=dg.AssetCheckSeverity.WARN, description=text)


@dg.asset_check(asset=curated_dataset, partitions_def=DAILY, blocking=True, description="The packed day is LeRobot v3.0; its files are the manifest's.")
def dataset_format(context: dg.AssetCheckExecutionContext, flywheel: Flywheel) -> dg.AssetCheckResult:
    bad = {}
    for pointer in _published(context, flywheel, "curated_dataset"):
        dataset = pointer.output.get("dataset")
        if not dataset:
            continue
        prefix = dataset["prefix"]
        manifest = json.loads(flywheel.store.get(f"{prefix}/manifest.json"))
        sizes = {entry.key.removeprefix(prefix + "/"): entry.size for entry in flywheel.store.list(prefix + "/")}
        wrong = [each["path"] for each in manifest["files"] if sizes.get(each["path"]) != each["size"]]
        infos = [path for path in sizes if path.endswith("meta/info.json")]
        versions = {json.loads(flywheel.store.get(f"{prefix}/{path}"))["codebase_version"] for path in infos}
        if wrong:
            bad[pointer.day] = f"{wrong[0]} is missing or of another size than its manifest says"
        elif versions != {"v3.0"}:
            bad[pointer.day] = f"the dataset says {sorted(versions)} and not v3.0"
    return _result(bad, "LeRobot v3.0, whole")


@dg.asset_check(asset=dataset_at_compute, partitions_def=DAILY, blocking=True, description="What lies at the compute store is what was packed.")
def copy_is_proven(context: dg.AssetCheckExecutionContext, flywheel: Flywheel) -> dg.AssetCheckResult:
    bad = {}
    for day in context.partition_keys:
        decision = decision_for(flywheel, day)
        pointer = read_pointer(flywheel.store, decision.copies if decision else COPIES, day)
        source = read_pointer(flywheel.store, "curated_dataset", day)
        if source and pointer and pointer.output.get("dataset") != source.output.get("dataset"):
            bad[day] = "the copy is of an older packing: materialize dataset_at_compute again"
    return _result(bad, "the copy names the packed manifest")


@dg.asset_check(asset=evaluation, partitions_def=DAILY, description="The gate's verdict. It is shown here; champion reads it from evaluation's pointer.")
def gate_verdict(context: dg.AssetCheckExecutionContext, flywheel: Flywheel) -> dg.AssetCheckResult:
    bad = {
        pointer.day: "refused: " + "; ".join(pointer.output.get("reasons", ["nothing was evaluated"]))
        for pointer in _published(context, flywheel, "evaluation")
        if not pointer.output.get("promote")
    }
    text = "; ".join(f"{day}: {reason}" for day, reason in bad.items()) or "promoted"
    return dg.AssetCheckResult(passed=not bad, severity=dg.AssetCheckSeverity.WARN, description=text)


ALL = [every_upload_accounted_for, counts_add_up, context_is_current, dataset_format, copy_is_proven, gate_verdict]
