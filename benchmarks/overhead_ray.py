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
from collections.abc import Callable
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
    python, head = peer.interpreter(), Head(home)
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
    told: dict[str, Any] = {"turns": turns}
    for position, state_of in enumerate(("cold", "warm")):
        found = {kind: [turn[position] for turn in each] for kind, each in rest.items()}
        made, told[state_of] = compared(f"ray.{state_of}", found, "a bare submission")
        figures += made
        told[state_of]["metadata_arrived"] = {kind: sum(turn["metadata"] for turn in found[kind]) for kind in ("ours", "theirs")}
    return figures + times, {**told, **spread}


PARTS: dict[str, Callable[[Turn], float]] = {
    "overhead": lambda turn: turn["first_line"] - turn["start"] + turn["materialized"] - turn["done"],
    "start_to_first_line": lambda turn: turn["first_line"] - turn["start"],
    "end_to_materialization": lambda turn: turn["materialized"] - turn["done"],
    "start_to_materialization": lambda turn: turn["materialized"] - turn["start"],  # also what runs between first line and end: imports
}


def compared(name: str, turns: dict[str, list[Turn]], bare: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What ours and the peer add to bare: medians over the rounds of each round's difference. The goal is about the overhead alone."""
    figures, seconds = [], {}
    for part, of in PARTS.items():
        spent = {kind: [of(turn) for turn in each] for kind, each in turns.items()}
        ours, theirs = (median(one - other for one, other in zip(spent[kind], spent["bare"], strict=True)) for kind in ("ours", "theirs"))
        goal = part == "overhead"
        wanted = f"<= {GOAL_S} s and <= {GOAL_RATIO} of {peer.NAME}'s" if goal else "reported"
        met = ours <= min(GOAL_S, GOAL_RATIO * theirs) if goal else True
        figures.append(figure(f"{name}.{part}", ours, f"s more than {bare}", (peer.NAME, theirs), ours / theirs, wanted, met))
        seconds[part] = {kind: [round(value, 3) for value in (min(each), median(each), max(each))] for kind, each in spent.items()}
    return figures, {"least_median_most_s": seconds}


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
