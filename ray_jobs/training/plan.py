"""In which order training sees its rows: a pure function of the episodes, their weights, the number of lanes and the seed.

The episodes are cut into shards: what one task decodes. Each epoch the shards, repeated by weight, are permuted and dealt to the lanes. Within a lane,
rows are shuffled over a window of shards. A lane is an endless row of micro-batches; the global batch of a step is one micro-batch of every lane.
Workers share the lanes, so what a step is trained on depends neither on how many workers there are nor on where training was resumed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SHARD_MOMENTS = 1200  # decoded and reduced by one task: a few seconds
SMALLEST_SHARD = 64
WINDOW_SHARDS = 16
WINDOW_BYTES = 256 * 1024 * 1024  # of decoded moments, in each lane


@dataclass(frozen=True)
class Piece:
    """Moments [start, stop) of an episode, by its place among the episodes that are trained on."""

    episode: int
    start: int
    stop: int

    @property
    def moments(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Plan:
    """shards: what is read at once; weights: how often each is seen per epoch, on average; window: shards that are shuffled together."""

    shards: tuple[tuple[Piece, ...], ...]
    weights: tuple[float, ...]
    lanes: int
    seed: int
    window: int

    def rows(self, shard: int) -> int:
        return sum(piece.moments for piece in self.shards[shard])

    def sequence(self, lane: int) -> Iterator[int]:
        """The lane's shards, endless: every epoch is dealt on where the last one stopped."""
        weights = np.array(self.weights)
        dealt, epoch = 0, 0
        while True:
            draw = np.random.default_rng([self.seed, epoch])
            repeats = np.floor(weights).astype(int) + (draw.random(len(weights)) < weights % 1)
            order = draw.permutation(np.repeat(np.arange(len(weights)), repeats))
            yield from order[(lane - dealt) % self.lanes :: self.lanes].tolist()
            dealt, epoch = dealt + len(order), epoch + 1

    def order(self, lane: int, window: int, rows: int) -> np.ndarray:
        """In which order the rows of a window are seen."""
        return np.random.default_rng([self.seed, lane, window, 1]).permutation(rows)

    def place(self, lane: int, rows: int) -> tuple[int, int]:
        """The window that holds the lane's row number `rows`, and how many of its rows come before."""
        shards, window = self.sequence(lane), 0
        while True:
            length = sum(self.rows(next(shards)) for _ in range(self.window))
            if rows < length:
                return window, rows
            rows, window = rows - length, window + 1


def make_plan(lengths: Sequence[int], weights: Sequence[float], lanes: int, seed: int, moment_bytes: int) -> Plan:
    """lengths and weights of the episodes, moment_bytes: what one decoded moment takes. Raises ValueError where nothing has weight."""
    total = sum(length for length, weight in zip(lengths, weights, strict=True) if weight > 0)
    if not total:
        raise ValueError("no episode has weight")
    size = min(SHARD_MOMENTS, max(SMALLEST_SHARD, total // (lanes * WINDOW_SHARDS)))
    shards: list[tuple[Piece, ...]] = []
    of: list[float] = []
    for weight in sorted({weight for weight in weights if weight > 0}):
        open_shard: list[Piece] = []
        for episode in (number for number, other in enumerate(weights) if other == weight):
            for piece in _pieces(episode, lengths[episode]):
                open_shard.append(piece)
                if sum(each.moments for each in open_shard) >= size:
                    shards.append(tuple(open_shard))
                    open_shard = []
        if open_shard:
            shards.append(tuple(open_shard))
        of += [weight] * (len(shards) - len(of))
    window = max(1, min(WINDOW_SHARDS, WINDOW_BYTES // max(1, size * moment_bytes), len(shards) // lanes))  # of one epoch, where that can be
    return Plan(tuple(shards), tuple(of), lanes, seed, window)


def _pieces(episode: int, length: int) -> Iterator[Piece]:
    """A long episode in pieces of about equal length."""
    count = -(-length // SHARD_MOMENTS)
    bounds = [length * place // count for place in range(count + 1)] if count else []
    yield from (Piece(episode, start, stop) for start, stop in pairwise(bounds))


def moment_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """What a decoded moment takes at most: its observations (as f32) and some for its action."""
    return sum(4 * math.prod(shape) for shape in shapes.values()) + 64
