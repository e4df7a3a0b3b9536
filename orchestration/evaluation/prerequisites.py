"""What must hold of the candidate's data before its success counts: that the day was checked whole, and that the policy is of today's data.

A policy can roll out well and have been trained on what nobody looked at; the next one, on the same pipeline, will not.
"""

from collections.abc import Mapping

from ray_jobs.seam.results import Pointer, read_pointer
from ray_jobs.seam.store import Store

ASSETS = ("episodes", "measurements", "verdicts", "curated_dataset")
VERDICTS = ("kept", "rejected", "quarantined", "superseded")


def read(store: Store, day: str) -> dict[str, Pointer | None]:
    """The current publications of the candidate's own day."""
    return {asset: read_pointer(store, asset, day) for asset in ASSETS}


def unmet(day: str, found: Mapping[str, Pointer | None], trained_on: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Why the candidate may not be promoted, a sentence each; empty where everything holds. Pure.

    found: asset -> its publication of the day. trained_on: day of the window -> digest of the dataset that the policy read; now: that of today.
    """
    missing = [asset for asset in ASSETS if found.get(asset) is None]
    if missing:
        return (f"{day} has no {missing[0]}: materialize it, then train again",)
    episodes, measured, judged, packed = (found[asset] for asset in ASSETS)
    assert episodes and measured and judged and packed
    wrong = []
    if measured.inputs.get("episodes") != episodes.output_digest:
        wrong.append(f"{day} has other episodes than were measured: materialize `measurements` and what follows")
    unmeasured = measured.counts.get("episodes", 0) - measured.counts.get("measured", 0) - measured.counts.get("reused", 0)
    if unmeasured:
        wrong.append(f"{unmeasured} of {measured.counts['episodes']} episodes of {day} were not measured: they are not in the store, so ingest the day again")
    if judged.inputs.get("episodes") != episodes.output_digest or judged.inputs.get("measurements") != measured.output_digest:
        wrong.append(f"{day} was measured again after it was judged: materialize `verdicts` and what follows")
    told = sum(judged.counts.get(name, 0) for name in VERDICTS)
    if judged.counts.get("uploaded", 0) != told:
        wrong.append(f"{day}: {judged.counts.get('uploaded', 0)} episodes were uploaded and {told} judged")
    if packed.inputs.get("verdicts") != judged.output_digest:
        wrong.append(f"{day} was judged again after it was packed: materialize `curated_dataset` and what follows")
    changed = sorted(each for each in trained_on.keys() | now.keys() if trained_on.get(each, "absent") != now.get(each, "absent"))
    if changed:
        wrong.append(f"the policy was trained on another dataset of {', '.join(changed)} than is there now: materialize `policy` again")
    return tuple(wrong)
