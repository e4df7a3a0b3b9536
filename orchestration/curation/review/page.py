"""The page itself: verdict rows and moments in, HTML out. Every foreign word is escaped, and the page may load nothing but its own folder."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from orchestration.curation.present import COLOURS
from orchestration.curation.review.plots import Moment

Row = dict[str, Any]
TEMPLATE = Template(Path(__file__).with_name("page.html").read_text())
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 130, 66, 18  # of a plot, in px
POINTS = 400  # of a line; more of them in one px show no more
STROKES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee")  # P. Tol's bright scheme: told apart by the colour-blind


@dataclass(frozen=True)
class Entry:
    """One episode of the page. plots: reason -> moment. clip, strip: paths relative to the page. share: of the clip, per reason, where its moment is."""

    row: Row
    plots: dict[str, Moment]
    shares: dict[str, float]
    clip: str | None = None
    strip: str | None = None
    note: str = ""


def page(title: str, about: str, entries: Iterable[Entry], options: str = "") -> str:
    """`options`: what an override's command needs to find the deployment."""
    entries = list(entries)
    verdicts = Counter(entry.row["verdict"] for entry in entries)
    reasons = Counter(name for entry in entries for name in checks(entry.row))
    robots = Counter(entry.row["robot"] or "" for entry in entries)
    return TEMPLATE.substitute(
        title=escape(title),
        about=escape(about),
        verdicts=_options([(name, verdicts[name]) for name in COLOURS if verdicts[name]]),
        reasons=_options(reasons.most_common()),
        robots=_options(sorted(robots.items())),
        articles="\n".join(article(entry, options) for entry in entries),
    )


def checks(row: Row) -> list[str]:
    """The names of the checks that speak of the episode, each once; notes are none."""
    return list(dict.fromkeys(reason.split(":", 1)[0] for reason in row["reasons"] or [] if not reason.startswith("note:")))


def article(entry: Entry, options: str) -> str:
    row = entry.row
    verdict = row["verdict"] if row["verdict"] in COLOURS else "quarantined"
    machine = row.get("machine_verdict")
    overruled = f" <small>(the machine: {escape(machine)})</small>" if machine and machine != row["verdict"] else ""
    head = f"<h2><b>{escape(verdict)}</b>{escape(row['upload'] or '')}{overruled}</h2>"
    facts = " · ".join([escape(row["robot"] or ""), escape(row["task"] or "no task"), f"{row['duration_s'] or 0:.1f} s"])
    facts = f"<small>{facts} · <code>{escape(row['episode_id'])}</code></small>"
    told = "".join(f"<li{' class=override' if reason.startswith('override:') else ''}>{escape(reason)}</li>" for reason in row["reasons"] or [])
    figures = "".join(_figure(reason, found, entry.shares.get(reason)) for reason, found in entry.plots.items())
    other = "reject" if row["verdict"] == "kept" else "keep"
    command = f'./flywheel override {row["episode_id"]} {other} --reason "…"{options}'
    ask = f'<p class=ask>disagree: <code>{escape(command)}</code> <button type="button" data-copy="{escape(command)}">copy</button></p>'
    return (
        f'<article class="{escape(verdict)}" id="{escape(row["episode_id"])}" data-verdict="{escape(row["verdict"])}" data-robot="{escape(row["robot"] or "")}"'
        f' data-reasons="{escape(json.dumps(checks(row)))}"><div>{_film(entry)}</div>'
        f"<div>{head}{facts}<ul>{told}</ul>{figures}{_numbers(row)}{ask}</div></article>"
    )


def _film(entry: Entry) -> str:
    strip = f'<img class=strip loading=lazy alt="frames" src="{escape(entry.strip)}">' if entry.strip else ""
    if entry.clip:
        return f'<video controls muted preload=none src="{escape(entry.clip)}"></video>{strip}'
    return strip or f"<div class=none>{escape(entry.note or 'no clip')}</div>"


def _figure(reason: str, moment: Moment, share: float | None) -> str:
    name = reason.split(":", 1)[0]
    when = "" if moment.begin is None else f", at {moment.begin:.1f} s"
    seek = "" if share is None else f' data-share="{share:.4f}"'
    return f"<figure{seek}><figcaption><b>{escape(name)}</b>: {escape(moment.title)}{when}</figcaption>{plot(moment)}</figure>"


def _numbers(row: Row) -> str:
    lines = [(name, value) for name, value in sorted((row.get("tags") or {}).items())]
    lines += [(name, f"{value:.4g}") for name, value in sorted((row.get("scores") or {}).items())]
    cells = "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in lines)
    return f"<details><summary><small>{len(lines)} tags and scores</small></summary><dl>{cells}</dl></details>" if lines else ""


def plot(moment: Moment) -> str:
    """The lines within the moment's window as SVG, the moment itself shaded."""
    first, last = moment.window()
    seen = [(line, (line.x >= first) & (line.x <= last)) for line in moment.lines]
    values = np.concatenate([line.y[mask][np.isfinite(line.y[mask])] for line, mask in seen] or [np.zeros(0)])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    inner = HEIGHT - BOTTOM - 16

    def across(x: Any) -> Any:
        return LEFT + (x - first) / (last - first) * (WIDTH - LEFT - 6)

    def down(y: Any) -> Any:
        return 14 + (high - y) / (high - low) * inner

    parts = []
    if moment.begin is not None and moment.end is not None:
        left, right = float(across(max(moment.begin, first))), float(across(min(moment.end, last)))
        parts.append(f'<rect class=moment x="{left - 1.5:.1f}" y="12" width="{max(right - left, 0) + 3:.1f}" height="{inner + 4}"/>')
    parts.append(f'<path class=axis d="M{LEFT} 12V{HEIGHT - BOTTOM}H{WIDTH - 6}" fill="none"/>')
    for (line, mask), colour in zip(seen, STROKES, strict=False):
        for x, y in _pieces(line.x[mask], line.y[mask]):
            points = " ".join(f"{across(a):.1f},{down(b):.1f}" for a, b in zip(x, y, strict=True))
            parts.append(f'<polyline stroke="{colour}" points="{points}"/>')
    parts += [f'<text x="{LEFT - 4}" y="{y}" text-anchor="end">{value:.3g}</text>' for y, value in ((18, high), (HEIGHT - BOTTOM, low))]
    parts += [
        f'<text x="{x}" y="{HEIGHT - 4}" text-anchor="{anchor}">{value:.1f} s</text>' for x, anchor, value in ((LEFT, "start", first), (WIDTH - 6, "end", last))
    ]
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(moment.unit)}</text>')
    at = float(LEFT + 6)
    for (line, _), colour in zip(seen, STROKES, strict=False):
        label = line.name if len(line.name) <= 24 else line.name[:23] + "…"
        parts.append(f'<text x="{at:.0f}" y="9"><tspan style="fill:{colour}">━</tspan> {escape(label)}</text>')
        at += 26 + 6.2 * len(label)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(moment.title)}">{"".join(parts)}</svg>'


def _pieces(x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The line without its gaps, thinned so that each bucket keeps its least and its greatest value."""
    if len(x) > 2 * POINTS:
        bounds = np.linspace(0, len(x), POINTS + 1).astype(int)
        keep: set[int] = set()
        for start, stop in itertools.pairwise(bounds):
            part = y[start:stop]
            known = np.isfinite(part)
            keep.add(start if not known.any() else start + int(np.argmin(np.where(known, part, np.inf))))
            keep.add(start + int(np.argmax(np.where(known, part, -np.inf))) if known.any() else start)
            if not known.all():
                keep.add(start + int(np.argmin(known)))
        index = np.array(sorted(keep))
        x, y = x[index], y[index]
    holes = np.flatnonzero(~np.isfinite(y))
    parts = zip(np.split(x, holes), np.split(y, holes), strict=True)
    clean = [(a[np.isfinite(b)], b[np.isfinite(b)]) for a, b in parts]
    return [(a, b) for a, b in clean if len(a)]


def _options(counted: Iterable[tuple[str, int]]) -> str:
    return "".join(f'<option value="{escape(name)}">{escape(name)} ({count})</option>' for name, count in counted)
