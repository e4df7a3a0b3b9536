"""What a verdict compares an episode with: the fleet's usual numbers, and which seconds were recorded before. Hashed.

It is made of the days before this one. Where they hold too few episodes of a robot, the day's own robust statistics serve, and
the snapshot says so: a first day finds its bumped camera too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestration.curation.fleet_model import FleetModel, Sums, fit
from orchestration.curation.likeness import Near
from orchestration.curation.thresholds import Thresholds
from ray_jobs.seam.model import digest

Row = dict[str, Any]
Ledger = dict[str, dict[str, Row]]  # stage -> episode_id -> LEDGER row

EARLIER, OWN_DAY = "earlier days", "this day"


@dataclass(frozen=True)
class Usual:
    """One robot's usual: `middle` and `spread` (1.4826 MAD) of each score, and the same of each vector, element by element."""

    episodes: int
    source: str
    middle: dict[str, float]
    spread: dict[str, float]
    shape: dict[str, np.ndarray]
    shape_spread: dict[str, np.ndarray]


@dataclass(frozen=True)
class Seen:
    """An episode of an earlier day, for duplicates."""

    episode_id: str
    day: str
    robot: str
    upload: str
    start_ns: int | None
    end_ns: int | None


@dataclass(frozen=True)
class Context:
    """`digest` covers what came from earlier days alone: the day itself is an input of its verdicts anyway."""

    robots: dict[str, Usual] = field(default_factory=dict)
    models: dict[str, FleetModel] = field(default_factory=dict)
    seen: tuple[Seen, ...] = ()
    near: dict[str, tuple[Near, ...]] = field(default_factory=dict)  # episode -> those of this and earlier days that it may be a copy of
    digest: str = ""

    def usual(self, robot: str) -> Usual | None:
        return self.robots.get(robot)


def build(earlier: Iterable[tuple[list[Row], Ledger]], own: tuple[list[Row], Ledger], thresholds: Thresholds) -> Context:
    """`earlier`: (EPISODES rows, ledger) of each day before; `own`: of the day that is judged."""
    past_rows: list[Row] = []
    past: dict[str, dict[str, Row]] = {}
    for rows, ledger in earlier:
        past_rows += rows
        for episode_id, scores in combined(ledger).items():
            past.setdefault(episode_id, scores)
    own_measured = combined(own[1])
    robots: dict[str, Usual] = {}
    for robot in sorted({row["robot"] for row in own[0]}):
        before = [past[row["episode_id"]] for row in _distinct(past_rows) if row["robot"] == robot and row["episode_id"] in past]
        today = [own_measured[row["episode_id"]] for row in _distinct(own[0]) if row["robot"] == robot and row["episode_id"] in own_measured]
        for source, group in ((EARLIER, before), (OWN_DAY, today)):
            if len(group) >= thresholds.compare_at_least:
                robots[robot] = _usual(group, source)
                break
    seen = tuple(seen_of(row) for row in sorted(_distinct(past_rows), key=lambda row: (row["day"], row["episode_id"])))
    facts = [[row["episode_id"], _rounded(past.get(row["episode_id"]))] for row in sorted(_distinct(past_rows), key=lambda row: row["episode_id"])]
    return Context(robots, _models(past, own_measured, thresholds), seen, digest=digest("context 1", facts, [item.__dict__ for item in seen]))


def combined(ledger: Ledger) -> dict[str, Row]:
    """Episode -> {"scores", "vectors"} of all stages together; stages with an error contribute nothing."""
    found: dict[str, Row] = {}
    for stage in sorted(ledger):
        for episode_id, row in ledger[stage].items():
            if not row["error"]:
                entry = found.setdefault(episode_id, {"scores": {}, "vectors": {}})
                entry["scores"].update(row["scores"])
                entry["vectors"].update(row["vectors"])
    return found


def _distinct(rows: list[Row]) -> list[Row]:
    return list({row["episode_id"]: row for row in reversed(rows) if row["status"] == "ok"}.values())


def _usual(group: list[Row], source: str) -> Usual:
    middle, spread, shape, shape_spread = {}, {}, {}, {}
    for name in sorted({name for entry in group for name in entry["scores"]}):
        values = np.array([entry["scores"][name] for entry in group if name in entry["scores"]])
        middle[name] = float(np.median(values))
        spread[name] = float(1.4826 * np.median(np.abs(values - middle[name])))
    for name in sorted({name for entry in group for name in entry["vectors"] if name != "command.sums"}):
        vectors = [np.asarray(entry["vectors"][name]) for entry in group if name in entry["vectors"]]
        lengths = [len(vector) for vector in vectors]
        usual = max(set(lengths), key=lambda length: (lengths.count(length), length))
        table = np.stack([vector for vector in vectors if len(vector) == usual])
        shape[name] = np.median(table, axis=0)
        shape_spread[name] = 1.4826 * np.median(np.abs(table - shape[name]), axis=0)
    return Usual(len(group), source, middle, spread, shape, shape_spread)


def _models(past: dict[str, Row], own: dict[str, Row], thresholds: Thresholds) -> dict[str, FleetModel]:
    """Robots with the same axes share a model."""
    models: dict[str, FleetModel] = {}
    for group in (past, own):
        by_key: dict[str, list[Sums]] = {}
        for _, entry in sorted(group.items()):
            if sums := Sums.of(entry["vectors"].get("command.sums")):
                by_key.setdefault(sums.key, []).append(sums)
        for key, episodes in by_key.items():
            if key not in models and len(episodes) >= thresholds.compare_at_least and (model := fit(episodes)):
                models[key] = model
    return models


def seen_of(row: Row) -> Seen:
    timed = row["day_source"] == "recording"
    return Seen(row["episode_id"], row["day"], row["robot"], row["upload"], row["start_ns"] if timed else None, row["end_ns"] if timed else None)


def _rounded(entry: Row | None) -> Any:
    """Scores and vectors as text-stable numbers: a digest must not hang on the last bit."""
    if entry is None:
        return None
    scores = {name: float(f"{value:.6g}") for name, value in sorted(entry["scores"].items())}
    return [scores, {name: digest([float(f"{value:.5g}") for value in vector]) for name, vector in sorted(entry["vectors"].items())}]
