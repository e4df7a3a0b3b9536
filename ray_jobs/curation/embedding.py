"""An embedding per moment: what the first camera shows, and where the joints are. Duplicates and informative value are found by them.

A *track* is a run of vectors over the time that camera and joints share, in equal boxes of time (`boxes`), each box the mean of what
falls into it. Stretching time leaves a track as it is; cutting the recording cuts it.

*Landmarks* are what an index can look up: the moments at which one axis of a track crosses a level of a fixed grid, hashed with the
levels of two other axes there. A cut or stretched copy has the same ones, at any sampling rate. Of all landmarks the smallest hashes are
kept (a bottom-k sketch: Cohen and Kelley, "Summarizing data using bottom-k sketches", 2007), so copies keep the same.
"""

from itertools import combinations

import numpy as np

from ray_jobs.curation.axes import Values
from ray_jobs.curation.pictures import grey, shrink
from ray_jobs.curation.rows import Rows, Table
from ray_jobs.curation.segments import PREFIX
from ray_jobs.curation.stage import Measured, Partial, Picks, Resources, Segment, Stage, View
from ray_jobs.episode import EpisodeMeta

WIDTH = 16  # numbers per moment of the picture's track
BOXES_HZ, LEAST_BOXES, MOST_BOXES = 5.0, 32, 256
STATE_AXES = 12  # of the state's track: those that travel farthest
STATE_LANDMARKS, PICTURE_LANDMARKS = 24, 12  # kept of an episode: cuts cost the state some, and pictures are the weaker evidence
LANDMARK_AXES = 8
STATE_BITS, PICTURE_BITS = 5, 3  # how finely a landmark names the other axes: 2**-bits of what they travel; pictures carry noise
GRID = 8  # cells of the layout


class Layout(Stage):
    """The descriptor by default: where light, colour and edges are, whatever the exposure (`layout`). Another: vision.py."""

    name = "embedding"
    version = "1"
    reads = ("decode",)
    picks = Picks(px=64, fps=BOXES_HZ)
    writes = ("embedding", "path", "landmarks")
    resources = Resources()

    def measure(self, segment: Segment) -> Partial:
        view = first_view(segment)
        return self._partial(view, np.zeros((0, WIDTH), np.float32) if view is None else project(layout(view.frames)))

    def _partial(self, view: View | None, seen: np.ndarray) -> Partial:
        return {"t": view.t_ns if view is not None else np.zeros(0, np.int64), "seen": seen.astype(np.float32)}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        vectors: dict[str, np.ndarray] = {}
        pictures = Rows({"picture": (merged["t"], merged["t"])}, {"picture": Table.of(merged["seen"])})
        runs = {"state": rows.ordered("state"), "picture": pictures.ordered("picture")}
        told = {name: run for name, run in runs.items() if len(run[0]) >= 3}
        if not told:
            return Measured({})
        first, last = max(times[0] for times, _ in told.values()), min(times[-1] for times, _ in told.values())
        if last <= first:
            return Measured({})
        seconds = (last - first) / 1e9
        count = int(np.clip(round(seconds * BOXES_HZ), LEAST_BOXES, MOST_BOXES))
        if "picture" in told:
            times, values = told["picture"]
            vectors["embedding"] = boxes(times, values, first, last, count)
            vectors["landmarks.picture"] = sketch(landmarks(values, PICTURE_BITS, PICTURE_LANDMARKS), PICTURE_LANDMARKS)
        if "state" in told:
            times, values = told["state"]
            axes = farthest(values, STATE_AXES)
            vectors["path"] = boxes(times, values, first, last, count, axes)
            vectors["path.axes"] = axes
            vectors["landmarks.state"] = sketch(landmarks(values, STATE_BITS, STATE_LANDMARKS), STATE_LANDMARKS)
        return Measured({"embedding.seconds": seconds, "embedding.boxes": float(count)}, vectors)


def first_view(segment: Segment) -> View | None:
    """The view of the first camera by name; None where it has no frames here."""
    cameras = [name.removeprefix(PREFIX) for name in sorted(segment.streams) if name.startswith(PREFIX)]
    view = segment.views.get(cameras[0]) if cameras else None
    return view if view is not None and len(view.frames) else None


def layout(frames: np.ndarray) -> np.ndarray:
    """[n, h, w, 3] u8 RGB -> [n, 160]: 8x8 luma, 4x4 of two colour differences, and 4x4 of edge strength in four directions.

    Luma has mean 0 and spread 1 per frame, and the colours are in units of its spread: exposure and contrast cancel. Edges are
    histograms of oriented gradients (Dalal and Triggs, 2005) without block overlap.
    """
    luma = grey(frames)
    fine = shrink(luma, 4 * GRID)
    coarse = fine.reshape(len(fine), GRID, 4, GRID, 4).mean(axis=(2, 4))
    spread = np.maximum(coarse.std(axis=(1, 2), keepdims=True), 2.0)
    light = (coarse - coarse.mean(axis=(1, 2), keepdims=True)) / spread
    half = GRID // 2
    colours = [(shrink(frames[..., channel], half) - shrink(luma, half)) / spread for channel in (0, 2)]
    down, right = np.gradient(fine, axis=(1, 2))
    strength, angle = np.hypot(down, right), np.arctan2(down, right) % np.pi
    turn = np.minimum((angle / (np.pi / 4)).astype(int), 3)
    edges = [(strength * (turn == way)).reshape(len(fine), half, GRID, half, GRID).mean(axis=(2, 4)) for way in range(4)]
    edged = np.stack(edges, axis=1) / np.maximum(strength.mean(axis=(1, 2)), 1.0)[:, None, None, None]
    parts = [light, 0.5 * np.stack(colours, axis=1), 0.5 * edged]
    return np.concatenate([part.reshape(len(frames), -1) for part in parts], axis=1).astype(np.float32)


def project(values: np.ndarray) -> np.ndarray:
    """[n, d] -> [n, WIDTH] by a fixed matrix of signs over sqrt(d): distances are kept on average (Achlioptas, 2003)."""
    width = values.shape[1]
    signs = np.where(mix(np.arange(width * WIDTH, dtype=np.uint64)) >> np.uint64(63), 1.0, -1.0).reshape(width, WIDTH)
    return np.asarray(values @ signs / np.sqrt(max(width, 1)), np.float32)


def boxes(t_ns: np.ndarray, values: Values, first: int, last: int, count: int, axes: np.ndarray | None = None) -> np.ndarray:
    """[count, d]: the mean of the chosen axes' values (linear between samples) over each of `count` equal pieces of [first, last]."""
    table = Table.of(values)
    chosen = range(table.shape[1]) if axes is None else axes.tolist()
    seconds = (t_ns - first) / 1e9
    edges = np.linspace(0.0, (last - first) / 1e9, count + 1)
    known = np.unique(np.concatenate([edges, seconds[(seconds > 0) & (seconds < edges[-1])]]))
    area = np.zeros((count, len(chosen)))
    for place, axis in enumerate(chosen):
        line = np.interp(known, seconds, table.axis(axis))
        summed = np.concatenate([[0.0], np.cumsum(np.diff(known) * (line[1:] + line[:-1]) / 2)])
        area[:, place] = np.diff(np.interp(edges, known, summed))
    return np.asarray(area / np.diff(edges)[:, None], np.float32)


def spread(values: Values) -> np.ndarray:
    """[d]: the range of the middle four fifths, what a short excursion at a start or an end hardly changes."""
    table = Table.of(values)
    found = np.zeros(table.shape[1])
    for axes, part in table.parts():
        low, high = np.quantile(part, [0.1, 0.9], axis=0)
        found[axes] = high - low
    return found


def farthest(values: Values, most: int) -> np.ndarray:
    """The axes of [n, d] with the widest spread, at most `most`, in their order; those that stand still are left out."""
    span = spread(values)
    chosen = np.argsort(-span, kind="stable")[:most]
    return np.sort(chosen[span[chosen] > 1e-6])


def landmarks(values: Values, bits: int, most: int) -> np.ndarray:
    """u64 [m], sorted and distinct: the `most` smallest hashes of the moments at which an axis of [n, d] crosses a level.

    Levels lie on a grid of half the power of four below an axis' range; each pair of other axes is named with it, to 2**-bits of the power
    of four below theirs. A cut that takes an axis' range below its power gives it another grid, so all is done again with the powers of
    four between: few cuts fall below both.
    """
    table = Table.of(values)
    axes = farthest(table, LANDMARK_AXES)
    octave = np.log2(spread(table)[axes]) if len(axes) else np.zeros(0)
    found = np.zeros(0, np.uint64)
    for shift in (0, 1):
        scale = 2.0 ** (2 * np.floor((octave + shift) / 2) - shift)
        for place, axis in enumerate(axes):
            at, crossed, share, way = crossings(table.axis(axis) / (scale[place] / 2))
            beside = {}
            for other in np.delete(np.arange(len(axes)), place):
                column = table.axis(axes[other])
                there = column[at] + share * (column[at + 1] - column[at])
                beside[other] = fold([np.full(len(at), axes[other]), np.floor(there / (scale[other] / 2**bits))])
            own = fold([np.full(len(at), 2 * axis + shift), crossed, way])
            company = [mix(beside[one] + beside[two]) for one, two in combinations(beside, 2)] or [sum(beside.values(), np.zeros(len(at), np.uint64))]
            found = np.unique(np.concatenate([found, *(mix(own ^ named) for named in company)]))[:most]
    return found


def crossings(level: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where [n] passes whole numbers: the sample before, the number, how far it is to the next sample, and the sign of the way."""
    low, high = np.floor(np.minimum(level[:-1], level[1:])), np.floor(np.maximum(level[:-1], level[1:]))
    at = np.repeat(np.arange(len(low)), (high - low).astype(int))
    number = low[at] + 1 + np.arange(len(at)) - np.searchsorted(at, at)
    way = level[at + 1] - level[at]
    return at, number, (number - level[at]) / way, np.sign(way)


def fold(words: list[np.ndarray]) -> np.ndarray:
    """One u64 of each row of whole numbers."""
    made = np.zeros(len(words[0]), np.uint64)
    for word in words:
        made = mix(made ^ word.astype(np.int64).astype(np.uint64))
    return made


def mix(number: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea and Flood, 2014): u64 -> u64, well mixed."""
    with np.errstate(over="ignore"):
        made = number + np.uint64(0x9E3779B97F4A7C15)
        made = (made ^ (made >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        made = (made ^ (made >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(made ^ (made >> np.uint64(31)))


def sketch(hashes: np.ndarray, most: int) -> np.ndarray:
    """The `most` smallest hashes as pairs of whole numbers below 2**24, which the ledger's f32 holds exactly: [2 k] of 48 bits each."""
    kept = np.sort(hashes)[:most] >> np.uint64(16)
    return np.stack([kept >> np.uint64(24), kept & np.uint64(0xFFFFFF)], axis=1).astype(np.float32).ravel()
