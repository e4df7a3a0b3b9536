"""What a verdict compares an episode with: the fleet's usual numbers, and which seconds were recorded before. Hashed.

It is made of the days before this one. Where they hold too few episodes of a robot, the day's own robust statistics serve, and
the snapshot says so: a first day finds its bumped camera too.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestration.curation.drift import Drift, drifting
from orchestration.curation.fleet_model import FleetModel, Relations, Sums, fit, relations
from orchestration.curation.likeness import Near
from orchestration.curation.thresholds import Thresholds
from orchestration.curation.view import ViewHabit, view_habit
from ray_jobs.seam.model import digest

Row = dict[str, Any]
Ledger = dict[str, dict[str, Row]]  # stage -> episode_id -> LEDGER row

EARLIER, OWN_DAY = "earlier days", "this day"


@dataclass(frozen=True)
class Usual:
    """One robot's usual: `middle` and `spread` (1.4826 MAD) of each score, and the same of each vector, element by element.

    `views`: how far the robot's own backgrounds lie from their median, by camera. `relations`: what ties its joints together. `drifts`: what
    has changed for good within the context's days.
    """

    episodes: int
    source: str
    middle: dict[str, float]
    spread: dict[str, float]
    shape: dict[str, np.ndarray]
    shape_spread: dict[str, np.ndarray]
    views: dict[str, ViewHabit] = field(default_factory=dict)
    relations: Relations | None = None
    drifts: tuple[Drift, ...] = ()

    @property
    def widening(self) -> float:
        """By which a spread from so few episodes is multiplied: 2 for four, 1.5 for eight."""
        return 1 + 4 / self.episodes


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
    """`tasks`: (robot, task) -> the robot's usual in that task. `models`: robot -> how its kind answers to commands.

    `digest` covers what came from earlier days alone: the day itself is an input of its verdicts anyway.
    """

    robots: dict[str, Usual] = field(default_factory=dict)
    tasks: dict[tuple[str, str], Usual] = field(default_factory=dict)
    models: dict[str, FleetModel] = field(default_factory=dict)
    seen: tuple[Seen, ...] = ()
    near: dict[str, tuple[Near, ...]] = field(default_factory=dict)  # episode -> those of this and earlier days that it may be a copy of
    digest: str = ""


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
    tasks: dict[tuple[str, str], Usual] = {}
    for robot in sorted({row["robot"] for row in own[0]}):
        before = [(row, past[row["episode_id"]]) for row in _distinct(past_rows) if row["robot"] == robot and row["episode_id"] in past]
        today = [(row, own_measured[row["episode_id"]]) for row in _distinct(own[0]) if row["robot"] == robot and row["episode_id"] in own_measured]
        drifts, fresh = drifting(_by_day(before, today), thresholds)
        if found := _choose(before, today, thresholds, drifts, fresh):
            robots[robot] = found
        for task in sorted({row["task"] for row, _ in today}):
            mine, todays = ([pair for pair in group if pair[0]["task"] == task] for group in (before, today))
            if found := _choose(mine, todays, thresholds):
                tasks[robot, task] = found
    seen = tuple(seen_of(row) for row in sorted(_distinct(past_rows), key=lambda row: (row["day"], row["episode_id"])))
    facts = [[row["episode_id"], _rounded(past.get(row["episode_id"]))] for row in sorted(_distinct(past_rows), key=lambda row: row["episode_id"])]
    models = fit_models(_sums_by_robot(past_rows, past), _sums_by_robot(own[0], own_measured), robots, thresholds)
    return Context(robots, tasks, models, seen, digest=digest("context 2", facts, [item.__dict__ for item in seen]))


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


Pairs = list[tuple[Row, Row]]  # (EPISODES row, its scores and vectors)


def _choose(before: Pairs, today: Pairs, thresholds: Thresholds, drifts: tuple[Drift, ...] = (), fresh: dict[str, str] | None = None) -> Usual | None:
    """The usual of the earlier days where they hold enough episodes, else the day's own. `fresh`: vector or score -> the day since when a change
    has settled: older values of it no longer count."""
    for source, group in ((EARLIER, before), (OWN_DAY, today)):
        if len(group) >= thresholds.compare_at_least:
            return _usual(group, source, drifts, fresh or {}, thresholds)
    return None


def _usual(group: Pairs, source: str, drifts: tuple[Drift, ...], fresh: dict[str, str], thresholds: Thresholds) -> Usual:
    middle, spread, shape, shape_spread, views = {}, {}, {}, {}, {}
    for name in sorted({name for _, entry in group for name in entry["scores"]}):
        values = np.array([entry["scores"][name] for row, entry in group if name in entry["scores"] and row["day"] >= fresh.get(name, "")])
        if len(values) >= thresholds.compare_at_least:
            middle[name] = float(np.median(values))
            spread[name] = float(1.4826 * np.median(np.abs(values - middle[name])))
    for name in sorted({name for _, entry in group for name in entry["vectors"] if name != "command.sums"}):
        vectors = [np.asarray(entry["vectors"][name]) for row, entry in group if name in entry["vectors"] and row["day"] >= fresh.get(name, "")]
        lengths = [len(vector) for vector in vectors]
        if len(lengths) < thresholds.compare_at_least:
            continue
        usual = max(set(lengths), key=lambda length: (lengths.count(length), length))
        table = np.stack([vector for vector in vectors if len(vector) == usual])
        shape[name] = np.median(table, axis=0)
        shape_spread[name] = 1.4826 * np.median(np.abs(table - shape[name]), axis=0)
        if name.startswith("background:"):
            views[name.split(":", 1)[1]] = view_habit(list(table), shape[name], shape_spread[name])
    tied = relations([np.asarray(entry["vectors"]["state.moments"]) for _, entry in group if "state.moments" in entry["vectors"]], thresholds.fit_at_least)
    return Usual(len(group), source, middle, spread, shape, shape_spread, views, tied, drifts)


def _by_day(before: Pairs, today: Pairs) -> list[tuple[str, list[Row]]]:
    """(day, its episodes' scores and vectors), the earliest first."""
    days: dict[str, list[Row]] = {}
    for row, entry in before + today:
        days.setdefault(row["day"], []).append(entry)
    return sorted(days.items())


def _sums_by_robot(rows: list[Row], measured: dict[str, Row]) -> dict[str, list[Sums]]:
    found: dict[str, list[Sums]] = {}
    for row in sorted(_distinct(rows), key=lambda row: row["episode_id"]):
        if sums := Sums.of(measured.get(row["episode_id"], {}).get("vectors", {}).get("command.sums")):
            found.setdefault(row["robot"], []).append(sums)
    return found


def fit_models(past: dict[str, list[Sums]], own: dict[str, list[Sums]], robots: dict[str, Usual], thresholds: Thresholds) -> dict[str, FleetModel]:
    """One model for the robots of a kind: as many axes of both, and nearly the same range of motion."""
    models: dict[str, FleetModel] = {}
    for group in (past, own):
        kinds: list[list[str]] = []
        for robot in sorted(group):
            mates = next((kind for kind in kinds if group[kind[0]][0].key == group[robot][0].key and alike(robots.get(kind[0]), robots.get(robot))), None)
            if mates is None:
                kinds.append([robot])
            else:
                mates.append(robot)
        for kind in kinds:
            episodes = [sums for robot in kind for sums in group[robot] if sums.key == group[kind[0]][0].key]
            least = thresholds.compare_at_least if episodes[0].kind == 0 else thresholds.fit_at_least
            if len(episodes) >= least and (model := fit(episodes)):
                models.update({robot: model for robot in kind if robot not in models})
    return models


def alike(one: Usual | None, other: Usual | None) -> bool:
    """Whether two robots move over the same range: the ends differ by less than half of it."""
    if one is None or other is None or "state.low" not in one.shape or "state.low" not in other.shape:
        return False
    if len(one.shape["state.low"]) != len(other.shape["state.low"]):
        return False
    span = np.maximum(one.shape["state.high"] - one.shape["state.low"], other.shape["state.high"] - other.shape["state.low"])
    away = np.maximum(*(np.abs(one.shape[name] - other.shape[name]) for name in ("state.low", "state.high")))
    return bool(np.all(away <= 0.5 * span + 1e-9))


def seen_of(row: Row) -> Seen:
    timed = row["day_source"] == "recording"
    return Seen(row["episode_id"], row["day"], row["robot"], row["upload"], row["start_ns"] if timed else None, row["end_ns"] if timed else None)


def _rounded(entry: Row | None) -> Any:
    """Scores and vectors as text-stable numbers: a digest must not hang on the last bit."""
    if entry is None:
        return None
    scores = {name: float(f"{value:.6g}") for name, value in sorted(entry["scores"].items())}
    return [scores, {name: _digest(np.asarray(vector, np.float64)) for name, vector in sorted(entry["vectors"].items())}]


def _digest(vector: np.ndarray) -> str:
    """Of five digits of each number."""
    scale = 10.0 ** (4 - np.floor(np.log10(np.maximum(np.abs(vector), 1e-300))))
    return hashlib.sha256((np.round(vector * scale) / scale + 0.0).astype("<f4").tobytes()).hexdigest()
