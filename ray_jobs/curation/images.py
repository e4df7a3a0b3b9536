"""Checks of the pictures, and of the pictures against the joints."""

import numpy as np
from scipy.ndimage import median_filter

from ray_jobs.curation.agreement import sample
from ray_jobs.curation.axes import runs, speeds
from ray_jobs.curation.pictures import BACKGROUND, GRID, STRIP, crispness, grey, palette, per_frame, shrink, strip, thumbs
from ray_jobs.curation.rows import Rows, Table
from ray_jobs.curation.segments import PREFIX
from ray_jobs.curation.stage import Measured, Partial, Resources, Segment, Stage, View
from ray_jobs.curation.sync import clock_lag
from ray_jobs.episode import EpisodeMeta

SAME = 1.3  # grey levels (of 255): where no 8x8 block changed by more on average, a frame repeats the one before (codecs flicker by 1)
FROZEN_S = 0.35  # a picture that stands for less is a slow camera's
SAMPLED, SAMPLED_IN_ALL = 48, 480  # pictures of a segment, and of a long recording, that make its background
GLITCH = 5.0  # grey levels by which a frame must leave the frames around it
GLITCH_RATIO = 5.0  # and how many times what frames usually do
STUTTER = 0.3  # of the change of either neighbour
STRETCH = 1 << 14  # frames that are looked at together
LEAST_STATES = 3  # fewer say nothing about where the joints were


class Images(Stage):
    """Light, blur, motion, repeated frames; a picture that stands while the arm moves; camera against joint clock; the view."""

    name = "image"
    version = "4"
    reads = ("decode",)
    writes = ("image", "background", "opening", "closing", "palette")
    resources = Resources()

    def measure(self, segment: Segment) -> Partial:
        partial: Partial = {}
        for camera, view in segment.views.items():
            if len(view.frames):
                partial.update({f"{camera}/{name}": value for name, value in look(view, segment.count).items()})
        return partial

    def merge(self, partials: list[Partial]) -> Partial:
        names = dict.fromkeys(name for part in partials for name in part)
        return {name: np.concatenate([part[name] for part in partials if name in part]) for name in names}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        scores: dict[str, float] = {}
        vectors: dict[str, np.ndarray] = {}
        cameras = sorted({name.rsplit("/", 1)[0] for name in merged})
        picture = None
        for camera in cameras:
            part = {name.rsplit("/", 1)[1]: value for name, value in merged.items() if name.rsplit("/", 1)[0] == camera}
            t_ns = rows.clocks[PREFIX + camera][0][: len(part["change"])]
            found = summary(part, meta.fps, t_ns, joints_at(rows, t_ns))
            scores.update({f"image.{name}:{camera}": value for name, value in found.items()})
            greys = part["greys"]
            third = max(1, len(greys) // 3)
            for name, some in (("background", greys), ("opening", greys[:third]), ("closing", greys[-third:])):
                vectors[f"{name}:{camera}"] = np.median(some, axis=0)
            vectors[f"palette:{camera}"] = palette(part["thumbs"])
            picture = picture or strip(part["thumbs"])
        return Measured(scores, vectors, picture)


def look(view: View, count: int) -> Partial:
    """Per-frame numbers of one camera's part of a segment, small greys of some of its frames, and a few thumbnails: of many segments fewer each."""
    lumas = grey(view.previous, view.frames)
    own = lumas[len(view.previous) :]
    some = own[:: max(1, len(own) // min(SAMPLED, max(1, SAMPLED_IN_ALL // count)))]
    picks = np.unique(np.linspace(0, len(own) - 1, STRIP if count < STRIP else 1).round().astype(int))
    return {
        **per_frame(lumas, len(view.previous)),
        "cells": shrink(own, GRID).reshape(len(own), -1).astype(np.uint8),
        "crisp": crispness(some),
        "greys": shrink(some, BACKGROUND).reshape(len(some), -1).round().astype(np.uint8),
        "thumbs": thumbs(view.frames[picks]),
    }


def joints_at(rows: Rows, t_ns: np.ndarray) -> Table:
    """The state at the given times, f32 [n, d], linear between samples; [n, 0] where there is no usable state."""
    times, state = rows.ordered("state")
    if len(times) < LEAST_STATES:
        return Table(len(t_ns), 0)
    seconds, wanted = (times - times[0]) / 1e9, (t_ns - times[0]) / 1e9
    return Table.made(len(t_ns), state.shape[1], ((axes, sample(seconds, part, wanted)) for axes, part in state.parts()))


def summary(part: Partial, fps: float, t_ns: np.ndarray, joints: Table) -> dict[str, float]:
    """Scores of one camera over the whole episode; joints [n, d] at its frames' times [n].

    light, contrast, sharp, crisp, change: medians. black, overexposed: share of such frames. repeated: share of frames that repeat the one
    before; stutter: share of frames that change by less than a third of what either neighbour does. frozen: share of frames in stretches that
    stand while the arm moves, frozen_s the longest. glitch: share of frames that leave what the frames on either side agree on. burst, painted,
    torn: share of frames far sharper, far plainer or far more striped than the episode's median. flicker: upper quartile of the light's change
    of direction from frame to frame, over the light. dull_s: longest stretch under half the episode's own sharpness (s). lag_s, lag_match,
    lag_gain: see `clock_lag`.
    """
    change, light = part["change"].astype(np.float64), part["light"].astype(np.float64)
    rate = max(fps, 0.1)
    speed = np.concatenate([[0.0], speeds(joints, by_span=False)])[: len(change)]
    same = np.nan_to_num(part["local"], nan=255.0) < SAME
    pace = np.percentile(speed, 90) if len(speed) else 0.0
    moving = speed > 0.1 * pace if pace > 1e-6 else np.zeros(len(speed), bool)
    least = max(3.0, FROZEN_S * rate)
    frozen = [last - first for first, last in runs(same) if last - first >= least and moving[first:last].mean() > 0.5]
    sharp, plain, across = part["sharp"], part["plain"], part["across"]
    dull = runs(sharp < 0.5 * np.median(sharp))
    scores = {
        "frames": float(len(change)),
        "light": float(np.median(light)),
        "black": float(np.mean((light < 20) & (part["contrast"] < 10))),
        "featureless": float(np.mean(part["contrast"] < 6)),
        "overexposed": float(np.mean(part["bright"] > 0.5)),
        "bright": float(np.median(part["bright"])),
        "contrast": float(np.median(part["contrast"])),
        "sharp": float(np.median(sharp)),
        "crisp": float(np.median(part["crisp"])),
        "change": float(np.nanmedian(change)) if np.isfinite(change).any() else 0.0,
        "repeated": float(same[1:].mean()) if len(same) > 1 else 0.0,
        "stutter": stutter(change),
        "frozen": sum(frozen) / max(len(change), 1),
        "frozen_s": max(frozen, default=0) / rate,
        "glitch": glitches(part["cells"]),
        "burst": float(np.mean(sharp > 2.0 * np.median(sharp) + 20)),
        "painted": float(np.mean(plain > np.median(plain) + 0.12)),
        "torn": float(np.mean(across > 1.6 * np.median(across))),
        "flicker": flicker(light),
        "dull_s": max((last - first for first, last in dull), default=0) / rate,
    }
    found = clock_lag(t_ns, change, joints)
    if found is not None:
        scores["lag_s"], scores["lag_match"], scores["lag_gain"] = found
    return scores


def glitches(cells: np.ndarray) -> float:
    """cells [n, 64] u8 -> share of frames (one to three on end) that differ from a running median of seven as motion does not."""
    if len(cells) < 9:
        return 0.0
    away = np.zeros(len(cells), np.float32)
    for first in range(0, len(cells), STRETCH):  # with the three frames on either side
        low, last = max(first - 3, 0), min(first + STRETCH, len(cells))
        wide = cells[low : last + 3].astype(np.float32)
        away[first:last] = np.abs(wide - median_filter(wide, size=(7, 1), mode="nearest")).mean(axis=1)[first - low : last - low]
    return float(np.mean(away > np.maximum(GLITCH, GLITCH_RATIO * np.percentile(away, 75))))


def stutter(change: np.ndarray) -> float:
    """A repeated frame of a picture that moves, which a codec's later refinement keeps from being the same."""
    if len(change) < 9:
        return 0.0
    return float(np.mean(change[1:-1] < STUTTER * np.minimum(change[:-2], change[2:])))  # the first is NaN, and below nothing


def flicker(light: np.ndarray) -> float:
    """light [n] -> upper quartile of |light - mean of its neighbours| over the median light."""
    if len(light) < 5:
        return 0.0
    return float(np.percentile(np.abs(light[1:-1] - (light[:-2] + light[2:]) / 2), 75) / max(float(np.median(light)), 5.0))
