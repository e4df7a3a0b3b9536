"""Captions by a vision-language model: a pass of the measuring job over the episodes that lack them."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.curation.measure import Plan, guarded
from ray_jobs.curation.segments import decode
from ray_jobs.curation.tagging.backends import through_http, through_vllm
from ray_jobs.curation.tagging.request import QUESTION, SCHEMA, parse, picks, question
from ray_jobs.episode import EpisodeMeta, open_clip, read_meta
from ray_jobs.seam.configs import CaptionSettings
from ray_jobs.seam.errors import DataError, FlywheelError, NotFound, StoreError
from ray_jobs.seam.model import digest
from ray_jobs.seam.store import Store

STAGE = "caption"
EPISODES_PER_BLOCK = 8


class Unanswered(FlywheelError):
    """The model could not be asked. No fact about an episode: what was answered is kept, and the next job asks for the rest."""

    failure_class = "infrastructure"


def planned(plan: Plan) -> Plan:
    """The plan, with this stage's version where the settings name a model: held and judged like the others, measured by `caption`."""
    settings = plan.settings.caption
    return replace(plan, versions={**plan.versions, STAGE: version(settings)}) if settings else plan


def version(settings: CaptionSettings) -> str:
    """For the ledger: other words, another schema, model or picture size make another version; another server or more engines do not."""
    asked = {name: getattr(settings, name) for name in ("backend", "model", "revision", "frames", "frame_px", "max_tokens")}
    return f"1-{digest(QUESTION, SCHEMA, asked)[:8]}"


def caption(store: Store, settings: CaptionSettings, episodes: list[str]) -> Iterator[dict[str, Any]]:
    """LEDGER rows of the stage `caption`, as they come; an episode that cannot be captioned is a row with the reason.

    Raises StoreError, UserError and Unanswered. Ray must be connected.
    """
    import ray

    blocks = max(1, -(-len(episodes) // EPISODES_PER_BLOCK))
    data: Any = ray.data.from_items([{"episode_id": episode_id} for episode_id in episodes], override_num_blocks=blocks)
    data = data.map(partial(show, store=store, settings=settings))
    data = through_vllm(data, settings) if settings.backend == "vllm" else through_http(data, settings)
    for row in data.iter_rows():
        if row["failed"]:
            raise Unanswered(row["failed"])
        if row["error"].startswith(_NO_FACT):
            raise StoreError(row["error"].removeprefix(_NO_FACT))
        if not row["error"].startswith(_ABSENT):
            yield ledger_row(row, settings)


_NO_FACT, _ABSENT = "store: ", "absent: "  # before an error that says nothing about the content


def show(row: dict[str, Any], store: Store, settings: CaptionSettings) -> dict[str, Any]:
    """An episode's question and its frames, each checked by decoding it: what is corrupt must not reach an engine."""
    try:
        meta = read_meta(store, row["episode_id"])
        made, error, _ = guarded(lambda: _shown(store, meta, settings))
    except StoreError as failed:
        made, error = None, f"{_ABSENT if isinstance(failed, NotFound) else _NO_FACT}{failed}"
    text, frames = made or ("", np.zeros((0, 1, 1, 3), np.uint8))
    return {"episode_id": row["episode_id"], "text": text, "frames": frames.tobytes(), "shape": list(frames.shape), "error": error or ""}


def _shown(store: Store, meta: EpisodeMeta, settings: CaptionSettings) -> tuple[str, np.ndarray]:
    if not meta.cameras:
        raise DataError("there is no camera to look through")
    camera = min(meta.cameras)
    clip = meta.cameras[camera]
    frames = []
    with open_clip(store, meta.episode_id, camera) as path:
        for number in picks(clip.frames, settings.frames):
            frame = decode(str(path), clip.lead_in + number, clip.lead_in + number + 1, settings.frame_px)
            if not len(frame):
                raise DataError(f"camera {camera}: the video ends before frame {number} of {clip.frames}")
            frames.append(frame[0])
    if not frames:
        raise DataError(f"camera {camera} has no frame")
    return question(meta, len(frames)), np.stack(frames)


def ledger_row(row: dict[str, Any], settings: CaptionSettings) -> dict[str, Any]:
    """A LEDGER row of an answer or an error."""
    model = Path(settings.model).name if settings.model.startswith("/") else settings.model  # a folder of this machine is nobody's business
    by = f"{settings.backend} {model}{f'@{settings.revision}' if settings.revision else ''}"
    tags, error, _ = guarded(lambda: parse(row["answer"], by)) if not row["error"] else (None, " ".join(row["error"].split())[:300], 0.0)
    return {
        "episode_id": row["episode_id"],
        "stage": STAGE,
        "version": version(settings),
        "scores": {},
        "vectors": {},
        "tags": tags or {},
        "picture": None,
        "error": error,
        "seconds": row["seconds"],
        "measured_ns": time.time_ns(),
    }
