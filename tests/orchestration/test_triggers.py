"""Which runs are asked for: the pure decisions, as tables and properties."""

from hypothesis import given
from hypothesis import strategies as st

from orchestration.triggers.decide import GIVE_UP_AFTER, changed_days, days_behind


def keys(decision):
    return [request.run_key for request in decision.requests]


def test_exactly_the_changed_days_are_requested():
    decision = changed_days({"d1": "a", "d2": "b", "d3": "c"}, {"d1": "a", "d2": "old", "d3": None}, frozenset(), None)
    assert keys(decision) == ["d2:b:1", "d3:c:1"]


def test_a_day_that_a_run_works_on_is_left_alone_and_asked_again_under_another_key_when_that_run_failed():
    first = changed_days({"d": "a"}, {"d": None}, frozenset(), None)
    working = changed_days({"d": "a"}, {"d": None}, frozenset({"d"}), first.cursor)
    assert not working.requests
    after = changed_days({"d": "a"}, {"d": None}, frozenset(), working.cursor)
    assert keys(after) == ["d:a:2"]


def test_other_content_starts_counting_anew():
    first = changed_days({"d": "a"}, {"d": None}, frozenset(), None)
    assert keys(changed_days({"d": "b"}, {"d": None}, frozenset(), first.cursor)) == ["d:b:1"]


def test_a_day_that_never_succeeds_is_given_up_by_name():
    cursor = None
    for _ in range(GIVE_UP_AFTER):
        decision = changed_days({"d": "a"}, {"d": None}, frozenset(), cursor)
        assert decision.requests
        cursor = decision.cursor
    decision = changed_days({"d": "a"}, {"d": None}, frozenset(), cursor)
    assert not decision.requests and decision.given_up == ("d",)


DAYS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2", "3"]))


@given(DAYS, DAYS, st.frozensets(st.sampled_from("abcdef")))
def test_no_day_is_requested_twice_under_one_key_and_none_that_is_published_or_active(index, published, active):
    seen: set[str] = set()
    cursor = None
    for _ in range(3):
        decision = changed_days(index, published, active, cursor)
        cursor = decision.cursor
        assert not seen & set(keys(decision))
        seen |= set(keys(decision))
        days = {request.day for request in decision.requests}
        assert days == {day for day in index if published.get(day) != index[day] and day not in active}


def test_late_and_failed_days_get_through():
    judged = {"d1": "v1", "d2": "v2", "d3": "v3", "d4": "v4"}
    packed = {"d1": "v1", "d2": "old", "d4": "v4"}
    assert days_behind(judged, packed, frozenset({"d1", "d2"}), frozenset({"d3"})) == ("d2", "d4")
