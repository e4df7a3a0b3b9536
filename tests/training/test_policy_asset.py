"""What the step `policy` tells training: the champion to go on from, and what a search found. The real asset and protocol; the target only takes jobs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from orchestration import settings
from orchestration.evaluation.history import CURRENT, Move, output_of
from orchestration.launching.target import Target
from orchestration.steps import Flywheel
from orchestration.training.assets import policy, tuning
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer, read_pointer
from ray_jobs.seam.store import Store
from tests.evaluation.deployment import A, B, C
from tests.evaluation.deployment import publish as publish_in
from tests.placement.test_following import Scripted

DAYS = ("2026-01-05", "2026-01-06", "2026-01-07")


class OnScript(Flywheel):
    def target(self, name: str) -> Target:
        return TAKES["it"]


TAKES: dict[str, Scripted] = {}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Two days with data at the compute store. The gate moved the champion on both; the settings name no start yet."""
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLYWHEEL_SETTINGS", str(tmp_path / "flywheel.yaml"))
    configure(tmp_path)
    found = OnScript().store
    TAKES["it"] = Scripted(found)
    for day in DAYS[:2]:
        dataset = {"day": day, "prefix": f"datasets/{day}", "manifest_sha256": day, "episodes": 1, "frames": 1}
        publish_in(OnScript(), "dataset_at_compute", day, output={"dataset": dataset}, output_digest=day)
    yield found
    settings.current.cache_clear()


def configure(folder: Path, tuning: dict[str, Any] | None = None, **training: Any) -> None:
    document = {"deployment": "test", "first_day": DAYS[0], "window_days": 2, "training": training, "tuning": tuning}
    (folder / "flywheel.yaml").write_text(yaml.safe_dump(document))
    settings.current.cache_clear()


def move(store: Store, number: int, model: str, before: str | None, day: str | None) -> None:
    made = Move(f"2026010{number}T090000.000000Z-x", model, before, "gate" if day else "promote", ("because",), day)
    published = Pointer(asset="champion", day=CURRENT, generation=made.generation, run_id="r", output=output_of(made))
    store.put(pointer("champion", CURRENT, f"move-{number:06d}"), published.model_dump_json().encode())


def trained(store: Store, day: str) -> tuple[Any, dict[str, str], int]:
    """What training was told to start from, what the publication says was read, and how many jobs were launched so far."""
    with dg.instance_for_test() as instance:
        assert dg.materialize([policy], partition_key=day, instance=instance, resources={"flywheel": OnScript()}, raise_on_error=False).success
    published = read_pointer(store, "policy", day)
    assert published
    return TAKES["it"].created[-1].config["start"], published.inputs, len(TAKES["it"].created)


def test_training_goes_on_from_the_champion_of_the_days_before(store: Store, tmp_path: Path) -> None:
    configure(tmp_path, start="champion")
    assert trained(store, DAYS[0]) == (None, {DAYS[0]: DAYS[0], "start": "no champion yet"}, 1)
    move(store, 5, A, None, DAYS[0])
    move(store, 6, B, A, DAYS[1])
    start, read, launched = trained(store, DAYS[1])
    assert (start, read["start"], launched) == (A, A, 2), "that day's own champion is not its start, or every rerun would go on from the last"
    assert trained(store, DAYS[1])[2] == 2, "nothing that it was made of has changed"
    move(store, 7, C, B, None)
    assert trained(store, DAYS[1])[0] == C, "a person's choice counts for every day"


def test_a_fresh_start_neither_reads_nor_follows_the_champion(store: Store) -> None:
    move(store, 5, A, None, DAYS[0])
    start, read, launched = trained(store, DAYS[1])
    assert start is None and set(read) == set(DAYS[:2])
    move(store, 6, B, A, DAYS[0])
    assert trained(store, DAYS[1])[2] == launched


def test_the_settings_come_from_the_last_search_of_the_window(store: Store, tmp_path: Path) -> None:
    configure(tmp_path, tuning={}, steps=77)
    assert trained(store, DAYS[1])[1]["tuning"] == "no search yet"
    best = {"day": DAYS[0], "evidence": "tunings/a.json", "learning_rate": 0.004, "batch": 64, "policy": "keypoints", "trials": 3, "error": 0.2}
    publish_in(OnScript(), "tuning", DAYS[0], output={"best": {**best, "error_as_set": 0.3}}, output_digest="a")
    publish_in(OnScript(), "tuning", DAYS[1], output={"best": None})
    _, read, launched = trained(store, DAYS[1])
    assert (read["tuning"], launched) == ("tunings/a.json", 2)
    told = TAKES["it"].created[-1].config
    assert (told["settings"]["learning_rate"], told["settings"]["batch"], told["settings"]["steps"]) == (0.004, 64, 77)
    assert told["tuned"]["evidence"] == "tunings/a.json"
    configure(tmp_path, steps=77)
    assert "tuning" not in trained(store, DAYS[1])[1] and TAKES["it"].created[-1].config["settings"]["learning_rate"] == 0.002


def test_a_search_is_told_what_is_searched_around(store: Store, tmp_path: Path) -> None:
    def tuned() -> dg.ExecuteInProcessResult:
        with dg.instance_for_test() as instance:
            return dg.materialize([tuning], partition_key=DAYS[1], instance=instance, resources={"flywheel": OnScript()}, raise_on_error=False)

    assert not tuned().success, "nothing says what to search"
    configure(tmp_path, tuning={"trials": 4}, steps=77)
    assert tuned().success
    (attempt,) = TAKES["it"].created
    assert (attempt.module, attempt.config["settings"]["trials"], attempt.config["training"]["steps"]) == ("ray_jobs.tuning", 4, 77)
    assert [dataset["day"] for dataset in attempt.config["view"]] == list(DAYS[:2])
