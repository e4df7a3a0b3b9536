"""What the launcher adds, beside dagster-ray and bare submissions: on one Ray, on KubeRay, and with many jobs at once.

`make bench BENCH=overhead` measures everything; `python -m benchmarks.overhead ray` one part, and keeps the other parts' figures.
"""

import importlib
import json
import os
import sys
import time

from benchmarks.results import RESULTS, write

PARTS = ("ray", "kuberay", "lifecycle", "requests", "crowd")


def main(parts: tuple[str, ...] = PARTS) -> None:
    path = RESULTS / "overhead.json"
    for part in parts:
        before = json.loads(path.read_text()) if path.is_file() else {}
        load = os.getloadavg()[0]
        made = importlib.import_module(f"benchmarks.overhead_{part}").run()
        if made is None:  # it has said why
            continue
        figures, more = made
        kept = [each for each in before.get("figures", []) if each["id"].partition(".")[0] in set(PARTS) - {part}]
        told = {name: before[name] for name in PARTS if name in before}
        measured = {"measured": time.strftime("%Y-%m-%d", time.gmtime()), "load": [round(load, 2), round(os.getloadavg()[0], 2)]}  # before and after
        write("overhead", sorted(kept + figures, key=_place), **{**told, part: {**measured, **more}})


def _place(figure: dict[str, str]) -> int:
    return PARTS.index(figure["id"].partition(".")[0])


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or PARTS)
