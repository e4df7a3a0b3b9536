"""What must hold of the candidate's data: a table of what can be wrong, and the sentence for it."""

from typing import Any

import pytest

from orchestration.evaluation.prerequisites import read, unmet
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store

DAY = "2026-01-05"
WHOLE: dict[str, dict[str, Any]] = {
    "episodes": {"output_digest": "e1"},
    "measurements": {"output_digest": "m1", "inputs": {"episodes": "e1"}, "counts": {"episodes": 10, "measured": 4, "reused": 6}},
    "verdicts": {
        "output_digest": "v1",
        "inputs": {"episodes": "e1", "measurements": "m1"},
        "counts": {"uploaded": 12, "kept": 7, "rejected": 3, "quarantined": 2},
    },
    "curated_dataset": {"output_digest": "d1", "inputs": {"verdicts": "v1"}},
}
READ = {"2026-01-04": "d0", DAY: "d1"}


def found(**changes: dict[str, Any] | None) -> dict[str, Pointer | None]:
    told = {asset: None if asset in changes and changes[asset] is None else {**facts, **(changes.get(asset) or {})} for asset, facts in WHOLE.items()}
    return {asset: Pointer(asset=asset, day=DAY, generation="g", run_id="r", **facts) if facts else None for asset, facts in told.items()}


def test_where_all_holds_nothing_is_said() -> None:
    assert unmet(DAY, found(), READ, READ) == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdicts": None}, "2026-01-05 has no verdicts: materialize it, then train again"),
        ({"measurements": {"inputs": {"episodes": "e0"}}}, "other episodes than were measured"),
        ({"measurements": {"counts": {"episodes": 10, "measured": 4, "reused": 5}}}, "1 of 10 episodes of 2026-01-05 were not measured"),
        ({"verdicts": {"inputs": {"episodes": "e1", "measurements": "m0"}}}, "was measured again after it was judged"),
        ({"verdicts": {"counts": {"uploaded": 12, "kept": 7}}}, "12 episodes were uploaded and 7 judged"),
        ({"curated_dataset": {"inputs": {"verdicts": "v0"}}}, "was judged again after it was packed"),
    ],
)
def test_each_thing_that_can_be_wrong_is_a_sentence(changes: dict[str, Any], said: str) -> None:
    (reason,) = unmet(DAY, found(**changes), READ, READ)
    assert said in reason


def test_a_policy_of_other_data_than_is_there_is_named_by_day() -> None:
    (reason,) = unmet(DAY, found(), {DAY: "d1", "2026-01-04": "old"}, READ)
    assert reason == "the policy was trained on another dataset of 2026-01-04 than is there now: materialize `policy` again"
    (reason,) = unmet(DAY, found(), {DAY: "d1"}, READ)
    assert "2026-01-04" in reason
    assert unmet(DAY, found(), {DAY: "d1"}, {DAY: "d1", "2026-01-04": "absent"}) == ()


def test_the_publications_are_read_from_the_store(store: Store) -> None:
    for asset, published in found().items():
        assert published
        store.put(pointer(asset, DAY, "g"), published.model_dump_json().encode())
    assert unmet(DAY, read(store, DAY), READ, READ) == ()
    assert unmet("2026-01-06", read(store, "2026-01-06"), READ, READ) == ("2026-01-06 has no episodes: materialize it, then train again",)
