"""The arms of a study for the person who looks at the materialization."""

import io
from typing import Any

from ray_jobs.training.present import markdown_picture

NAMES = {"all": "everything uploaded", "random_drop": "a random drop", "curated": "curated"}


def table(arms: dict[str, Any], failed: dict[str, str]) -> str:
    lines = ["| trained on | episodes | rows | success | 95 % interval | by training seed |", "|---|---|---|---|---|---|"]
    for arm, told in arms.items():
        interval = f"{told['low']:.0%} to {told['high']:.0%}"
        seeds = ", ".join(f"{each['rate']:.0%}" for each in told["training_seeds"].values())
        lines.append(f"| {NAMES[arm]} | {told['episodes']} | {told['frames']} | {told['rate']:.0%} of {told['rollouts']} | {interval} | {seeds} |")
    lines += [f"| {NAMES[arm]} | | | could not be trained {reason} | | |" for arm, reason in failed.items()]
    lines += ["", "All face the same scenes: the intervals are those of these training seeds' policies, not of the next seed's."]
    return "\n".join(lines)


def bars(arms: dict[str, Any]) -> str:
    """Markdown with a small PNG: success and its interval per arm, and a point per training seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    rates = [told["rate"] for told in arms.values()]
    errors = [[told["rate"] - told["low"] for told in arms.values()], [told["high"] - told["rate"] for told in arms.values()]]
    axes.bar([NAMES[arm] for arm in arms], rates, yerr=errors, capsize=4, width=0.5, color="tab:blue", alpha=0.6)
    points = [(place, each["rate"]) for place, told in enumerate(arms.values()) for each in told["training_seeds"].values()]
    if points:
        axes.plot([place for place, _ in points], [rate for _, rate in points], ".", color="black", label="each training seed")
        axes.legend(fontsize=8, loc="upper left")
    axes.set(ylim=(0, 1), ylabel="success")
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return markdown_picture(sink.getvalue(), "png", "success of the arms")
