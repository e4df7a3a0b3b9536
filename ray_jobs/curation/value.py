"""What an episode can teach, after DemInf (Hejna et al., "Robot Data Curation with Mutual Information Estimators", 2025).

The stage keeps some moments of the episode, state and the actions that follow. How much the one tells about the other is estimated where
many episodes are at hand: orchestration/curation/value.py.
"""

import numpy as np

from ray_jobs.curation.agreement import sample
from ray_jobs.curation.rows import Rows
from ray_jobs.curation.stage import Measured, Partial, Resources, Segment, Stage
from ray_jobs.episode import EpisodeMeta

MOST_MOMENTS, LEAST_MOMENTS = 32, 8
MOST_NUMBERS = 4096  # of a sketch: wide robots keep fewer moments
AHEAD_S = (0.0, 0.2)  # the actions of a moment: what is commanded now, and where that leads


class Value(Stage):
    """A sketch of the episode: evenly spaced moments, `value.state` [m, s] and `value.action` [m, 2 a]."""

    name = "value"
    version = "1"
    writes = ("value",)
    resources = Resources()

    def measure(self, segment: Segment) -> Partial:
        return {}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        (state_t, state), (action_t, action) = rows.ordered("state"), rows.ordered("action")
        if len(state_t) < LEAST_MOMENTS or len(action_t) < LEAST_MOMENTS:
            return Measured({})
        first, last = max(state_t[0], action_t[0]), min(state_t[-1], action_t[-1])
        if last <= first:
            return Measured({})
        width = state.shape[1] + len(AHEAD_S) * action.shape[1]
        count = int(np.clip(min(MOST_NUMBERS // width, len(action_t)), LEAST_MOMENTS, MOST_MOMENTS))
        moments = np.linspace(0.0, (last - first) / 1e9, count)
        known = np.concatenate([sample((state_t - first) / 1e9, part, moments) for _, part in state.parts()], axis=1)
        places = [np.clip(np.searchsorted((action_t - first) / 1e9, moments + ahead), 0, len(action_t) - 1) for ahead in AHEAD_S]
        done = action.take(np.stack(places, axis=1).ravel()).rows(0, count * len(places)).reshape(count, -1)
        return Measured({"value.moments": float(count)}, {"value.state": known, "value.action": done})
