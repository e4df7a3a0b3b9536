"""What launching adds on one Ray: (asset start to the job's first line) + (the job's end to the materialization), less a bare submission's.

Ours, dagster-ray and a bare submission in turns on the same head. Each turn of the first two is a process of its own that materializes twice:
first cold, as every Dagster run is, then warm. The moments are Dagster's own events and clocks read in the job.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import requests

from benchmarks import peer
from benchmarks.overhead_lifecycle import Place, lifecycle
from benchmarks.results import figure
from orchestration.launching.head import Head, HeadState
from ray_jobs.seam.store import Store, StoreConfig

ROOT = Path(__file__).parents[1]
JOB = f"{sys.executable} {Path(peer.__file__).with_name('job.py')}"
TURNS = 7
PAUSES_S = (3.0, 0.5)  # before a bare submission: as long as the head has rested before the others' cold and warm ones
GOAL_S, GOAL_RATIO = 1.0, 0.5
KINDS = ("ours", "theirs", "bare")
Turn = dict[str, Any]  # start, first_line, done, materialized (seconds since 1970), metadata


def run(turns: int = TURNS) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Figures, and what they were made of."""
    home = Path(tempfile.mkdtemp(prefix="fw-bench-"))
    os.environ["FLYWHEEL_HOME"] = str(home)
    python, head = peer.environment(), Head(home)
    seen: dict[str, list[list[Turn]]] = {kind: [] for kind in KINDS}
    try:
        state = head.ensure()
        for number in range(turns + 1):
            for kind in (*KINDS[number % 3 :], *KINDS[: number % 3]):
                seen[kind].append(_turn(kind, number, home, python, head, state))

        def left(job: str) -> int:
            return int(requests.get(f"http://127.0.0.1:{state.port}/api/jobs/{job}", headers=head.headers(state), timeout=30).status_code != 404)

        times, spread = lifecycle("ray", Place(Store(StoreConfig.local(home / "store")), left), turns)
    finally:
        head.stop()
        shutil.rmtree(home, ignore_errors=True)
    rest = {kind: each[1:] for kind, each in seen.items()}  # the first round warms the head's workers
    figures: list[dict[str, Any]] = []
    medians: dict[str, Any] = {}
    for position, state_of in enumerate(("cold", "warm")):
        found = {kind: spans([turn[position] for turn in each]) for kind, each in rest.items()}
        medians[state_of] = found
        figures += compared(f"ray.{state_of}", found, "bare submission")
    arrived = {kind: sum(turn["metadata"] for each in rest[kind] for turn in each) for kind in ("ours", "theirs")}
    return figures + times, {"turns": turns, "medians_s": medians, "metadata_arrived": {**arrived, "of": 2 * turns}, **spread}


def spans(turns: list[Turn]) -> dict[str, float]:
    """Medians of the two waits, of their sum in each turn, and of all that is not between the job's first line and its end."""
    start = [turn["first_line"] - turn["start"] for turn in turns]
    end = [turn["materialized"] - turn["done"] for turn in turns]
    both = [one + other for one, other in zip(start, end, strict=True)]
    whole = [turn["materialized"] - turn["start"] for turn in turns]
    return {name: round(median(each), 4) for name, each in (("start", start), ("end", end), ("both", both), ("whole", whole))}


def compared(name: str, found: dict[str, dict[str, float]], bare: str, goal: bool = True) -> list[dict[str, Any]]:
    """The overhead over bare (the goal), and the parts of it. `whole` has also what runs between the job's first line and its end: imports."""
    figures = []
    for part, label in (("both", "overhead"), ("start", "start_to_first_line"), ("end", "end_to_materialization"), ("whole", "start_to_materialization")):
        ours, theirs = (found[kind][part] - found["bare"][part] for kind in ("ours", "theirs"))
        asked = goal and part == "both"
        wanted = f"<= {GOAL_S} s and <= {GOAL_RATIO} of {peer.NAME}'s" if asked else "reported"
        met = ours <= GOAL_S and ours <= GOAL_RATIO * theirs if asked else True
        figures.append(figure(f"{name}.{label}", ours, f"s more than {bare}", (peer.NAME, theirs), ours / theirs, wanted, met))
    return figures


def _turn(kind: str, number: int, home: Path, python: Path, head: Head, state: HeadState) -> list[Turn]:
    marks = [home / f"{kind}-{number}-{each}.json" for each in range(2)]
    if kind == "bare":
        return [_bare(head, state, where, pause) for where, pause in zip(marks, PAUSES_S, strict=True)]
    if kind == "ours":
        return process([sys.executable, "-m", "benchmarks.overhead_asset", "turns", str(number), "2"])
    order = {
        "kind": "ray",
        "job": JOB,
        "seconds": 0,
        "marks": [str(where) for where in marks],
        "address": f"http://127.0.0.1:{state.port}",
        "headers": head.headers(state),
    }
    document = home / "order.json"
    document.write_text(json.dumps(order))
    turns = process([str(python), str(Path(peer.__file__).with_name("asset.py")), str(document)])
    return [{**turn, **json.loads(where.read_text())} for turn, where in zip(turns, marks, strict=True)]


def process(command: list[str], environment: dict[str, str] | None = None) -> list[Turn]:
    """The turns that a process prints, one JSON line each among whatever else it says."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"start"')]


def _bare(head: Head, state: HeadState, where: Path, pause: float) -> Turn:
    """The shortest way: submit over HTTP, and ask every 0.1 s whether it is over."""
    time.sleep(pause)
    url, headers = f"http://127.0.0.1:{state.port}/api/jobs/", head.headers(state)
    start = time.time()
    job = requests.post(url, json={"entrypoint": f"{JOB} {where} 0"}, headers=headers, timeout=30).json()["submission_id"]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if requests.get(url + job, headers=headers, timeout=30).json()["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
            break
        time.sleep(0.1)
    return {"start": start, "materialized": time.time(), **json.loads(where.read_text())}
