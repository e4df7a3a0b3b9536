"""Robots that no threshold knows: clean recordings of many shapes and the real sets, kept or not, and the same damage planted into them.

Frames go from the generator (or the real video) to the stages without another codec in between; everything else is what the job runs.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fleet.defects import DEFECTS, Severity
from fleet.expert import Demonstration
from fleet.shapes import SHAPES, Shape, record
from orchestration.curation.context import build
from orchestration.curation.judge import judge
from orchestration.curation.thresholds import Thresholds
from ray_jobs.curation.images import Images
from ray_jobs.curation.rows import Rows
from ray_jobs.curation.segments import decode
from ray_jobs.curation.signals import Signal
from ray_jobs.curation.stage import Segment, View
from ray_jobs.episode import Clip, EpisodeMeta, Stream, open_clip, read_episode
from ray_jobs.ingest.index import describe, gather
from ray_jobs.ingest.job import read_upload
from ray_jobs.seam.configs import IngestSettings
from ray_jobs.seam.store import Store, StoreConfig

STAGES = (Signal(), Images())
START_NS = 1_790_000_000_000_000_000
EPISODES = 8
PIXELS = 96
ANGLES = ("encoder_offset", "encoder_noise", "encoder_slip")  # whose amounts are radians
REAL = ("lerobot21-g1-bottle", "lerobot20-gr00t-robot-sim")  # read, clean by eye, with actions and a camera
STEP_M = 0.015  # the arm's usual step: noise of so many metres is a share of it on another robot

Ledger = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Taken:
    """One recording of a stranger; `unit`: a radian in its state's unit."""

    robot: str
    number: int
    demonstration: Demonstration
    unit: float = 1.0

    @property
    def episode_id(self) -> str:
        return hashlib.md5(f"{self.robot}/{self.number}".encode(), usedforsecurity=False).hexdigest()


def of_shape(shape: Shape, count: int = EPISODES, first: int = 0) -> list[Taken]:
    return [Taken(shape.name, number, record(shape, first + number), shape.unit) for number in range(count)]


def of_real_set(folder: Path) -> list[Taken]:
    """A LeRobot set's episodes with their frames at PIXELS."""
    found = []
    with tempfile.TemporaryDirectory(prefix="strangers-") as scratch:
        store, raw = Store(StoreConfig.local(Path(scratch))), Store(StoreConfig.local(folder))
        for upload in (describe(raw, upload, IngestSettings()) for upload in gather(list(raw.list())).values()):
            for row in read_upload(store, raw, upload, IngestSettings()) if upload["format"] == "lerobot" else ():
                episode = read_episode(store, row["episode_id"])
                camera, clip = min(episode.meta.cameras.items())
                with open_clip(store, row["episode_id"], camera) as path:
                    frames = decode(str(path), clip.lead_in, clip.lead_in + clip.frames, PIXELS)
                state, action = episode.streams["state"], episode.streams["action"]
                demonstration = Demonstration(frames, state.values, action.values, state.t_ns - state.t_ns[0], True, 0.0)
                found.append(Taken(folder.name, len(found), demonstration))
    return found


def measured(taken: Taken) -> Ledger:
    """stage -> LEDGER row."""
    demo, t_ns = taken.demonstration, START_NS + taken.demonstration.stamps_ns
    logged = t_ns + 2_000_000
    streams = {"state": Stream(t_ns, logged, demo.states)}
    if demo.actions.shape[1]:
        streams["action"] = Stream(t_ns, logged, demo.actions)
    views = {}
    for camera, frames in (("front", demo.frames), ("second", demo.second)):
        if frames is None or not len(frames):
            continue
        arrived = ~demo.lost if demo.lost is not None and camera == "front" else np.ones(len(frames), bool)
        streams[f"camera:{camera}"] = Stream(t_ns[arrived], logged[arrived], np.zeros((int(arrived.sum()), 0), np.float32))
        views[camera] = View(t_ns[arrived], logged[arrived], 0, frames[arrived], frames[:0])
    meta = EpisodeMeta(
        episode_id=taken.episode_id,
        robot=taken.robot,
        task="",
        fps=round(1e9 / float(np.median(np.diff(demo.stamps_ns))), 3),
        state_names=tuple(f"axis_{axis}" for axis in range(demo.states.shape[1])),
        action_names=tuple(f"{'axis' if demo.actions.shape == demo.states.shape else 'command'}_{axis}" for axis in range(demo.actions.shape[1])),
        cameras={camera: Clip(codec="h264", width=PIXELS, height=PIXELS, frames=len(view.frames)) for camera, view in views.items()},
        source="strangers",
        upload="strangers",
    )
    rows = {}
    for stage in STAGES:
        found = stage.scores(stage.merge([stage.measure(Segment(meta, 0, 1, streams, views))]), meta, Rows.of(streams))
        scores = {name: float(value) for name, value in found.scores.items() if np.isfinite(value)}
        vectors = {name: np.asarray(value, np.float32).ravel().tolist() for name, value in found.vectors.items()}
        rows[stage.name] = {"scores": scores, "vectors": vectors, "error": None, "picture": None}
    return rows


def judged(group: list[tuple[Taken, Ledger]]) -> list[dict[str, Any]]:
    """The verdict on each, as one day of their robot."""
    rows = [_row(taken) for taken, _ in group]
    ledger = {stage.name: {taken.episode_id: found[stage.name] for taken, found in group} for stage in STAGES}
    thresholds = Thresholds.load()
    verdicts = {row["episode_id"]: row for row in judge(rows, ledger, thresholds, build([], (rows, ledger), thresholds))}
    return [verdicts[taken.episode_id] for taken, _ in group]


def _row(taken: Taken) -> dict[str, Any]:
    same = {"day": "2026-03-01", "day_source": "upload", "task": "", "status": "ok", "reason": None, "start_ns": 0, "end_ns": 0, "notes": []}
    return {**same, "episode_id": taken.episode_id, "robot": taken.robot, "upload": f"{taken.robot}/{taken.number}"}


def planted(taken: Taken, kind: str, severity: Severity, seed: int) -> Taken | None:
    """The recording with that damage, or None where the robot has not what it damages."""
    defect, demo = DEFECTS[kind], taken.demonstration
    touches_pictures = kind.endswith("camera") or kind.endswith("frames") or kind in PICTURES
    if (
        defect.corrupt is None
        or (touches_pictures and not len(demo.frames))
        or (kind in COMMANDS and demo.actions.shape[1] < 2)
        or (defect.cameras > 1 and demo.second is None)
        or demo.states.shape[1] < 2
    ):
        return None
    draw, amount = np.random.default_rng([seed, 7]), defect.amount(severity)
    if kind == "action_noise":
        noise = draw.normal(0, 1, demo.actions.shape) * demo.actions.std(axis=0) * amount / STEP_M
        return replace(taken, demonstration=replace(demo, actions=(demo.actions + noise).astype(np.float32)))
    return replace(taken, demonstration=defect.corrupt(demo, amount * (taken.unit if kind in ANGLES else 1), draw))


PICTURES = ("camera_lag", "blur", "overexposed", "underexposed", "corrupt_blocks", "picture_noise", "noise_lines", "colours", "covered", "flicker")
PICTURES += ("swapped_cameras",)
COMMANDS = ("action_lag", "axis_flip", "action_noise", "swapped_axes", "dead_commands")


def tried(name: str, group: list[Taken], seed: int, kinds: tuple[str, ...] = tuple(DEFECTS), both: bool = False) -> dict[str, Any]:
    """Clean verdicts of a group, in company and alone, and for each kind (severities in turn, or both) whether one damaged episode in it is found."""
    clean = [(taken, measured(taken)) for taken in group]
    verdicts = judged(clean)
    lonely = [judged([one])[0] for one in clean]
    cells: dict[tuple[str, str], list[tuple[bool, bool, list[str]]]] = {}
    for number, kind in enumerate(kinds):
        turn: tuple[Severity, ...] = ("mild", "strong") if (number + seed) % 2 else ("strong", "mild")
        for severity in turn if both else turn[:1]:
            place = (number + seed) % len(group)
            bad = planted(group[place], kind, severity, seed + number)
            if bad is None:
                continue
            found = (bad, measured(bad))
            verdict = judged([*clean[:place], found, *clean[place + 1 :]])[place]
            alone = judged([found])[0]
            cells.setdefault((kind, severity), []).append((verdict["verdict"] != "kept", alone["verdict"] != "kept", _names(verdict)))
    return {"name": name, "clean": verdicts, "alone": lonely, "cells": cells}


def _names(verdict: dict[str, Any]) -> list[str]:
    return [reason.split(":", 1)[0] for reason in verdict["reasons"]] if verdict["verdict"] != "kept" else []


def everything(first_seed: int, real: Path | None, shapes: tuple[Shape, ...] = SHAPES) -> Iterator[tuple[str, int]]:
    """Names of the groups, each with its seed; `group_of` makes them."""
    yield from ((shape.name, first_seed + number) for number, shape in enumerate(shapes))
    if real is not None:
        yield from ((name, first_seed) for name in REAL if (real / name).is_dir())


def group_of(name: str, seed: int, real: Path) -> list[Taken]:
    if name in REAL:
        return of_real_set(real / name)
    return of_shape(next(shape for shape in SHAPES if shape.name == name), first=1000 * seed)


def why(verdicts: list[dict[str, Any]]) -> Counter[str]:
    return Counter(name for verdict in verdicts for name in _names(verdict))
