"""Checks of the recording as such: length, numbers, clocks, and what it claims of itself."""

from collections.abc import Iterator

from orchestration.curation.checks.case import Case


def durations(case: Case) -> Iterator[str]:
    length = case.scores.get("duration_s", 0.0)
    if length < case.limits.min_duration_s:
        yield f"too_short: {length:.1f} s, and {case.limits.min_duration_s:g} s is the least"
    if length > case.limits.max_duration_s:
        yield f"too_long: {length:.0f} s, and {case.limits.max_duration_s:g} s is the most"


def marked(case: Case) -> Iterator[str]:
    if case.scores.get("success") == 0.0:
        yield "marked_failed: the recording says itself that it did not succeed"


def cut_off(case: Case) -> Iterator[str]:
    """The file lost its end while the episode was going on: who recorded it marks ends, and this one is missing."""
    notes = case.row["notes"] or []
    if any(note.startswith("truncated: the file ends within a record") for note in notes) and any("stops within the episode" in note for note in notes):
        yield "truncated: the file ends within a record, and the episode has no end marker"


def numbers(case: Case) -> Iterator[str]:
    for stream in ("state", "action"):
        share = case.scores.get(f"{stream}.nonfinite", 0.0)
        if share > case.limits.max_nonfinite:
            yield f"not_a_number: {share:.1%} of the {stream}s are NaN or infinite"


def clocks(case: Case) -> Iterator[str]:
    limits = case.limits
    for stream, steps in case.each("time.backward"):
        if steps > limits.max_backward_steps:
            yield f"clock_backward: {stream} time runs backwards {steps:.0f} times"
    for stream, jump in case.each("time.clock_s"):
        if jump > limits.max_clock_step_s:
            yield f"clock_step: {stream} time jumps by {jump:.2f} s against the logger's"
    skew = case.scores.get("time.skew_s", 0.0)
    if skew > limits.max_skew_s:
        yield f"clock_skew: the clocks of the streams are {skew:.2f} s apart, by how late they are logged"
    for stream, gap in case.each("time.gap_s"):
        if ticks(case, stream) and gap > max(limits.max_gap_s, limits.max_gap_periods / case.scores.get(f"time.rate_hz:{stream}", 1e9)):
            yield f"gap: {stream} is silent for {gap:.2f} s"
    for stream, lost in case.each("time.lost"):
        if ticks(case, stream) and lost > limits.max_lost:
            yield f"lost_samples: {lost:.0%} of the {stream} samples are missing at its own rate"
    length = case.scores.get("duration_s", 0.0)
    for stream, missing in case.each("time.uncovered_s"):
        if ticks(case, stream) and missing > max(limits.max_uncovered_s, limits.max_uncovered_share * length):
            yield f"cut_stream: {stream} is missing for {missing:.1f} s at the start or the end"


def ticks(case: Case, stream: str) -> bool:
    """Whether a stream comes at an even rate; one that speaks only when it has to is never silent, and an operator may let go of the commands."""
    return stream != "action" and case.scores.get(f"time.even:{stream}", 1.0) >= case.limits.even_at_least
