"""Checks of states, actions and times alone: no picture is decoded for them."""

import numpy as np

from ray_jobs.curation.agreement import agreement
from ray_jobs.curation.axes import events, glitches, idleness, jumps, ranges, spikes, stuck, switches
from ray_jobs.curation.pairs import match_names, pairs
from ray_jobs.curation.rows import Rows, Table
from ray_jobs.curation.stage import Measured, Partial, Resources, Segment, Stage
from ray_jobs.curation.timing import timing, together
from ray_jobs.episode import EpisodeMeta

COVARIANCE_MAX = 16  # axes; the covariance of more is large, and hardly determined by an episode
VALUES = ("state", "action")
Moved = dict[str, tuple[np.ndarray, Table]]  # stream -> (times ns, finite values) in order of time


class Signal(Stage):
    """Rates, gaps, clocks, ranges, spikes, stuck joints, idleness, smoothness, grippers, and whether the arm does what it is told."""

    name = "signal"
    version = "3"
    writes = ("time", "state", "action", "command", "pair", "idle", "gripper", "duration_s", "success")
    resources = Resources()

    def measure(self, segment: Segment) -> Partial:
        """Nothing: its scores are of the rows themselves, which the store holds."""
        return {}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        scores: dict[str, float] = {}
        vectors: dict[str, np.ndarray] = {}
        clocks = dict(sorted(rows.clocks.items()))
        clocks = {name: pair for name, pair in clocks.items() if len(pair[0]) >= 2}
        for name, (t_ns, log_ns) in clocks.items():
            scores.update({f"time.{key}:{name}": value for key, value in timing(t_ns, log_ns).items()})
        scores.update(together(clocks))
        if meta.success is not None:
            scores["success"] = float(meta.success)
        table = _table(rows, scores)
        for name, (times, values) in table.items():
            names = meta.state_names if name == "state" else meta.action_names
            more, shapes = ranges(values)
            scores.update({f"{name}.{key}": value for key, value in more.items()})
            vectors.update({f"{name}.{key}": value for key, value in shapes.items()})
            grips = switches(values, names)
            vectors[f"{name}.switch"] = grips.astype(np.float32)
            if grips.any():
                scores[f"gripper.events:{name}"] = max(events(values.axis(axis)) for axis in np.flatnonzero(grips).tolist())
            if name == "state":
                vectors["state.spike"] = np.where(grips, 0.0, spikes(values))
                vectors["state.glitch"] = np.where(grips, 0.0, glitches(values))
                vectors["state.jump"] = np.where(grips, 0.0, jumps(values))
                vectors["state.stuck_s"] = stuck(times, values)
                scores.update(idleness(times, values))
                if values.shape[1] <= COVARIANCE_MAX:
                    vectors["state.moments"] = moments(values)
        if len(table) == 2:
            scores.update(_commands(table, meta, vectors))
        return Measured(scores, vectors)


def _table(rows: Rows, scores: dict[str, float]) -> Moved:
    table: Moved = {}
    for name in VALUES:
        if name not in rows.tables or rows.tables[name].shape[1] == 0:
            continue
        finite = rows.finite(name)
        scores[f"{name}.nonfinite"] = float(1 - finite.mean()) if len(finite) else 0.0
        scores[f"{name}.samples"] = float(len(finite))
        times, kept = rows.ordered(name)
        if len(times) >= 3:
            table[name] = (times, kept)
    return table


def _commands(table: Moved, meta: EpisodeMeta, vectors: dict[str, np.ndarray]) -> dict[str, float]:
    scores: dict[str, float] = {}
    (state_t, state), (action_t, action) = table["state"], table["action"]
    origin = min(state_t[0], action_t[0])
    state_s, action_s = (state_t - origin) / 1e9, (action_t - origin) / 1e9
    found = agreement(state_s, state, action_s, action)
    if found:
        scores.update({"command.r2": found.r2, "command.lag_s": found.lag_s, "command.r2_now": found.r2_now})
        if len(found.sums):
            vectors["command.sums"] = found.sums
    matched = match_names(meta.action_names, meta.state_names, action.shape[1], state.shape[1])
    beside = pairs(state_s, state, action_s, action, matched)
    if beside:
        scores.update({"pair.r": beside.r, "pair.lag_s": beside.lag_s, "pair.level": float(beside.level), "pair.swap": beside.swap})
        vectors["pair.axes"] = np.array(beside.names, np.float32).ravel()
        vectors["pair.swapped"] = np.array(beside.swapped, np.float32)
        vectors.update({f"pair.{name}": getattr(beside, name) for name in ("corr", "slope", "bias", "frozen_s")})
    return scores


def moments(values: Table) -> np.ndarray:
    """[n, d] -> [d + d * d]: means, then the covariance: what the fleet's own joint relations are made of."""
    count, width = values.shape
    total, products = np.zeros(width), np.zeros((width, width))
    for first, last in values.stretches():
        total += values.rows(first, last).sum(axis=0)
    for first, last in values.stretches():
        away = values.rows(first, last) - total / count
        products += away.T @ away
    return np.concatenate([total / count, (products / (count - 1)).reshape(-1)])
