"""What is too long for memory is read some axes and some rows at a time, and its scores are those of all at once."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.curation import images, rows, sync
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.curation.rows import Rows, Table
from ray_jobs.episode import Stream
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.store import Store
from tests.curation.synthetic import Made, make, save


def as_it_is(made: Made) -> Made:
    return made


def of_many_joints(made: Made) -> Made:
    """Position commands of nine axes with a share of their own, which the joints follow a step later."""
    wide = np.concatenate([made.states, np.random.default_rng(0).normal(0, 0.05, (len(made.states), 4)).cumsum(axis=0)], axis=1)
    return made.but(states=wide[np.maximum(np.arange(len(wide)) - 1, 0)].astype(np.float32), actions=wide.astype(np.float32))


def of_few_joints_that_do_not_follow(made: Made) -> Made:
    return made.but(states=made.states[:, :4])


def out_of_order(made: Made) -> Made:
    """Holes, samples in the wrong order, and two at one time."""
    states, times = made.states.copy(), made.t_ns.copy()
    states[20:24, 1] = np.nan
    times[40], times[41], times[60] = times[41], times[40], times[59]
    return made.but(states=states, t_ns=times)


@pytest.mark.parametrize("change", [as_it_is, of_many_joints, of_few_joints_that_do_not_follow, out_of_order], ids=lambda change: change.__name__)
def test_scores_do_not_hang_on_how_much_is_in_memory(store: Store, monkeypatch: pytest.MonkeyPatch, change: Callable[[Made], Made]) -> None:
    save(store, change(make(3, count=160)), "0" * 32)
    whole = measure_here(store, "0" * 32, Plan.of(MeasureSettings(segment_s=600.0)))
    for module, name in ((rows, "AT_ONCE"), (images, "STRETCH"), (sync, "STRETCH")):
        monkeypatch.setattr(module, name, 50)
    for one, other in zip(whole, measure_here(store, "0" * 32, Plan.of(MeasureSettings(segment_s=9.0))), strict=True):
        assert one["error"] is None and other["error"] is None
        one["scores"]["image.crisp:front"] = other["scores"]["image.crisp:front"] = 0.0  # of some pictures of each segment
        assert one["scores"] == pytest.approx(other["scores"], rel=1e-6, abs=1e-7)
        assert one["vectors"].keys() == other["vectors"].keys() and one["tags"] == other["tags"]
        for name in one["vectors"].keys() - {"palette:front", "background:front", "opening:front", "closing:front"}:  # those hang on the segments
            np.testing.assert_allclose(one["vectors"][name], other["vectors"][name], rtol=1e-5, atol=1e-6, err_msg=name)


@given(st.integers(1, 70), st.integers(0, 5), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_a_table_gives_back_what_it_was_given(count: int, width: int, at_once: int) -> None:
    values = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "AT_ONCE", at_once)
        table = Table(count, width)
        for first in range(0, count, 9):
            table.put(first, values[first : first + 9])
        again = Table.made(count, width, table.parts())
        back = np.random.default_rng(1).permutation(count)
        for each, known in ((table, values), (again, values), (table.take(back), values[back])):
            assert np.array_equal(each.rows(0, count), known) and np.array_equal(each.axes(range(width)), known)
            assert [np.array_equal(each.axis(axis), known[:, axis]) for axis in range(width)] == [True] * width
            stretches = list(each.stretches())
            assert [first for first, _ in stretches] == [0, *(last for _, last in stretches[:-1])] and stretches[-1][1] == count
        if width:
            assert np.array_equal(table.ends(), (values.min(axis=0), values.max(axis=0)))


def test_samples_come_by_time_finite_and_one_per_instant() -> None:
    t_ns = np.array([10, 30, 20, 30, 40])
    values = np.array([[1.0], [3.0], [2.0], [9.0], [np.nan]], np.float32)
    made = Rows.of({"state": Stream(t_ns, t_ns, values), "action": Stream(t_ns, t_ns, values[:, :0])})
    times, table = made.ordered("state")
    assert times.tolist() == [10, 20, 30] and table.rows(0, 3).ravel().tolist() == [1.0, 2.0, 3.0]
    assert len(made.ordered("action")[0]) == len(made.ordered("nothing")[0]) == 0
