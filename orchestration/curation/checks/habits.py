"""Every score that has a habit in the thresholds, against the same robot's usual: one rule for all of them."""

from collections.abc import Iterator

from orchestration.curation.checks.case import Case
from orchestration.curation.thresholds import Habit

TICKING = ("time.gap_s", "time.lost", "time.jitter", "time.uncovered_s")  # of a stream that speaks only when it has to they say nothing


def habits(case: Case) -> Iterator[str]:
    for name, value in sorted(case.scores.items()):
        score, _, part = name.partition(":")
        habit = case.limits.habits.get(score)
        usual = None if habit is None else case.habit if habit.of == "task" else case.usual
        if habit is None or usual is None or name not in usual.middle:
            continue
        if score in TICKING and usual.middle.get(f"time.even:{part}", 0.0) < case.limits.even_at_least:
            continue
        check = off(value, usual.middle[name], usual.spread[name] * usual.widening, habit)
        if check:
            what = f"{score} of {part}" if part else score
            yield f"{check}: {what} is {value:.3g}, usually {usual.middle[name]:.3g} (give or take {usual.spread[name]:.2g})"


def off(value: float, middle: float, spread: float, habit: Habit) -> str | None:
    """The check's name where the value is off, else None."""
    check = habit.above if value > middle else habit.below
    away = abs(value - middle)
    if check is None or away <= habit.margin or away <= habit.spreads * spread:
        return None
    if habit.ratio is not None:
        small, large = sorted((abs(value), abs(middle)))
        if value * middle > 0 and large < habit.ratio * small:
            return None
    return check
