"""Pipes messages through the store: attempts/<base>/a<n>/<execution>/messages/<number>.json, one JSON message a line.

Progress and metadata only. Losing them loses nothing else, so a store that will not take one is not an error.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster_pipes import (
    PipesContext,
    PipesContextData,
    PipesContextLoader,
    PipesMessage,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    PipesParams,
    PipesParamsLoader,
)

from ray_jobs.guard import pause
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.store import Store


class StoreChannel(PipesMessageWriterChannel):
    """Writes at once where the last object is old enough, else a moment later together. Safe to call from several threads."""

    def __init__(self, store: Store, prefix: str):
        self.store, self.prefix = store, prefix
        self._lines: list[str] = []
        self._count = 0
        self._opened = time.monotonic()
        self._last = float("-inf")
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def write_message(self, message: PipesMessage) -> None:
        with self._lock:
            self._lines.append(json.dumps(message))
            wait = self._last + pause(time.monotonic() - self._opened) - time.monotonic()
            if wait <= 0:
                self._flush()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        self._last = time.monotonic()
        try:
            self.store.put(f"{self.prefix}/messages/{self._count:06d}.json", "\n".join(self._lines).encode())
        except StoreError as error:
            print(f"a progress message was lost: {error}", file=sys.stderr, flush=True)
        self._lines.clear()
        self._count += 1


class _Writer(PipesMessageWriter[StoreChannel]):
    def __init__(self, store: Store, prefix: str):
        self.store, self.prefix = store, prefix

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[StoreChannel]:
        channel = StoreChannel(self.store, self.prefix)
        yield channel
        channel.flush()

    def get_opened_extras(self) -> dict[str, Any]:
        return {"at": time.time()}


class _Attempt(PipesParamsLoader, PipesContextLoader):
    """What Dagster would inject comes from the attempt itself."""

    def __init__(self, data: PipesContextData):
        self.data = data

    def is_dagster_pipes_process(self) -> bool:
        return True

    def load_context_params(self) -> PipesParams:
        return {}

    def load_messages_params(self) -> PipesParams:
        return {}

    @contextmanager
    def load_context(self, params: PipesParams) -> Iterator[PipesContextData]:
        yield self.data


def open_messages(store: Store, prefix: str, asset: str, run_id: str, days: tuple[str, ...]) -> PipesContext:
    """A Pipes session whose messages lie below `prefix`. Its `opened` message is written before this returns."""
    data: Any = {
        "asset_keys": [asset],
        "code_version_by_asset_key": None,
        "provenance_by_asset_key": None,
        "partition_key": days[0] if len(days) == 1 else None,
        "partition_key_range": {"start": days[0], "end": days[-1]} if days else None,
        "partition_time_window": None,
        "run_id": run_id,
        "job_name": None,
        "retry_number": 0,
        "extras": {},
    }
    attempt = _Attempt(data)
    return PipesContext(attempt, attempt, _Writer(store, prefix))
