"""What is swept: tables and properties of the decision, a real store, and sweeps that die half-way before a step comes back."""

import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.launching import sweep as sweeping
from orchestration.launching.effects import Effect, Ensure
from orchestration.launching.sweep import Base, Due, due, phases, sweep
from orchestration.launching.work import Attempt, Ended, Plan, Resources
from ray_jobs.seam import layout
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.results import JobError, Pointer
from ray_jobs.seam.store import Store
from tests.launching.model import DAYS, Run, World

CUTOFF, OLD, YOUNG = 1000.0, 900.0, 1100.0


@pytest.mark.parametrize(
    ("base", "goes"),
    [
        (Base("b", OLD, "over", "c"), True),
        (Base("b", OLD, "", ""), True),  # a job by hand
        (Base("b", YOUNG, "over", "c"), False),
        (Base("b", OLD, "alive", "c"), False),
        (Base("b", OLD, "over", "c", named=True), False),
        (Base("b", OLD, None, None), False),  # its plan cannot be read
    ],
)
def test_which_base_goes(base: Base, goes: bool) -> None:
    assert due([base], {}, lambda root: root == "alive", "today", CUTOFF).bases == (("b",) if goes else ())


@pytest.mark.parametrize(
    ("sha256", "written", "bases", "goes"),
    [
        ("c", OLD, [], True),
        ("c", YOUNG, [], False),
        ("today", OLD, [], False),
        ("c", OLD, [Base("b", OLD, "over", "c")], True),
        ("c", OLD, [Base("b", OLD, "over", "c", named=True)], True),  # published: the archive has done its work
        ("c", OLD, [Base("b", OLD, "alive", "c")], False),
        ("c", OLD, [Base("b", YOUNG, "over", "c")], False),
        ("c", OLD, [Base("b", YOUNG, "over", "another")], True),
        ("c", OLD, [Base("b", OLD, None, None)], False),  # who knows what it uses
    ],
)
def test_which_code_goes(sha256: str, written: float, bases: list[Base], goes: bool) -> None:
    assert due(bases, {sha256: written}, lambda root: root == "alive", "today", CUTOFF).archives == ((sha256,) if goes else ())


CODES = st.sampled_from(["c1", "c2", "c3", "today"])
AGES = st.sampled_from([OLD, CUTOFF, YOUNG])
BASES = st.lists(
    st.builds(Base, st.sampled_from("abcdefgh"), AGES, st.sampled_from(["r1", "r2", "r3", "", None]), st.none() | CODES, st.booleans()),
    unique_by=lambda base: base.name,
)


@given(BASES, st.dictionaries(CODES, AGES), st.frozensets(st.sampled_from(["r1", "r2", "r3"])))
def test_only_what_nothing_names_or_wants_goes_and_all_of_it(bases: list[Base], archives: dict[str, float], living: frozenset[str]) -> None:
    gone = due(bases, archives, living.__contains__, "today", CUTOFF)
    for base in bases:
        assert (base.name in gone.bases) == (base.newest < CUTOFF and base.root_run is not None and base.root_run not in living and not base.named)
    for sha256 in gone.archives:
        assert archives[sha256] < CUTOFF and sha256 != "today"
        assert not any(base.code == sha256 and (base.newest >= CUTOFF or base.root_run in living) for base in bases)
    after = [base for base in bases if base.name not in gone.bases]
    left = {sha256: written for sha256, written in archives.items() if sha256 not in gone.archives}
    assert due(after, left, living.__contains__, "today", CUTOFF) == Due(), "one round is enough"


# -- a step that meets what a sweep left half done --------------------------------------------------------------------


def drive(world: World, run: Run, how: str = "closes") -> None:
    """Step and drivers alternately, until the step is over; each driver ends as told."""
    for turn in range(2000):
        if run.step is None:
            return
        world.advance(run)
        for job in [job for job in world.jobs.values() if job.alive and turn % 10 == 9]:
            if job.phase == "queued":
                world.start_driver(job)
            elif how == "closes":
                world.close_driver(job)
                world.end_driver(job, "succeeded")
            elif how == "one day is bad":
                world.close_driver(job, bad=True)
                world.end_driver(job, "succeeded")
            elif how == "user":
                world.end_driver(job, "failed", 1, report=JobError(failure_class="user", message="a bug"))
            else:
                world.end_driver(job, "failed", 137)
    raise AssertionError("the step never ended")


class Recording(World):
    """Remembers every attempt whose job a step has asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Attempt] = []

    def _apply(self, run: Run | None, effect: Effect) -> Any:
        if isinstance(effect, Ensure):
            self.asked.append(effect.attempt)
        return super()._apply(run, effect)


def left_by(how: str, person: bool) -> tuple[Recording, Run, list[list[str]]]:
    """A world with one base that is over and that no publication names any more, and how it would be swept."""
    world = Recording()
    run = world.launch(DAYS)
    drive(world, run, how)
    if person:  # a second attempt, by a person
        drive(world, world.launch(DAYS, root=run), how)
    (base,) = {key.split("/")[1] for key in world.store if key.endswith("/plan.json")}
    for key in [key for key in world.store if key.startswith("partitions/")]:  # as if newer generations counted
        del world.store[key]
    for each in world.runs:
        each.outcome = None
    world.asked = []
    keys = [key for key in world.store if key.startswith(f"attempts/{base}/")]
    return world, run, phases(base, keys)


@pytest.mark.parametrize("how", ["closes", "one day is bad", "user", "killed"])
@pytest.mark.parametrize("person", [False, True])
def test_a_half_swept_base_is_harmless_to_whoever_comes_back(how: str, person: bool) -> None:
    _, _, groups = left_by(how, person)
    count = sum(map(len, groups))
    for backwards in (False, True):
        for crash in range(count + 1):
            world, run, groups = left_by(how, person)
            doomed = [key for group in groups for key in (reversed(group) if backwards else group)][:crash]
            for key in doomed:
                del world.store[key]
            again = world.launch(DAYS, root=run)
            drive(world, again)
            assert again.outcome is not None and again.outcome.error is None, f"after {crash} of {count}: {again.outcome}"
            assert {day.state for day in again.outcome.days.values()} == {"published"}
            assert {attempt.run_id for attempt in world.asked} <= {again.info.run_id}, "no job of an old attempt is created once more"
            world.check()


@pytest.mark.parametrize("order", sorted(set(itertools.permutations(sweeping.ORDER)) - {sweeping.ORDER}))
def test_every_other_order_does_harm(order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "ORDER", order)
    with pytest.raises(AssertionError):
        test_a_half_swept_base_is_harmless_to_whoever_comes_back("user", person=False)


def test_documents_go_one_by_one_and_what_drivers_wrote_first() -> None:
    keys = [f"attempts/b/{rest}" for rest in ("a1/attempt.json", "a10/ended.json", "a2/e/closed.json", "plan.json", "a1/submitted.json", "a10/attempt.json")]
    assert phases("b", [*keys, "attempts/b/a1/ended.json", "attempts/b/a1/e/ended.json"]) == [
        ["attempts/b/a1/e/ended.json", "attempts/b/a2/e/closed.json"],
        ["attempts/b/a1/ended.json"],
        ["attempts/b/a1/attempt.json"],
        ["attempts/b/a1/submitted.json"],
        ["attempts/b/a10/ended.json"],
        ["attempts/b/a10/attempt.json"],
        ["attempts/b/plan.json"],
    ]


# -- a real store -----------------------------------------------------------------------------------------------------

DAY = "2026-01-05"


def write(store: Store, base: str, root: str, generation: str, deployment: str = "here", code: str = "c1") -> None:
    run: dict[str, Any] = {"base": base, "asset": "episodes", "days": (DAY,), "generation": generation, "root_run": root, "run_id": root, "code": code}
    attempt = Attempt(**run, number=1, deployment=deployment, module="m", config={}, series=root, resources=Resources())
    store.put(layout.plan(base), Plan(**run, todo=(DAY,), inputs={}).model_dump_json().encode())
    store.put(attempt.key, attempt.model_dump_json().encode())
    store.put(layout.submitted(base, 1), b"{}")
    store.put(f"{layout.attempt_prefix(base, 1)}/e1/checkpoints/1.safetensors", b"much")
    store.put(f"{layout.attempt_prefix(base, 1)}/e1/closed.json", b"{}")
    store.put(layout.ended(base, 1), Ended(failure_class=None, evidence="closed").model_dump_json().encode())


def publish(store: Store, generation: str, attempt: str) -> None:
    pointer = Pointer(asset="episodes", day=DAY, generation=generation, run_id="r", attempt=attempt, execution="e1")
    store.put(layout.pointer("episodes", DAY, generation), pointer.model_dump_json().encode())


def age(store: Store, days: float, prefix: str = "") -> None:
    assert store.root is not None
    for entry in store.list(prefix):
        os.utime(store.root / entry.key, (time.time() - days * 86400, time.time() - days * 86400))


@pytest.fixture
def filled(store: Store) -> Iterator[Store]:
    """Everything is 30 days old but what is said to be young."""
    write(store, "superseded-1", "over", "g1")
    write(store, "current-2", "over", "g2")
    write(store, "waiting-4", "alive", "g3", code="c2")
    write(store, "elsewhere-5", "over", "g4", deployment="there")
    publish(store, "g1", "superseded-1-a1")
    publish(store, "g2", "current-2-a1")
    store.put("attempts/by-hand-measure/a1/e1/closed.json", b"{}")
    store.put("attempts/unreadable-6/plan.json", b'{"of": "a later version"}')
    for sha256 in ("c1", "c2", "c3", "today"):
        store.put(layout.code(sha256), b"zip")
    for key in ("ledger/x@1/a.parquet", "datasets/d/manifest.json", "models/m/config.json", "episodes/ab/x", "uploads/u.parquet"):
        store.put(key, b"kept")
    age(store, 30)
    write(store, "failed-7", "over", "g5", code="c3")
    age(store, 30, "attempts/failed-7")
    store.put("attempts/failed-7/a1/e1/messages/000009.json", b"a word of yesterday")
    yield store


def names(store: Store, prefix: str = "attempts/") -> set[str]:
    return {entry.key.split("/")[1] for entry in store.list(prefix)}


def test_a_real_store(filled: Store) -> None:
    store = filled
    write(store, "named-8", "over", "g0")
    publish(store, "g9", "named-8-a1")  # counts now, and current-2 no more; its generation does not tell
    age(store, 30, "attempts/named-8")
    others = {entry.key for entry in store.list() if not entry.key.startswith(("attempts/", "code/"))}
    store.delete("attempts/unreadable-6/plan.json")
    told = sweep(store, "here", lambda root: root == "alive", 14, "today")
    assert names(store) == {"waiting-4", "elsewhere-5", "failed-7", "named-8"}
    assert names(store, "code/") == {"c2", "c3", "today"}
    assert {entry.key for entry in store.list() if not entry.key.startswith(("attempts/", "code/"))} == others
    assert [line.split(":")[0] for line in told] == [
        "swept the code archive c1",
        "swept by-hand-measure",
        "swept current-2",
        "kept elsewhere-5",
        "kept named-8",
        "swept superseded-1",
    ]
    assert "6 objects, untouched since" in told[2] and "published from it" in told[4]
    assert all(line.startswith("kept") for line in sweep(store, "here", lambda root: root == "alive", 14, "today"))


def test_what_cannot_be_read_is_kept_and_so_is_all_code(filled: Store) -> None:
    told = sweep(filled, "here", lambda root: False, 14, "today")
    assert told[0] == "kept unreadable-6: its plan cannot be read" and "unreadable-6" in names(filled)
    assert names(filled, "code/") == {"c1", "c2", "c3", "today"}
    assert "current-2" in names(filled) and "superseded-1" not in names(filled)


def test_a_sweep_that_dies_anywhere_is_gone_on_with(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "AT_ONCE", 1)
    whole, deaths = Store.delete, 0
    kept = {"current-2", "waiting-4", "elsewhere-5", "failed-7", "unreadable-6"}
    while True:
        left = [1]  # one object more each time

        def failing(store: Store, key: str, left: list[int] = left) -> None:
            if not left:
                raise StoreError("the store is away")
            left.pop()
            whole(store, key)

        monkeypatch.setattr(Store, "delete", failing)
        try:
            sweep(filled, "here", lambda root: root == "alive", 14, "today")
            break
        except StoreError:
            deaths += 1
            assert names(filled) >= kept
    assert deaths == 6 and names(filled) == kept


def test_a_round_has_a_budget(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "BUDGET_S", -1.0)
    assert sweep(filled, "here", lambda root: False, 14, "today")[-1] == "the rest waits for the next round"
    assert "superseded-1" in names(filled)
