"""A lane's micro-batches, from shards in memory or decoded ahead by Ray Data on other CPUs: the same rows in the same order."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.features import Extractor, find_extractor
from ray_jobs.training.ingest import Part, read_parts
from ray_jobs.training.plan import Piece, Plan
from ray_jobs.training.samples import Batch, Moments, join

if TYPE_CHECKING:
    from ray.data import Dataset

SHARDS_AT_ONCE = 2048  # of one Ray Data execution: the next one starts, with a pause of a second, when these are through
AHEAD_BYTES = 512 * 1024 * 1024  # decoded and not yet taken, in each lane

Fetch = Callable[[Iterator[int]], Iterator[Moments]]  # numbers of shards -> what is in them, in that order


def batches(plan: Plan, lane: int, size: int, first: int, fetch: Fetch, extractor: Extractor) -> Iterator[Batch]:
    """The lane's endless micro-batches of `size` rows, from number `first` on."""
    number, skip = plan.place(lane, first * size)
    shards = fetch(islice(plan.sequence(lane), number * plan.window, None))
    held: list[Batch] = []
    while True:
        part = join(islice(shards, plan.window))
        rows = part.rows[plan.order(lane, number, len(part.rows))][skip:]
        while len(rows):
            wanted = size - sum(map(len, held))
            held.append(part.batch(rows[:wanted], extractor.window, extractor.chunk))
            rows = rows[wanted:]
            if sum(map(len, held)) == size:
                yield _one(held)
                held = []
        number, skip = number + 1, 0


def _one(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    seen = {name: np.concatenate([part.seen[name] for part in parts]) for name in parts[0].seen}
    return Batch(seen, np.concatenate([part.actions for part in parts]), np.concatenate([part.valid for part in parts]))


def resident(shards: Sequence[Moments]) -> Fetch:
    """All shards by number, in memory."""
    return lambda numbers: (shards[number] for number in numbers)


def of_episodes(plan: Plan, episodes: Sequence[Moments], extractor: Extractor) -> Fetch:
    """Whole episodes in memory, in the plan's order."""

    def cut(piece: Piece) -> Moments:
        return episodes[piece.episode].piece(piece.start, piece.stop, extractor.window, extractor.chunk)

    return resident([join(map(cut, shard)) for shard in plan.shards])


class Reader:
    """Reads shards of one view for one policy, as tasks of Ray Data."""

    def __init__(self, store: StoreConfig, episodes: Sequence[PackedEpisode], plan: Plan, policy: str, cameras: tuple[str, ...]):
        self.plan = plan
        self._store, self._episodes = store, episodes
        self._policy, self._cameras = policy, cameras

    def dataset(self, shards: Sequence[int], tasks: int | None = None) -> "Dataset":
        """One block per shard, in this order; `tasks` decode at a time, None: as many as there is room for. A DataError of a task comes out as it is."""
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.raise_original_map_exception = True  # wrapped by Ray Data, the error would lose what it was
        context.target_max_block_size = None  # a block is a whole shard
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = ray.data.ExecutionResources(object_store_memory=AHEAD_BYTES) if tasks else ray.data.ExecutionResources()
        store, policy, cameras = self._store, self._policy, self._cameras  # not self: each task would carry the whole view

        def decode(block: Any) -> Any:
            opened, extractor = Store(store), find_extractor(policy)
            (text,) = block["shard"]
            return read_parts(opened, Part.listed(text), extractor, cameras).columns()

        items = [{"shard": Part.listing(self._parts(number))} for number in shards]
        rows = ray.data.from_items(items, override_num_blocks=len(items))
        return rows.map_batches(decode, batch_size=None, batch_format="numpy", num_cpus=1, concurrency=tasks)

    def streamed(self, tasks: int) -> Fetch:
        """Decodes as many shards ahead as AHEAD_BYTES hold."""

        def fetch(numbers: Iterator[int]) -> Iterator[Moments]:
            while some := list(islice(numbers, SHARDS_AT_ONCE)):
                for block in self.dataset(some, tasks).iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2):
                    yield Moments.from_columns(block)

        return fetch

    def _parts(self, shard: int) -> list[Part]:
        return [Part(episode=self._episodes[piece.episode], start=piece.start, stop=piece.stop) for piece in self.plan.shards[shard]]
