"""The days: one daily partition definition for the whole deployment, and the window that training reads."""

import warnings

import dagster as dg

from orchestration.settings import current

# Backfill policies and partitioned checks are marked beta in the version that we pin and test: no news at every start.
for category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=category)

DAILY = dg.DailyPartitionsDefinition(start_date=current().first_day, end_offset=1)  # today's partition exists today


def window_mapping() -> dg.TimeWindowPartitionMapping:
    """Training of a day reads the day and the window_days - 1 before it; days outside the partitions are left out."""
    return dg.TimeWindowPartitionMapping(start_offset=1 - current().window_days, allow_nonexistent_upstream_partitions=True)


def window(day: str) -> tuple[str, ...]:
    """The days that training of `day` reads, oldest first."""
    keys = DAILY.get_partition_keys()
    position = keys.index(day)
    return tuple(keys[max(0, position + 1 - current().window_days) : position + 1])
