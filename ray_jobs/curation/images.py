"""Checks of the pictures, and of the pictures against the joints."""

import io

import numpy as np
from PIL import Image
from scipy.optimize import nnls

from ray_jobs.curation.agreement import peak_offset, sample
from ray_jobs.curation.signals import runs
from ray_jobs.curation.stage import Measured, Partial, Resources, Segment, Stage, View
from ray_jobs.episode import EpisodeMeta

BACKGROUND = 32  # the background descriptor is this many pixels square
STRIP = 5
THUMB_HEIGHT = 64
BLOCK = 8
SAME = 1.3  # grey levels (of 255): where no 8x8 block changed by more on average, a frame repeats the one before (codecs flicker by 1)
MEDIAN_FRAMES = 48
CHUNK = 32
LAG_S = 0.6
LAG_AXES = 6


class Images(Stage):
    """Light, blur, motion, repeated frames; a picture that stands while the arm moves; camera against joint clock; the view."""

    name = "image"
    version = "2"
    reads = ("decode",)
    writes = ("image", "background", "signature")
    resources = Resources()

    def measure(self, segment: Segment) -> Partial:
        partial: Partial = {}
        for camera, view in segment.views.items():
            if len(view.frames):
                partial.update({f"{camera}/{name}": value for name, value in look(view).items()})
        return partial

    def merge(self, partials: list[Partial]) -> Partial:
        names = dict.fromkeys(name for part in partials for name in part)
        return {name: np.concatenate([part[name] for part in partials if name in part]) for name in names}

    def scores(self, merged: Partial, meta: EpisodeMeta) -> Measured:
        scores: dict[str, float] = {}
        vectors: dict[str, np.ndarray] = {}
        cameras = sorted({name.rsplit("/", 1)[0] for name in merged})
        picture = None
        for camera in cameras:
            part = {name.rsplit("/", 1)[1]: value for name, value in merged.items() if name.rsplit("/", 1)[0] == camera}
            scores.update({f"image.{name}:{camera}": value for name, value in summary(part, meta.fps).items()})
            vectors[f"background:{camera}"] = np.median(part["median"], axis=0)
            vectors[f"signature:{camera}"] = signature(part["thumbs"])
            picture = picture or strip(part["thumbs"])
        return Measured(scores, vectors, picture)


def grey(frames: np.ndarray) -> np.ndarray:
    """[n, h, w, 3] u8 -> [n, h, w] u8, Rec. 601 luma."""
    out = np.empty(frames.shape[:3], np.uint8)
    for first in range(0, len(frames), CHUNK):  # in pieces that stay in the cache
        part = frames[first : first + CHUNK].astype(np.uint16)
        out[first : first + CHUNK] = (part[..., 0] * 77 + part[..., 1] * 150 + part[..., 2] * 29) >> 8
    return out


def shrink(pictures: np.ndarray, size: int) -> np.ndarray:
    """[n, h, w] -> [n, size, size] by area means (nearest where the picture is smaller)."""
    height, width = pictures.shape[1:]
    rows = np.minimum(np.arange(size + 1) * height // size, height - 1)
    columns = np.minimum(np.arange(size + 1) * width // size, width - 1)
    summed = np.add.reduceat(np.add.reduceat(pictures.astype(np.float32), rows[:-1], axis=1), columns[:-1], axis=2)
    counts = np.maximum(np.diff(np.append(rows[:-1], height)), 1)[:, None] * np.maximum(np.diff(np.append(columns[:-1], width)), 1)[None, :]
    return np.asarray(summed / counts, dtype=np.float32)


def look(view: View) -> Partial:
    """Per-frame numbers of one camera's part of a segment, its median picture, and a few thumbnails."""
    lumas = grey(np.concatenate([view.previous, view.frames]) if len(view.previous) else view.frames)
    own = lumas[len(view.previous) :]
    every = max(1, len(own) // MEDIAN_FRAMES)
    picks = np.unique(np.linspace(0, len(own) - 1, STRIP).round().astype(int))
    return {
        "t": view.t_ns,
        "joints": view.joints,
        **per_frame(lumas, len(view.previous)),
        "median": np.median(shrink(own[::every], BACKGROUND), axis=0)[None],
        "thumbs": thumbs(view.frames[picks]),
    }


def per_frame(lumas: np.ndarray, lead: int) -> dict[str, np.ndarray]:
    """lumas [n, h, w] u8, of which the first `lead` (0 or 1) only serve as predecessor -> f32 [n - lead] each.

    change: mean absolute difference to the frame before (NaN for an episode's first); local: the same of the 8x8 block that changed
    most; sharp: variance of the Laplacian.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("change", "local", "light", "contrast", "bright", "sharp")}
    for first in range(lead, len(lumas), CHUNK):
        own = lumas[first : first + CHUNK]
        wide = own.astype(np.int16)
        before = lumas[max(first - 1, 0) : first + len(own) - 1].astype(np.int16)
        moved = np.abs(wide[len(own) - len(before) :] - before)
        unknown = np.full(len(own) - len(before), np.nan)
        found["change"].append(np.concatenate([unknown, moved.mean(axis=(1, 2))]))
        found["local"].append(np.concatenate([unknown, blocks(moved)]))
        found["light"].append(own.mean(axis=(1, 2)))
        found["contrast"].append(own.std(axis=(1, 2), dtype=np.float32))
        found["bright"].append((own > 250).mean(axis=(1, 2)))
        bend = 4 * wide[:, 1:-1, 1:-1] - wide[:, :-2, 1:-1] - wide[:, 2:, 1:-1] - wide[:, 1:-1, :-2] - wide[:, 1:-1, 2:]
        found["sharp"].append(bend.var(axis=(1, 2), dtype=np.float32) if bend.size else np.zeros(len(own)))
    return {name: np.concatenate(parts).astype(np.float32) for name, parts in found.items()}


def blocks(moved: np.ndarray) -> np.ndarray:
    """[n, h, w] -> [n]: the largest mean over any 8x8 block (over the whole picture where it is smaller)."""
    count, height, width = moved.shape
    if height < BLOCK or width < BLOCK:
        return np.asarray(moved.mean(axis=(1, 2)))
    whole = moved[:, : height // BLOCK * BLOCK, : width // BLOCK * BLOCK]
    tiles = whole.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK).sum(axis=2, dtype=np.int32).sum(axis=3)
    return np.asarray(tiles.max(axis=(1, 2)) / BLOCK**2)


def thumbs(frames: np.ndarray) -> np.ndarray:
    """[n, 64, w, 3] u8."""
    height, width = frames.shape[1:3]
    size = (max(1, round(width * THUMB_HEIGHT / height)), THUMB_HEIGHT)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)) for frame in frames])


def summary(part: Partial, fps: float) -> dict[str, float]:
    """Scores of one camera over the whole episode. frozen: share of frames in stretches that stand while the arm moves."""
    change, light = part["change"].astype(np.float64), part["light"]
    strides = np.abs(np.diff(part["joints"].astype(np.float64), axis=0, prepend=part["joints"][:1]))
    speed = np.linalg.norm(strides, axis=1)
    same = np.nan_to_num(part["local"], nan=255.0) < SAME
    pace = np.percentile(speed, 90) if len(speed) else 0.0
    moving = speed > 0.1 * pace if pace > 1e-6 else np.zeros(len(speed), bool)
    frozen = [last - first for first, last in runs(same) if last - first >= 3 and moving[first:last].mean() > 0.5]
    scores = {
        "frames": float(len(change)),
        "light": float(np.median(light)),
        "black": float(np.mean((light < 12) & (part["contrast"] < 8))),
        "overexposed": float(np.mean(part["bright"] > 0.5)),
        "contrast": float(np.median(part["contrast"])),
        "sharp": float(np.median(part["sharp"])),
        "change": float(np.nanmedian(change)) if np.isfinite(change).any() else 0.0,
        "repeated": float(same[1:].mean()) if len(same) > 1 else 0.0,
        "frozen": sum(frozen) / max(len(change), 1),
        "frozen_s": max(frozen, default=0) / max(fps, 0.1),
    }
    found = clock_lag(part["t"], change, part["joints"].astype(np.float64))
    if found is not None:
        scores["lag_s"], scores["lag_match"], scores["lag_gain"] = found
    return scores


def clock_lag(t_ns: np.ndarray, change: np.ndarray, joints: np.ndarray) -> tuple[float, float, float] | None:
    """How much later the picture shows a motion than the joints do (s), the R2 there, and what it gains on no lag.

    The picture's change between two frames is explained by how far each joint went meanwhile (the few that go farthest), with
    weights of the episode's own, at each lag within +-0.6 s. None where one of them hardly varies or time does not run evenly.
    """
    if len(t_ns) < 20 or joints.shape[1] == 0:
        return None
    seconds = (t_ns - t_ns[0]) / 1e9
    period = float(np.median(np.diff(seconds)))
    if period <= 0 or (np.diff(seconds) <= 0).any() or seconds[-1] > 3 * period * len(seconds):
        return None
    usable = np.isfinite(change)
    strides = np.abs(np.diff(joints, axis=0))
    axes = np.argsort(-strides.std(axis=0), kind="stable")[:LAG_AXES]
    axes = axes[strides[:, axes].std(axis=0) > 1e-7]
    if not len(axes) or change[usable].std() < 1e-6:
        return None
    reach = min(round(LAG_S / period), len(seconds) // 4)
    lags = np.arange(-reach, reach + 1)
    inside = usable & (seconds >= seconds[0] + (reach + 1) * period - 1e-6) & (seconds <= seconds[-1] - reach * period + 1e-6)
    if inside.sum() < 12:
        return None
    curve = np.zeros(len(lags))
    for place, lag in enumerate(lags):  # the same frames at every lag, else a lag wins by leaving the difficult ones out
        now = sample(seconds, joints[:, axes], seconds[inside] - lag * period)
        before = sample(seconds, joints[:, axes], seconds[inside] - (lag + 1) * period)
        curve[place] = _explained(np.abs(now - before), change[inside])
    best = int(np.argmax(curve))
    return float((lags[best] + peak_offset(curve, best)) * period), float(curve[best]), float(curve[best] - curve[reach])


def _explained(strides: np.ndarray, change: np.ndarray) -> float:
    """R2 of change on strides with weights of at least 0: a joint that moves cannot calm the picture."""
    scale = np.maximum(strides.std(axis=0), 1e-9)
    _, residual = nnls(np.concatenate([strides / scale, np.ones((len(strides), 1))], axis=1), change)
    total = float(((change - change.mean()) ** 2).sum())
    return 1 - residual**2 / total if total > 1e-9 else 0.0


def signature(pictures: np.ndarray) -> np.ndarray:
    """Five 8x8 greys, each with mean 0 and spread 1: near duplicates have nearly the same."""
    picks = pictures[np.linspace(0, len(pictures) - 1, STRIP).round().astype(int)]
    small = shrink(grey(picks), 8).reshape(STRIP, -1)
    return np.asarray((small - small.mean(axis=1, keepdims=True)) / np.maximum(small.std(axis=1, keepdims=True), 1.0), np.float32)


def strip(pictures: np.ndarray) -> bytes:
    """Five small frames side by side, as JPEG (some 10 kB)."""
    picks = pictures[np.linspace(0, len(pictures) - 1, STRIP).round().astype(int)]
    sink = io.BytesIO()
    Image.fromarray(np.concatenate(list(picks), axis=1)).save(sink, "JPEG", quality=70)
    return sink.getvalue()
