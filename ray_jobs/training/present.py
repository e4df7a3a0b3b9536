"""Pictures of a training run for the person who looks at the materialization."""

import base64
import io


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


def markdown_picture(data: bytes, kind: str, title: str) -> str:
    return f"![{title}](data:image/{kind};base64,{base64.b64encode(data).decode()})"
