"""What a person looks at after a search: every trial, and where it was stopped."""

import io
from collections.abc import Sequence

from ray_jobs.training.present import markdown_picture
from ray_jobs.tuning.search import Trial


def table(trials: Sequence[Trial], best: Trial | None, steps: int) -> str:
    """Markdown, the best first, then by how far they came."""
    rows = ["| trial | learning rate | batch | policy | action error | |", "|---|---:|---:|---|---:|---|"]
    order = sorted(range(len(trials)), key=lambda number: (trials[number] is not best, -trials[number].step, trials[number].error or 0.0, number))
    for number in order:
        trial, tried = trials[number], trials[number].candidate
        name = "as set" if number == 0 else str(number)
        error = "-" if trial.error is None else f"{trial.error:.4f}"
        rows.append(f"| {name} | {tried.learning_rate:g} | {tried.batch} | {tried.policy} | {error} | {_end(trial, best, steps)} |")
    return "\n".join(rows)


def _end(trial: Trial, best: Trial | None, steps: int) -> str:
    if trial.failed:
        return f"failed: {trial.failed}".replace("|", "/")
    if trial.step < steps:
        return f"stopped at step {trial.step}"
    return f"**best** at step {steps}" if trial is best else f"step {steps}"


def curves(trials: Sequence[Trial], best: Trial | None, rungs: Sequence[int]) -> str:
    """Markdown with a small PNG: error on held-out episodes over steps, a line per trial; rungs are dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    for rung in rungs:
        axes.axvline(rung, color="grey", linestyle=":", linewidth=0.8)
    for number, trial in enumerate(trials):
        if trial.points:
            name = "best" if trial is best else "as set" if number == 0 else None
            width, colour = (2.0, "tab:green") if trial is best else (1.4, "tab:orange") if number == 0 else (0.8, "tab:blue")
            axes.plot(*zip(*trial.points, strict=True), label=name, linewidth=width, color=colour, marker=".", markersize=3)
    axes.set(xlabel="step", ylabel="action error")
    axes.grid(alpha=0.3)
    if trials and any(trial.points for trial in trials):
        axes.legend()
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return markdown_picture(sink.getvalue(), "png", "action error of each trial")
