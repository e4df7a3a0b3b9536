"""The one shape of a benchmark's result, and where it is written."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def figure(name: str, ours: float, unit: str, against: tuple[str, float] | None, ratio: float | None, goal: str, met: bool) -> dict[str, Any]:
    """One figure. ratio: ours / against, measured in the same run."""
    other = {"name": against[0], "value": round(against[1], 4)} if against else None
    return {"id": name, "ours": round(ours, 4), "unit": unit, "against": other, "ratio": None if ratio is None else round(ratio, 4), "goal": goal, "met": met}


def write_part(name: str, part: str, parts: Sequence[str], figures: list[dict[str, Any]], told: dict[str, Any], **more: Any) -> Path:
    """Write one part of a benchmark, and keep what the JSON has of the others. The id of a figure begins with its part."""
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    kept = [each for each in before.get("figures", []) if each["id"].partition(".")[0] != part]
    others = {each: before[each] for each in parts if each in before}
    ordered = sorted(kept + figures, key=lambda each: parts.index(each["id"].partition(".")[0]))
    measured = {"measured": datetime.now(UTC).strftime("%Y-%m-%d"), **told}
    return write(name, ordered, **more, **others | {part: measured})


def write(name: str, figures: list[dict[str, Any]], **more: Any) -> Path:
    """Write benchmarks/results/<name>.json and print the figures."""
    RESULTS.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB, {platform.machine()}"
    document = {
        "name": name,
        "command": f"make bench BENCH={name}",
        "machine": machine,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "figures": figures,
        **more,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    for each in figures:
        print(f"{name} {each['id']}: {each['ours']} {each['unit']}, against {each['against']}, ratio {each['ratio']}, goal {each['goal']}: {each['met']}")
    return path
