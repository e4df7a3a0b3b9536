"""Asking again while a store or a control plane is silent, within a budget."""

from collections.abc import Generator
from typing import Any

from orchestration.launching.effects import Denied, Effect, Now, Unreachable, Wait
from ray_jobs.seam.errors import StoreError


def patiently(effect: Effect, budget_s: float) -> Generator[Effect, Any, Any]:
    """The effect's reply. Only for effects that may be done twice. Raises the last error when the budget is spent, and Denied at once."""
    since: float | None = None
    pause = 0.2
    while True:
        try:
            return (yield effect)
        except (StoreError, Unreachable) as error:
            if isinstance(error, Denied):
                raise
            now: float = yield Now()
            since = now if since is None else since
            if now - since >= budget_s:
                raise
        yield Wait(pause)
        pause = min(2 * pause, 5.0)
