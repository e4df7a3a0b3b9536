"""How own recordings of any age become runs."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestration.local.loop import GAP_DAYS, stretches


def test_years_between_recordings_are_no_range() -> None:
    days = ["2020-04-09", "2025-06-01", "2025-06-07", "2026-11-24"]
    assert stretches(days) == [("2020-04-09", "2020-04-09"), ("2025-06-01", "2025-06-07"), ("2026-11-24", "2026-11-24")]
    assert stretches([]) == []


@given(st.sets(st.dates(date(2015, 1, 1), date(2026, 12, 31)), min_size=1, max_size=40))
def test_every_day_is_in_one_stretch_and_none_is_mostly_empty(dates: set[date]) -> None:
    days = sorted(each.isoformat() for each in dates)
    found = stretches(days)
    for day in days:
        assert sum(first <= day <= last for first, last in found) == 1
    for first, last in found:
        inside = [day for day in days if first <= day <= last]
        span = date.fromisoformat(last) - date.fromisoformat(first)
        assert inside[0] == first and inside[-1] == last and span <= timedelta(days=GAP_DAYS) * (len(inside) - 1)
