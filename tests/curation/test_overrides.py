"""Overrides: strict files, a pure application, and days that are judged again only where somebody decided."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cli import main
from orchestration.curation import overrides
from orchestration.curation.decide import decide
from orchestration.curation.overrides import Override
from orchestration.curation.present import overrides_table
from orchestration.curation.thresholds import Thresholds
from orchestration.settings import current
from orchestration.steps import Flywheel
from orchestration.triggers import sensors
from ray_jobs.seam import ledger
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.layout import UNPARTITIONED, pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import EPISODES, VERDICTS, from_bytes, to_bytes

DAY = "2026-09-21"
WHEN = datetime(2026, 9, 22, 8, tzinfo=UTC)
T = Thresholds.load()


def name(number: int) -> str:
    return f"{number:032x}"


def said(number: int, verdict: str, reason: str = "seen it") -> Override:
    return Override.model_validate({"episode": name(number), "verdict": verdict, "reason": reason, "who": "ada", "when": WHEN})


def judged(store: Store, thresholds: Thresholds = T) -> dict[str, dict[str, Any]]:
    """Three episodes, of which the machine rejects the second and cannot read the third; what a day's step stores."""
    rows = [
        {"episode_id": name(number), "day": DAY, "day_source": "upload", "robot": "r", "upload": f"{number}.mcap", "status": status}
        for number, status in ((1, "ok"), (2, "ok"), (3, "quarantined"))
    ]
    store.put("tables/e.parquet", to_bytes(rows, EPISODES))
    measured = [{"episode_id": name(number), "scores": {"duration_s": length}} for number, length in ((1, 5.0), (2, 0.5))]
    ledger.append(store, "signal", "1", DAY, measured)
    decided = decide(store, DAY, "tables/e.parquet", {"signal": "1"}, thresholds)
    assert decided.counts["uploaded"] == sum(decided.counts[each] for each in ("kept", "rejected", "quarantined", "superseded"))
    assert decided.counts["overridden"] == sum(1 for row in decided.rows if row["override"])
    assert decided.overrides == overrides.state(store).get(DAY, "")
    return {row["episode_id"]: row for row in from_bytes(to_bytes(decided.rows, VERDICTS))}


def test_a_person_outranks_the_machine_and_both_stay_on_the_row(store: Store) -> None:
    before = judged(store)
    assert [before[name(number)]["verdict"] for number in (1, 2, 3)] == ["kept", "rejected", "quarantined"]
    assert all(row["machine_verdict"] == row["verdict"] and row["override"] is None for row in before.values())
    overrides.write(store, DAY, said(1, "reject"))
    overrides.write(store, DAY, said(2, "keep"))
    overrides.write(store, DAY, said(3, "keep"))
    for thresholds in (T, T.model_copy(update={"min_duration_s": 0.6})):  # judging again changes nothing about it
        after = judged(store, thresholds)
        assert [after[name(number)]["verdict"] for number in (1, 2, 3)] == ["rejected", "kept", "quarantined"]
        assert [after[name(number)]["machine_verdict"] for number in (1, 2, 3)] == ["kept", "rejected", "quarantined"]
        assert after[name(2)]["reasons"][0] == "override: keep by ada on 2026-09-22: seen it" == after[name(2)]["override"]
        assert after[name(2)]["reasons"][1].startswith("too_short")
        assert "without effect" in after[name(3)]["reasons"][0]
    table = overrides_table(list(after.values()))
    assert table.count("\n") == 4 and "| rejected | kept | keep by ada" in table
    store.delete(overrides.key_of(DAY, name(2)))
    assert judged(store)[name(2)]["verdict"] == "rejected"


def test_an_override_of_an_unknown_episode_is_told(store: Store) -> None:
    overrides.write(store, DAY, said(9, "keep"))
    judged(store)
    decided = decide(store, DAY, "tables/e.parquet", {"signal": "1"}, T)
    assert decided.shown["overrides_without_episode"].value == overrides.key_of(DAY, name(9))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("verdict: keep", "episode: Field required"),
        (f"episode: '{name(1)}'\nverdict: perhaps\nreason: r\nwho: w\nwhen: 2026-09-21T00:00:00Z", "verdict: Input should be 'keep' or 'reject'"),
        (f"episode: '{name(1)}'\nverdict: keep\nreason: ''\nwho: w\nwhen: 2026-09-21T00:00:00Z", "reason: String should have at least 1"),
        (f"episode: '{name(1)}'\nverdict: keep\nreason: r\nwho: w\nwhen: 2026-09-21T00:00:00", "when: Input should have timezone"),
        (f"episode: '{name(1)}'\nverdict: keep\nreason: r\nwho: w\nwhen: 2026-09-21T00:00:00Z\nwhy: x", "why: Extra inputs"),
        (f"episode: '{name(2)}'\nverdict: keep\nreason: r\nwho: w\nwhen: 2026-09-21T00:00:00Z", "the file must have its name"),
        ("a: [", "is not YAML"),
        ("- 1", "document: Input should be a valid dictionary"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
        (b"\xff\xfe\xfa", "is not YAML"),
    ],
)
def test_a_file_that_is_not_understood_is_one_line(store: Store, text: str | bytes, told: str) -> None:
    key = overrides.key_of(DAY, name(1))
    store.put(key, text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        overrides.read(store, DAY)
    assert key in str(caught.value) and told in str(caught.value) and "\n" not in str(caught.value)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["kept", "rejected", "quarantined", "superseded"])), max_size=8),
    st.dictionaries(st.integers(0, 5), st.sampled_from(["keep", "reject"]), max_size=5),
    st.sets(st.integers(0, 4)),
)
def test_no_row_is_lost_and_only_overridden_rows_change(drawn: list[tuple[int, str]], asked: dict[int, str], readable: set[int]) -> None:
    rows = [{"episode_id": name(number), "verdict": verdict, "reasons": ["machine: why"]} for number, verdict in drawn]
    made = overrides.apply(rows, {name(number): said(number, verdict) for number, verdict in asked.items()}, [name(number) for number in readable])
    assert [row["episode_id"] for row in made] == [row["episode_id"] for row in rows]
    for row, before in zip(made, rows, strict=True):
        number = int(row["episode_id"], 16)
        assert row["machine_verdict"] == before["verdict"] and row["reasons"][-1] == "machine: why"
        assert (row["override"] is not None) == (number in asked)
        if number not in asked or (asked[number] == "keep" and number not in readable):
            assert row["verdict"] == before["verdict"]
        elif asked[number] == "reject":
            assert row["verdict"] == "rejected"
    for number, count in Counter(int(row["episode_id"], 16) for row in made if row["verdict"] == "kept").items():
        machine = sum(1 for row in rows if row["episode_id"] == name(number) and row["verdict"] == "kept")
        assert count <= max(1, machine)


@pytest.fixture
def deployment(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    current.cache_clear()
    yield Flywheel()
    current.cache_clear()


def publish(store: Store, asset: str, day: str, **more: object) -> None:
    made = Pointer.model_validate({"asset": asset, "day": day, "generation": "g1", "run_id": "r", **more})
    store.put(pointer(asset, day, "g1"), made.model_dump_json().encode())


def test_the_command_writes_what_the_next_judging_reads_and_wakes_that_day_alone(deployment: Flywheel, capsys: pytest.CaptureFixture[str]) -> None:
    store = deployment.store
    days = {"2026-01-05": [1, 2], "2026-01-06": [3, 0x30]}
    publish(store, "uploads", UNPARTITIONED, output={"days": {day: f"u-{day}" for day in days}})
    for day, numbers in days.items():
        key = f"verdicts/{day}.parquet"
        store.put(key, to_bytes([{"episode_id": name(number)[::-1], "day": day} for number in numbers], VERDICTS))
        publish(store, "episodes", day, inputs={"uploads": f"u-{day}"}, output_digest="e")
        publish(store, "verdicts", day, inputs={"episodes": "e"}, output={"verdicts": key})
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"flywheel": deployment})
        assert not getattr(sensors.changed(context), "run_requests", None)
        assert main(["override", name(3)[::-1][:8], "reject", "--reason", "the gripper is <not> ours"]) == 0
        (request,) = sensors.changed(context).run_requests  # type: ignore[union-attr]
        assert request.partition_key == "2026-01-06"
        (written,) = overrides.read(store, "2026-01-06").values()
        assert (written.verdict, written.reason) == ("reject", "the gripper is <not> ours")
        publish(store, "verdicts", "2026-01-06", inputs={"episodes": "e", "overrides": overrides.state(store)["2026-01-06"]}, output={"verdicts": key})
        assert not getattr(sensors.changed(context), "run_requests", None)
        assert main(["override", written.episode, "withdraw"]) == 0
        (request,) = sensors.changed(context).run_requests  # type: ignore[union-attr]
        assert request.partition_key == "2026-01-06"
    capsys.readouterr()
    for arguments, told in (
        (["override", "xyz", "keep", "--reason", "r"], "no episode id"),
        (["override", "f" * 12, "keep", "--reason", "r"], "no judged episode"),
        (["override", "03000000", "keep", "--reason", "r", "--day", "2026-01-05"], "no judged episode of 2026-01-05"),
        (["override", name(1)[::-1], "keep"], "reason: String should have at least 1"),
    ):
        assert main(arguments) == 1
        assert told in capsys.readouterr().err
