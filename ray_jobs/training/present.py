"""Pictures of a training run for the person who looks at the materialization."""

import base64
import io

from ray_jobs.training.selection import Selected


def curve_picture(curves: dict[str, list[tuple[int, float]]]) -> str:
    """Markdown with a small PNG: loss over steps, one line per name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot([step for step, _ in points], [loss for _, loss in points], label=name, linewidth=1.2)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend()
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return markdown_picture(sink.getvalue(), "png", "training curve")


def selection_table(told: Selected) -> str:
    """Markdown: what was asked for, and how many episodes that is."""
    rows = [("in the view", told.episodes), *((f"{each.text}", each.episodes) for each in told.conditions)]
    rows += [(f"{each.weight:g} × an epoch: {each.text}", each.episodes) for each in told.mixture]
    rows += [(f"left out: {why}", count) for why, count in told.left_out.items()]
    rows += [("held out", told.held_out), ("**learned from**", told.trained_on)]
    return "\n".join(["| episodes | |", "|---|---:|", *(f"| {what.replace('|', '/')} | {count} |" for what, count in rows)])


def markdown_picture(data: bytes, kind: str, title: str) -> str:
    return f"![{title}](data:image/{kind};base64,{base64.b64encode(data).decode()})"
