"""Pictures over days and models: how the champion came about, and whether offline error foretells success."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestration.evaluation import history
from orchestration.evaluation.record import ENOUGH, Point, calibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {True: "tab:green", False: "tab:red"}
ROWS = 20


def history_picture(points: Sequence[Point], chain: Sequence[history.Move]) -> str:
    """Markdown: each day's success with its interval, promoted or refused; a line where the champion moved; the moves as a table."""
    rolled = [point for point in points if point.rate is not None]
    text = moves_table(chain)
    if len(rolled) < 2:  # one point is no history
        return text
    figure = _figure()
    axes = figure.subplots()
    place = {point.day: number for number, point in enumerate(rolled)}
    for point in rolled:
        assert point.rate is not None and point.low is not None and point.high is not None
        spread = [[point.rate - point.low], [point.high - point.rate]]
        axes.errorbar(place[point.day], point.rate, yerr=spread, fmt="o", color=COLOURS[point.promoted], capsize=3, markersize=4)
    at = -0.5
    for move in chain:
        at = float(place[move.day]) if move.how == "gate" and move.day in place else min(at + 0.5, len(rolled) - 0.5)
        axes.axvline(at, color="grey", linestyle="-" if move.how == "gate" else ":", linewidth=0.8)
        axes.text(at, 1.02, f"{move.model.rsplit('/', 1)[-1][:6]}", fontsize=6, rotation=45, transform=axes.get_xaxis_transform())
    axes.set(ylim=(0, 1), ylabel="success of the day's policy")
    axes.set_xticks(range(len(rolled)), [point.day[5:] for point in rolled], rotation=60, fontsize=7)
    return f"{_markdown(figure, 'success by day; green promoted, red refused; lines: the champion moved, dotted by hand')}\n\n{text}"


def moves_table(chain: Sequence[history.Move]) -> str:
    """The newest first."""
    lines = ["| when (UTC) | champion | before | by | why |", "|---|---|---|---|---|"]
    for move in list(reversed(chain))[:ROWS]:
        when = f"{move.when:%Y-%m-%d %H:%M}" if move.when else move.generation
        by = f"the gate, {move.day}" if move.how == "gate" else f"a person: {move.how}"
        lines.append(f"| {when} | {_short(move.model)} | {_short(move.before)} | {by} | {'; '.join(move.reasons).replace('|', '/')} |")
    return "\n".join(lines)


def _short(model: str | None) -> str:
    return model.rsplit("/", 1)[-1][:12] if model else "none"


def calibration_picture(points: Sequence[Point]) -> str:
    """Markdown: one point per model, offline error against success, and what that says."""
    told = [point for point in points if point.error is not None and point.rate is not None]
    found = calibration(points)
    if found.rank is None or found.chance is None:
        verdict = f"{found.models} models that differ are too few to say whether offline error foretells success ({ENOUGH} are needed)"
    else:
        leads = "goes with" if found.rank < 0 else "does not go with"
        sure = "" if found.chance < 0.05 else ", which chance alone would give often"
        verdict = f"over {found.models} models a lower offline error {leads} more success: rank correlation {found.rank:+.2f}, p = {found.chance:.2g}{sure}"
    if len(told) < 2:
        return verdict
    figure = _figure()
    axes = figure.subplots()
    for point in told:
        assert point.error is not None and point.rate is not None and point.low is not None and point.high is not None
        axes.errorbar(point.error, point.rate, yerr=[[point.rate - point.low], [point.high - point.rate]], fmt="o", color="tab:blue", capsize=3, markersize=4)
        axes.annotate(point.day[5:], (point.error, point.rate), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axes.set(xlabel="offline error, share of the actions' spread", ylabel="success", ylim=(0, 1))
    return f"{_markdown(figure, 'offline error against success, one point per model')}\n\n{verdict}"


def _figure() -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(5.5, 2.8), dpi=80, layout="constrained")


def _markdown(figure: "Figure", title: str) -> str:
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return f"![{title}](data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()})"
