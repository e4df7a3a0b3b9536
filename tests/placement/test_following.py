"""Copy and launch follow the decision, and it moves on: the real assets and protocol, with targets that say yes or no. The clusters are in tests/cluster."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from orchestration import settings
from orchestration.dataset.assets import dataset_at_compute
from orchestration.launching.effects import Job
from orchestration.launching.target import Target, labels_of
from orchestration.launching.work import Attempt, RunInfo
from orchestration.placement.asset import placement, stands
from orchestration.placement.decision import Decision
from orchestration.steps import Flywheel
from orchestration.training.assets import policy
from ray_jobs.seam.layout import attempt_prefix, generations, pointer
from ray_jobs.seam.results import Closed, DayResult, Pointer, Shown, read_pointer
from ray_jobs.seam.store import Store, StoreConfig

DAYS = ("2026-01-05", "2026-01-06")
DAY = DAYS[1]
GB = 10**9


@dataclass
class Scripted(Target):
    """`behaviour`: works, is full, is taken away after an hour of work, or brings down who launches on it."""

    store: Store
    behaviour: str = "works"
    attempts: dict[str, Attempt] = field(default_factory=dict)
    created: list[Attempt] = field(default_factory=list)

    def ensure(self, attempt: Attempt) -> str:
        if self.behaviour == "kills":
            raise RuntimeError("the worker's process is gone")
        self.attempts[attempt.name] = attempt
        self.created.append(attempt)
        if self.behaviour == "taken away":
            opened = '{"method": "opened", "params": {"extras": {"at": %r}}}' % (time.time() - 3600.0)
            self.store.put(f"{attempt_prefix(attempt.base, attempt.number)}/e1/messages/000000.json", opened.encode())
        if self.behaviour == "works":
            made = {day: self.result(attempt, day) for day in attempt.days}
            closed = Closed(step="x", execution="e1", days=made, seconds=1.0, peak_memory_bytes=1)
            self.store.put(f"{attempt_prefix(attempt.base, attempt.number)}/e1/closed.json", closed.model_dump_json().encode())
        return f"uid of {attempt.name}"

    def result(self, attempt: Attempt, day: str) -> DayResult:
        if attempt.module == "ray_jobs.transfer":
            dataset = attempt.config["datasets"][day]
            Store(StoreConfig(**attempt.config["destination"])).put(f"{dataset['prefix']}/manifest.json", b"{}")
            return DayResult(
                counts={"bytes": GB},
                shown={"copy_mb_per_s": Shown(type="float", value=40.0)},
                output={"dataset": dataset},
                output_digest=dataset["manifest_sha256"],
            )
        return DayResult(output={"model": "models/m"}, output_digest="m")

    def find(self, name: str) -> Job | None:
        phases = {"works": "succeeded", "is full": "queued", "taken away": "failed"}
        attempt = self.attempts.get(name)
        failure = "preempted" if self.behaviour == "taken away" else None
        if attempt is None:
            return None
        return Job(name, f"uid of {name}", phases[self.behaviour], labels_of(attempt), failure=failure, note="it waits in the queue")  # type: ignore[arg-type]

    def jobs(self, deployment: str) -> list[Job]:
        return [job for name in self.attempts if (job := self.find(name))]

    def stop(self, name: str, uid: str) -> None:
        self.attempts.pop(name, None)

    def delete(self, name: str, uid: str) -> None:
        self.attempts.pop(name, None)

    def logs(self, name: str, offset: int = 0) -> str:
        return ""

    def wait(self, name: str, seconds: float) -> None:
        time.sleep(min(seconds, 0.05))


TARGETS: dict[str, Scripted] = {}


class OnScript(Flywheel):
    def target(self, name: str) -> Target:
        return TARGETS[name]


@dataclass
class Deployment:
    folder: Path
    instance: dg.DagsterInstance

    def change(self, **more: Any) -> None:
        def target(region: str, price: float) -> dict[str, Any]:
            budgets = {"queued": 0.2, "stopping": 1.0, "poll": 0.01}
            return {"kind": "address", "url": f"http://{region}", "budgets": budgets, "offer": {"region": region, "accelerator": "H100", "price": price}}

        links = [{"source": "home", "destination": region, "price_per_gb": 0.1, "mb_per_s": 100} for region in ("a", "b")]
        needs = {"hours": {"H100": 2.0}, "count": 4}
        stores = {region: StoreConfig.local(self.folder / region).model_dump(mode="json") for region in ("a", "b")}
        chosen = {"home": "home", "stores": stores, "links": links, "needs": needs, "max_cost": 100.0} | more
        document = {
            "deployment": "test",
            "first_day": DAYS[0],
            "window_days": 2,
            "targets": {"cheap": target("a", 1.0), "dear": target("b", 2.0), "small": {"kind": "address", "url": "http://small"}},
            "launch": {"default": "small"},
            "placement": chosen,
        }
        path = self.folder / "flywheel.yaml"
        path.write_text(yaml.safe_dump(document))
        settings.current.cache_clear()
        for name in ("cheap", "dear", "small"):
            TARGETS[name] = Scripted(self.store)

    @property
    def store(self) -> Store:
        return Store(settings.current().store_config())

    def pack(self, day: str, content: str = "1") -> None:
        dataset = {"day": day, "prefix": f"datasets/{day}", "manifest_sha256": day + content, "episodes": 1, "frames": 1}
        self.publish("curated_dataset", day, counts={"bytes": GB}, output={"dataset": dataset}, output_digest=day + content)

    def publish(self, asset: str, day: str, **more: Any) -> None:
        generation = f"2026{time.time_ns()}"
        made = Pointer(asset=asset, day=day, generation=generation, run_id="r", **more)
        self.store.put(pointer(asset, day, generation), made.model_dump_json().encode())

    def run(self, *assets: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize(assets, partition_key=DAY, instance=self.instance, resources={"flywheel": OnScript()}, raise_on_error=False)

    def decision(self) -> Decision:
        found = read_pointer(self.store, "placement", DAY)
        assert found
        return Decision.model_validate(found.output["decision"])

    def copied(self) -> list[tuple[str, tuple[str, ...]]]:
        """(where to, which days) of every copy that was launched, in order."""
        return [(attempt.config["destination"]["url"].rsplit("/", 1)[1], attempt.days) for attempt in TARGETS["small"].created]


ALL = (placement, dataset_at_compute, policy)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLYWHEEL_SETTINGS", str(tmp_path / "flywheel.yaml"))
    with dg.instance_for_test() as instance:
        made = Deployment(tmp_path, instance)
        made.change()
        for day in DAYS:
            made.pack(day)
        yield made
    settings.current.cache_clear()


def why(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    error = failure.step_failure_data.error
    assert error
    return error.message + str(error.cause.message if error.cause else "")


def test_the_window_is_copied_to_where_the_day_is_placed_and_trained_there(deployment: Deployment) -> None:
    assert deployment.run(*ALL).success
    chosen = deployment.decision()
    assert (chosen.target, chosen.copy_cost, chosen.cost, chosen.moves) == ("cheap", 0.2, 8.2, ())
    assert deployment.copied() == [("a", DAYS)]
    (copy,) = TARGETS["small"].created
    assert (copy.config["settings"]["egress_usd_per_gb"], copy.config["settings"]["egress_cap_usd"]) == (0.1, 100.0)
    (attempt,) = TARGETS["cheap"].created
    assert attempt.config["data"]["url"] == chosen.store.url and [each["day"] for each in attempt.config["view"]] == list(DAYS)
    trained = read_pointer(deployment.store, "policy", DAY)
    assert trained and trained.output["placement"] == {"id": chosen.id, "target": "cheap", "region": "a", "moves": 0}
    assert not TARGETS["dear"].created


def test_a_range_of_days_is_placed_day_by_day_and_copied_by_one_job(deployment: Deployment) -> None:
    ends = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[1]}
    assert dg.materialize([placement, dataset_at_compute], tags=ends, instance=deployment.instance, resources={"flywheel": OnScript()}).success
    found = [read_pointer(deployment.store, "placement", day) for day in DAYS]
    assert [pointer and pointer.output["decision"]["ranked"][0]["copy_bytes"] for pointer in found] == [GB, 2 * GB], "each by its own window"
    assert deployment.copied() == [("a", DAYS)]


def test_a_full_target_is_tried_once_the_data_follows_to_the_next_and_there_is_one_result(deployment: Deployment) -> None:
    TARGETS["cheap"].behaviour = "is full"
    result = deployment.run(*ALL)
    assert result.success
    moved = deployment.decision()
    assert (moved.target, moved.spent) == ("dear", 0.2), "what was copied in vain is spent"
    assert [(move.target, move.why.split(" s in")[0][:20]) for move in moved.moves] == [("cheap", "capacity: it waited ")]
    assert deployment.copied() == [("a", DAYS), ("b", DAYS)]
    assert len(TARGETS["cheap"].created) == len(TARGETS["dear"].created) == 1 and not TARGETS["cheap"].attempts, "what waited is gone"
    assert len(generations(deployment.store, "policy", DAY)) == 1
    placed = [event for event in result.all_events if event.is_step_materialization and event.asset_key == dg.AssetKey("placement")]
    assert len(placed) == 2, "both decisions are in the asset's history"
    followed = [event.partition for event in result.all_events if event.is_step_materialization and event.asset_key == dg.AssetKey("dataset_at_compute")]
    assert sorted(set(followed)) == list(DAYS)


def test_nothing_is_launched_or_moved_for_a_day_that_is_made(deployment: Deployment) -> None:
    assert deployment.run(*ALL).success
    before = deployment.decision()
    deployment.change(max_cost=90.0)  # other prices and caps do not make a day anew
    assert deployment.run(*ALL).success
    assert deployment.decision().id == before.id and not [attempt for target in TARGETS.values() for attempt in target.created]


def test_a_copy_that_somebody_has_removed_is_made_again(deployment: Deployment) -> None:
    assert deployment.run(*ALL).success
    a = Store(deployment.decision().store)
    a.delete(f"datasets/{DAY}/manifest.json")
    assert deployment.run(*ALL).success
    assert deployment.copied() == [("a", DAYS), ("a", (DAY,))], "nothing has changed, but it was not there any more"
    assert len(generations(deployment.store, "dataset_at_compute@a", DAY)) == 2 and a.exists(f"datasets/{DAY}/manifest.json")
    assert len(TARGETS["cheap"].created) == 1, "what was trained on it stays"
    assert deployment.run(*ALL).success and len(deployment.copied()) == 2


def test_new_data_is_placed_anew_and_only_it_is_copied(deployment: Deployment) -> None:
    assert deployment.run(*ALL).success
    before = deployment.decision()
    deployment.pack(DAY, "2")
    assert deployment.run(*ALL).success
    assert deployment.decision().id > before.id and deployment.decision().ranked[0]["copy_bytes"] == GB
    assert deployment.copied() == [("a", DAYS), ("a", (DAY,))]
    assert [each["starts_s"] - 120 for each in deployment.decision().ranked] == [25.0, 20.0], "the last copy to a was slow; b's link is as settings say"


@pytest.mark.parametrize("dies", ["before the copy", "before the launch"])
def test_whoever_dies_while_the_day_moves_is_followed_by_one_that_goes_on(deployment: Deployment, dies: str) -> None:
    assert deployment.run(placement, dataset_at_compute).success
    TARGETS["cheap"].behaviour = "is full"
    TARGETS["small" if dies == "before the copy" else "dear"].behaviour = "kills"
    assert not deployment.run(policy).success
    assert deployment.decision().target == "dear" and not read_pointer(deployment.store, "policy", DAY)
    for target in TARGETS.values():
        target.behaviour = "works"
    assert deployment.run(policy).success
    assert deployment.copied() == [("a", DAYS), ("b", DAYS)] and len(TARGETS["dear"].created) == 1
    assert len(TARGETS["cheap"].created) == 1 and len(generations(deployment.store, "policy", DAY)) == 1


def test_spot_nodes_that_are_taken_away_again_and_again_cost_what_they_worked(deployment: Deployment) -> None:
    TARGETS["cheap"].behaviour = "taken away"
    assert deployment.run(*ALL).success
    (move,) = deployment.decision().moves
    assert move.why.startswith("preempted") and move.cost == pytest.approx(0.2 + 4 * 1.0, rel=0.01), "the copy, and an hour on four accelerators"
    assert deployment.decision().target == "dear"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"max_moves": 0}, "the day was moved 0 times, which is all that placement.max_moves allows"),
        ({"max_cost": 16.3}, "cheap: tried already: capacity: it waited"),
        ({"max_cost": 16.3}, "dear: it would cost 16.20 USD, and 16.10 may be spent"),
    ],
)
def test_caps_on_moves_and_money_end_it_with_one_line(deployment: Deployment, more: dict[str, Any], said: str) -> None:
    deployment.change(**more)
    TARGETS["cheap"].behaviour = "is full"
    result = deployment.run(*ALL)
    assert not result.success and said in why(result)
    assert not TARGETS["dear"].created and deployment.decision().target == "cheap"


def test_where_no_offer_will_do_the_placement_says_why_each_lost(deployment: Deployment) -> None:
    deployment.change(max_cost=5.0)
    result = deployment.run(*ALL)
    assert not result.success
    assert "cheap: it would cost 8.20 USD, and 5.00 may be spent; dear: it would cost 16.20 USD" in why(result)
    assert not [attempt for target in TARGETS.values() for attempt in target.created]


def test_a_day_that_is_not_placed_is_neither_copied_nor_trained(deployment: Deployment) -> None:
    for asset in (dataset_at_compute, policy):
        result = deployment.run(asset)
        assert not result.success and "is not placed yet: materialize `placement` first" in why(result)


def test_a_day_without_data_is_not_placed(deployment: Deployment) -> None:
    deployment.publish("curated_dataset", DAY, output={"dataset": None})
    assert deployment.run(placement).success
    found = read_pointer(deployment.store, "placement", DAY)
    assert found and found.output == {"decision": None} and found.shown["reason"].value == "no data: nothing to place"


DECISION = {"target": "t", "region": "r", "store": {"url": "file:///x"}, "launch": {}, "price": 1.0, "copy_cost": 0.0, "cost": 1.0}
FIRST, LATER = (RunInfo(f"run{n}0000000", "root", datetime(2026, 1, 6, n, tzinfo=UTC)) for n in (1, 2))


@pytest.mark.parametrize(
    ("run", "made_by", "input_digest", "holds"),
    [
        (FIRST, None, "d", True),  # the same run, once more
        (FIRST, None, "other", True),
        (RunInfo("run20000", "root", LATER.created, retry=True), None, "other", True),  # its retry
        (LATER, None, "d", False),  # a person's re-execution, of a day that was not made
        (LATER, FIRST.generation, "d", True),
        (LATER, FIRST.generation, "other", False),
        (RunInfo("run30000", "another", LATER.created), FIRST.generation, "d", True),
        (RunInfo("run30000", "another", LATER.created, retry=True), None, "d", False),
        (LATER, "another decision", "d", False),
    ],
)
def test_how_long_a_decision_stands(tmp_path: Path, run: RunInfo, made_by: str | None, input_digest: str, holds: bool) -> None:
    store = Store(StoreConfig.local(tmp_path))
    decision = Decision(id=FIRST.generation, root_run="root", **DECISION)  # type: ignore[arg-type]
    standing = Pointer(asset="placement", day=DAY, generation="g", run_id="r", input_digest="d", output={"decision": decision.model_dump(mode="json")})
    if made_by:
        made = Pointer(asset="policy", day=DAY, generation="g", run_id="r", output={"placement": {"id": made_by}})
        store.put(pointer("policy", DAY, "g"), made.model_dump_json().encode())
    assert stands(store, standing, run, input_digest) is holds
