"""Each phase spends its own time: a job in a queue does not start, and one that starts again does so anew."""

from hypothesis import given
from hypothesis import strategies as st

from orchestration.launching.effects import Job
from orchestration.launching.following import _overdue, _Watch
from orchestration.launching.survey import AttemptSeen
from orchestration.launching.work import Attempt, Budgets, Resources

BUDGETS = Budgets(queued=100.0, starting=20.0, running=1000.0)
ATTEMPT = Attempt(
    base="b", number=1, deployment="d", asset="a", days=("2026-01-05",), module="m", config={"deadline_s": 240.0}, code="", generation="g", root_run="r",
    run_id="r", series="r", resources=Resources(),
)  # fmt: skip


def play(looks: list[tuple[float, str, int]], note: str = "", failure: str | None = None) -> tuple[str, str] | None:
    """(seconds since the look before, phase, drivers that have shown themselves) -> the first verdict."""
    watch, now = _Watch(), 0.0
    for passed, phase, drivers in looks:
        now += passed
        at = AttemptSeen(1, executions={f"e{number}" for number in range(drivers)})
        late = _overdue(watch, Job("b-a1", "u", phase, {}, note=note, failure=failure), at, ATTEMPT, BUDGETS, now)  # type: ignore[arg-type]
        if late:
            return late
    return None


def test_waiting_in_a_queue_never_counts_against_starting() -> None:
    assert play([(0, "queued", 0), (90, "queued", 0), (1, "starting", 0), (15, "running", 0), (10, "running", 1)]) is None


def test_time_in_the_queue_is_spent_and_told() -> None:
    assert play([(0, "queued", 0), (101, "queued", 0)], note="no quota") == ("capacity", "it waited 101 s in the queue: no quota")


def test_a_pod_that_cannot_start_is_capacity_within_the_starting_budget() -> None:
    assert play([(0, "starting", 0), (21, "starting", 0)], "ImagePullBackOff", "capacity") == ("capacity", "its driver said nothing for 21 s: ImagePullBackOff")
    assert play([(0, "running", 0), (21, "running", 0)]) == ("infrastructure", "its driver said nothing for 21 s")


def test_a_preempted_job_starts_anew_and_each_driver_has_the_whole_deadline() -> None:
    run = [(0.0, "starting", 0), (15.0, "starting", 0), (4.0, "running", 1), (290.0, "running", 1)]
    assert play(run) is None
    again = [*run, (1.0, "queued", 1), (60.0, "queued", 1), (1.0, "starting", 1), (18.0, "starting", 1), (1.0, "running", 2), (290.0, "running", 2)]
    assert play(again) is None, "240 s and a minute's grace hold for one driver"
    late = play([*again, (12.0, "running", 2)])
    assert late is not None and late[0] == "user"


def test_a_job_that_was_long_in_a_queue_is_looked_at_as_often_as_a_new_one() -> None:
    watch = _Watch()
    watch.charge("queued", frozenset(), 0.0)
    watch.charge("queued", frozenset(), 3000.0)
    assert watch.pause(0.25, 3000.0) == 5.0
    watch.charge("running", frozenset(), 3001.0)
    assert watch.pause(0.25, 3001.0) == 0.25


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["queued", "starting", "running"]), st.integers(0, 3)), max_size=30))
def test_no_phase_is_charged_for_time_that_was_seen_in_another(looks: list[tuple[float, str, int]]) -> None:
    watch, now = _Watch(), 0.0
    before: tuple[float, str] | None = None
    most = dict.fromkeys(["queued", "starting", "running"], 0.0)
    for passed, phase, drivers in looks:
        now += passed
        watch.charge(phase, frozenset(map(str, range(drivers))), now)
        if before is not None and before[1] == phase:
            most[phase] += passed
        before = (now, phase)
        assert all(spent <= most[name] + 1e-6 for name, spent in watch.spent.items())
