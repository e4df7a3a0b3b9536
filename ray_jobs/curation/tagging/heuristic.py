"""The heuristic tagger: what the recording says of itself, and what its numbers and a few frames show. Deterministic, without a model."""

import re

import numpy as np

from ray_jobs.curation.axes import speeds
from ray_jobs.curation.rows import Rows
from ray_jobs.curation.stage import Measured, Partial, Picks, Resources, Segment, Stage
from ray_jobs.episode import EpisodeMeta

GRIPPER = re.compile(r"grip|jaw|claw|finger", re.IGNORECASE)
STILL_SHARE = 0.05  # of the 90th percentile of the speed: slower is standing, as the idle check says
PAUSE_S = 0.5  # about what a grasp takes
SWING = 0.25  # a gripper has moved once it went from below this share of its span to above the rest, or back
COLOUR_SHARE = 0.05
COLOURS = ("black", "grey", "white", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
HUES = np.array([15, 42, 70, 165, 195, 260, 300, 340])  # degrees up to which a hue has the name below; beyond the last it is red again
HUE_NAMES = np.array([COLOURS.index(name) for name in ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "red")])
SOFT = 0.01  # variance of the Laplacian over that of the picture: real frames of 96 px have 0.2 to 0.9, those blurred by 1.5 to 2 px 0.01
LONGEST_TASK = 300  # characters of the recording's own task string


class Tags(Stage):
    """Task, outcome, moves and pauses, gripper events, colours, light and blur; a caption made of them; and who says so."""

    name = "tags"
    version = "2"
    reads = ("decode",)
    picks = Picks(px=96, fps=0.5)
    writes = ("tags",)
    resources = Resources()

    def measure(self, segment: Segment) -> Partial:
        """Colours and light of each picked frame of the first camera."""
        if segment.views and len(frames := segment.views[min(segment.views)].frames):
            return {"colours": colour_shares(frames), "look": look(frames)}
        return {"colours": np.zeros((0, len(COLOURS)), np.float32), "look": np.zeros((0, 2), np.float32)}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        tags = {"task": " ".join(meta.task.split())[:LONGEST_TASK]} if meta.task.strip() else {}
        if meta.success is not None:
            tags |= {"outcome": "success" if meta.success else "failure", "outcome.by": "the recording"}
        tags |= motion_tags(*motion(rows)) | gripper_tags(*grips(rows, meta)) | picture_tags(merged["colours"], merged["look"])
        tags["cameras"] = ", ".join(sorted(meta.cameras)) or "none"
        by = f"heuristic {self.version}"
        return Measured({}, tags={**tags, "caption": caption(tags), "caption.by": by, "tags.by": by})


def motion(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(t [n] ns, speed [n]: norm of the state's change per second) of every sample but the first; NaN where time stands."""
    state = rows.tables.get("state")
    if state is None or not state.shape[1] or not len(state):
        return np.zeros(0, np.int64), np.zeros(0)
    t_ns = rows.clocks["state"][0]
    seconds, strides = np.diff(t_ns) / 1e9, speeds(state, by_span=False)
    return t_ns[1:], np.divide(strides, seconds, out=np.full(len(seconds), np.nan), where=seconds > 0)


def grips(rows: Rows, meta: EpisodeMeta) -> tuple[np.ndarray, np.ndarray]:
    """(t [n] ns, [n, g]): the axes named like a gripper, of the state, or of the actions where the state has none."""
    for stream, names in (("state", meta.state_names), ("action", meta.action_names)):
        table = rows.tables.get(stream)
        axes = [axis for axis, name in enumerate(names) if GRIPPER.search(name) and table is not None and axis < table.shape[1]]
        if table is not None and axes:
            return rows.clocks[stream][0], table.axes(axes)
    return np.zeros(0, np.int64), np.zeros((0, 0))


def motion_tags(t_ns: np.ndarray, speed: np.ndarray) -> dict[str, str]:
    """How often it moves and pauses, and for which share of the time it moves. Nothing where no state was recorded."""
    known = np.isfinite(speed)
    if known.sum() < 3:
        return {}
    times, first = np.unique(t_ns[known], return_index=True)
    pace, seconds = speed[known][first], (times - times[0]) / 1e9
    still = pace <= STILL_SHARE * np.percentile(pace, 90)
    moving = np.ones(len(times), bool)
    pauses = 0
    for start, end in _edges(still):
        if seconds[min(end, len(seconds) - 1)] - seconds[start] >= PAUSE_S:
            moving[start:end] = False
            pauses += 1
    moves = len(_edges(moving)) if (pace > 0).any() else 0
    return {"motion": f"{_times(moves, 'move')}, {_times(pauses, 'pause')}", "moving": f"{moving.mean() if moves else 0:.0%} of {seconds[-1]:.1f} s"}


def gripper_tags(t_ns: np.ndarray, grip: np.ndarray) -> dict[str, str]:
    """How often any gripper axis goes from one end to the other, and when. Which end is closed the recording does not say."""
    if not grip.shape[1] or len(grip) < 3:
        return {}
    finite = np.isfinite(grip).all(axis=1)
    times, first = np.unique(t_ns[finite], return_index=True)
    values = grip[finite][first].astype(np.float64)
    found: list[float] = []
    for column in values.T:
        low, high = (float(bound) for bound in np.percentile(column, [1, 99]))
        if high - low < 1e-3:
            continue
        place = (column - low) / (high - low)
        side = np.where(place < SWING, -1, np.where(place > 1 - SWING, 1, 0))
        ends = np.flatnonzero(side)
        turned = ends[1:][np.diff(side[ends]) != 0]
        found += [(times[index] - times[0]) / 1e9 for index in turned]
    tags = {"gripper": _times(len(found), "move")}
    if found:
        tags["gripper.at_s"] = ", ".join(f"{moment:.1f}" for moment in sorted(found)[:12])
    return tags


def colour_shares(frames: np.ndarray) -> np.ndarray:
    """[n, h, w, 3] u8 -> [n, 11] f32: share of the pixels that bear each name of COLOURS, by hue, saturation and value."""
    wide = frames[:, ::2, ::2].astype(np.float32)
    top, bottom = wide.max(axis=-1), wide.min(axis=-1)
    spread = np.maximum(top - bottom, 1e-6)
    red, green, blue = wide[..., 0], wide[..., 1], wide[..., 2]
    hue = np.where(top == red, (green - blue) / spread % 6, np.where(top == green, (blue - red) / spread + 2, (red - green) / spread + 4)) * 60
    named = HUE_NAMES[np.searchsorted(HUES, hue)]
    pale = (top - bottom) < 0.2 * np.maximum(top, 1)
    named = np.where(top < 45, 0, np.where(pale, np.where(top > 215, 2, 1), named))
    return np.stack([(named == index).mean(axis=(1, 2)) for index in range(len(COLOURS))], axis=1).astype(np.float32)


def look(frames: np.ndarray) -> np.ndarray:
    """[n, h, w, 3] u8 -> [n, 2] f32: mean light (0 to 255), and sharpness (variance of the Laplacian over the picture's own)."""
    luma = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    bend = 4 * luma[:, 1:-1, 1:-1] - luma[:, :-2, 1:-1] - luma[:, 2:, 1:-1] - luma[:, 1:-1, :-2] - luma[:, 1:-1, 2:]
    sharp = bend.var(axis=(1, 2)) / np.maximum(luma.var(axis=(1, 2)), 1.0) if bend.size else np.zeros(len(luma))
    return np.stack([luma.mean(axis=(1, 2)), sharp], axis=1).astype(np.float32)


def picture_tags(colours: np.ndarray, seen: np.ndarray) -> dict[str, str]:
    """The three commonest colours, whether it is dark or bright, and whether it is blurred. Nothing where there is no picture."""
    if not len(colours):
        return {}
    share = colours.mean(axis=0)
    order = [index for index in np.argsort(-share, kind="stable")[:3] if share[index] >= COLOUR_SHARE]
    light, sharp = np.median(seen, axis=0)
    return {
        "colours": ", ".join(COLOURS[index] for index in order),
        "light": "dark" if light < 50 else "bright" if light > 200 else "normal",
        "picture": "blurred" if sharp < SOFT else "sharp",
    }


def caption(tags: dict[str, str]) -> str:
    """One line out of the tags."""
    parts = [tags.get("task", "an unnamed task").rstrip(". ")]
    if "motion" in tags:
        parts.append(f"{tags['motion']}, moving {tags['moving']}")
    if "gripper" in tags:
        parts.append(f"gripper: {tags['gripper']}")
    if "colours" in tags:
        parts.append(f"a {tags['picture']} picture, mostly {tags['colours']}" + (f", {tags['light']}" if tags["light"] != "normal" else ""))
    if "outcome" in tags:
        parts.append(f"recorded as a {tags['outcome']}")
    return "; ".join(parts)


def _edges(mask: np.ndarray) -> np.ndarray:
    """[k, 2]: first, and one after the last, of each run of True."""
    return np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))).reshape(-1, 2)


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
