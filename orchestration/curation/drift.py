"""What has changed on a robot and stays changed: "this camera has moved since Tuesday". Pure; made of the days' medians."""

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from orchestration.curation.thresholds import Thresholds
from orchestration.curation.view import view_match

Row = dict[str, Any]
BIAS = "pair.bias"
LEAST = 3  # episodes of a day that have a median
HOLDS = 0.7  # of the change: a later day that shows less is back to normal
# Scores of the hardware that drift, and the unit that is told; what an operator does differently is no drift.
WATCHED = {"command.lag_s": "s", "pair.lag_s": "s", "image.lag_s": "s", "time.delay_s": "s", "time.rate_hz": "Hz", "image.light": "grey levels"}


@dataclass(frozen=True)
class Drift:
    """`name`: the score or vector; `since`: the first day (YYYY-MM-DD) from which on it is off by `amount`; `days`: days with data since then."""

    name: str
    since: str
    amount: float
    unit: str
    days: int

    @property
    def source(self) -> str:
        """The score or vector of the ledger that it is read from."""
        return BIAS if self.name.startswith(BIAS) else self.name

    def told(self) -> str:
        kind, _, part = self.name.partition(":")
        weekday = f"{date.fromisoformat(self.since):%A}"
        if kind == "background":
            return f"the {part} camera has moved since {weekday} {self.since}: its view is off by {self.amount:.1%} of its width"
        if kind == BIAS:
            return f"command and joint of axis {part} have differed by {self.amount:+.3g} {self.unit} more since {weekday} {self.since}"
        return f"{kind}{' of ' + part if part else ''} has changed by {self.amount:+.3g} {self.unit} since {weekday} {self.since}"


def drifting(days: list[tuple[str, list[Row]]], thresholds: Thresholds) -> tuple[tuple[Drift, ...], dict[str, str]]:
    """days: (day, episodes' scores and vectors) of one robot, the earliest first, the judged day last.

    Returns the drifts, and for each that has lasted `settle_days` days its name -> since: from then on it is the new usual.
    A change is measured against the earliest day, and counts from the first day after which every day shows it.
    """
    told = [(day, entries) for day, entries in days if len(entries) >= LEAST]
    drifts: list[Drift] = []
    if len(told) >= 2:
        drifts += _views(told, thresholds) + _scores(told, thresholds) + _biases(told, thresholds)
    return tuple(drifts), {drift.source: drift.since for drift in drifts if drift.days > thresholds.settle_days}


def since(changes: list[float], limit: float) -> int | None:
    """changes: of each day against the first, signed. The index of the first day from which on all lie beyond the limit, on the last day's side."""
    last = changes[-1]
    if abs(last) <= limit:
        return None
    start = len(changes) - 1
    while start > 0 and changes[start - 1] * np.sign(last) > HOLDS * limit:
        start -= 1
    return start if start > 0 else None


def _views(days: list[tuple[str, list[Row]]], thresholds: Thresholds) -> list[Drift]:
    found = []
    for name in sorted({name for _, entries in days for entry in entries for name in entry["vectors"] if name.startswith("background:")}):
        table = [(day, [np.asarray(entry["vectors"][name]) for entry in entries if name in entry["vectors"]]) for day, entries in days]
        table = [(day, backgrounds) for day, backgrounds in table if len(backgrounds) >= LEAST and len({len(one) for one in backgrounds}) == 1]
        if len(table) < 2 or len({len(backgrounds[0]) for _, backgrounds in table}) != 1:
            continue
        medians = [np.median(np.stack(backgrounds), axis=0) for _, backgrounds in table]
        first = np.stack(table[0][1])
        spread = 1.4826 * np.median(np.abs(first - medians[0]), axis=0)
        own = [view_match(one, medians[0], spread).shift for one in table[0][1][:LEAST]]
        if np.median(own) > thresholds.max_view_shift / 2:
            continue  # a camera that looks elsewhere in every episode has no place to move from
        changes = [0.0] + [view_match(median, medians[0], spread).shift for median in medians[1:]]
        if (start := since(changes, thresholds.max_view_shift)) is not None:
            found.append(Drift(name, table[start][0], changes[-1], "of the width", len(table) - start))
    return found


def _scores(days: list[tuple[str, list[Row]]], thresholds: Thresholds) -> list[Drift]:
    found = []
    for name in sorted({name for _, entries in days for entry in entries for name in entry["scores"] if name.split(":")[0] in WATCHED}):
        table = [(day, np.array([entry["scores"][name] for entry in entries if name in entry["scores"]])) for day, entries in days]
        table = [(day, values) for day, values in table if len(values) >= LEAST]
        if len(table) < 2:
            continue
        medians = np.array([np.median(values) for _, values in table])
        spread = 1.4826 * float(np.median(np.abs(np.concatenate([values - np.median(values) for _, values in table]))))
        habit = thresholds.habits.get(name.split(":")[0])
        margin = max(habit.margin, abs(medians[0]) * ((habit.ratio or 1.0) - 1)) if habit else thresholds.max_command_lag_s
        changes = [float(value) for value in medians - medians[0]]
        if (start := since(changes, max(margin, 3 * spread))) is not None:
            found.append(Drift(name, table[start][0], changes[-1], WATCHED[name.split(":")[0]], len(table) - start))
    return found


def _biases(days: list[tuple[str, list[Row]]], thresholds: Thresholds) -> list[Drift]:
    """An encoder that lost its zero on one day: the difference of command and joint, axis by axis."""
    table = [(day, [np.asarray(entry["vectors"][BIAS]) for entry in entries if BIAS in entry["vectors"]]) for day, entries in days]
    table = [(day, rows) for day, rows in table if len(rows) >= LEAST]
    if len(table) < 2 or len({len(row) for _, rows in table for row in rows}) != 1:
        return []
    medians = np.stack([np.median(np.stack(rows), axis=0) for _, rows in table])
    spread = 1.4826 * np.median(np.abs(np.concatenate([np.stack(rows) - np.median(np.stack(rows), axis=0) for _, rows in table])), axis=0)
    widest = max((float(np.ptp([entry["vectors"]["state.low"], entry["vectors"]["state.high"]], axis=0).max()) for entry in days[0][1]), default=0.0)
    found = []
    for axis in range(medians.shape[1]):
        changes = [float(value) for value in medians[:, axis] - medians[0, axis]]
        limit = max(thresholds.min_bias_share * widest, thresholds.max_bias_spreads * spread[axis])
        if (start := since(changes, limit)) is not None:
            found.append(Drift(f"{BIAS}:{axis}", table[start][0], changes[-1], "rad or m", len(table) - start))
    return found
