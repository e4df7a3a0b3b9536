"""The table at the end of the loop: the deployed policy beside the study's arms, and only what was published."""

import re
from typing import Any

from orchestration.local.report import day_row, table
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store

DAYS = ["2026-01-05", "2026-01-06"]


def publish(store: Store, asset: str, day: str, output: dict[str, Any]) -> None:
    store.put(pointer(asset, day, "g1"), Pointer(asset=asset, day=day, generation="g1", run_id="r", output=output).model_dump_json().encode())


def rate(successes: int, rollouts: int, **more: Any) -> dict[str, Any]:
    found = successes / rollouts
    return {"rate": found, "low": max(0.0, found - 0.05), "high": min(1.0, found + 0.05), "rollouts": rollouts, "successes": successes, **more}


def arm(*successes: int) -> dict[str, Any]:
    return rate(sum(successes), 100 * len(successes), training_seeds={str(seed): rate(each, 100) for seed, each in enumerate(successes)})


def cells(text: str, day: str) -> dict[str, str]:
    """Heading -> cell of the day's line in the table; columns are at least two spaces apart."""
    head, *lines = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    return dict(zip(head, next(line for line in lines if line[0] == day), strict=True))


def two_days(store: Store) -> list[dict[str, Any]]:
    for day, successes in zip(DAYS, (50, 88), strict=True):
        publish(store, "evaluation", day, {"scores": {"candidate": rate(successes, 100), "offline": None}})
    publish(store, "curation_effect", DAYS[1], {"arms": {"all": arm(24, 21, 12), "random_drop": arm(10, 32, 30), "curated": arm(91, 94, 94)}, "failed": {}})
    return [day_row(store, day, 1.0) for day in DAYS]


def test_the_last_day_has_the_studys_arms_beside_the_policy(store: Store) -> None:
    rows = two_days(store)
    assert list(rows[0]["success"]) == ["policy"]
    assert rows[1]["success"]["policy"]["rate"] == 0.88, "the study's curated arm does not stand in for the deployed policy"
    assert rows[1]["success"]["curated"] == {
        **{name: value for name, value in arm(91, 94, 94).items() if name in ("rate", "low", "high", "rollouts")},
        "by_training_seed": {"0": 0.91, "1": 0.94, "2": 0.94},
    }
    text = table(rows)
    first, last = (cells(text, day) for day in DAYS)
    assert (first["policy success"], first["study: curated"]) == ("50% [45%, 55%]", "-")
    assert (last["policy success"], last["study: all"]) == ("88% [83%, 93%]", "19% [14%, 24%]")
    assert (last["study: random drop"], last["study: curated"]) == ("24% [19%, 29%]", "93% [88%, 98%]")
    assert f"{DAYS[1]}  study, trained on, by training seed: all 24%, 21%, 12%; random drop 10%, 32%, 30%; curated 91%, 94%, 94%" in text


def test_an_arm_that_could_not_be_trained_says_why(store: Store) -> None:
    publish(store, "curation_effect", DAYS[0], {"arms": {"curated": arm(91)}, "failed": {"all": "with training seed 1: the loss became nan"}})
    text = table([day_row(store, DAYS[0], 1.0)])
    assert "curated 91%; all could not be trained with training seed 1: the loss became nan" in text


def test_without_rollouts_there_is_no_column_of_successes(store: Store) -> None:
    publish(store, "evaluation", DAYS[0], {"scores": {"candidate": {"rollouts": 0}, "offline": {"candidate": {"error": 0.5}}}})
    assert "success" not in table([day_row(store, DAYS[0], 1.0)])
    assert "study" not in table([day_row(store, DAYS[0], 1.0)])
