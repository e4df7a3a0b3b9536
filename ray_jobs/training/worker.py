"""What each Ray Train worker runs: its shard of the samples, the shared loop, and (rank 0) the checkpoints."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import ray.train
import torch
import torch.distributed as dist

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training import checkpoint
from ray_jobs.training.loop import Batch, State, fresh, resident_batches, train
from ray_jobs.training.policy import build_policy
from ray_jobs.training.samples import Samples
from ray_jobs.training.spec import PolicyConfig, Statistics

RESIDENT_ROWS = 500_000  # of a worker's shard: about 300 MB of samples. Beyond, every epoch streams through a shuffle buffer


class Order(Strict):
    """What the workers are told. `executions`: where checkpoints may lie; the first is where they are written."""

    store: StoreConfig
    executions: tuple[str, ...]
    subject: str
    settings: TrainSettings
    config: PolicyConfig
    statistics: Statistics
    resident_rows: int = RESIDENT_ROWS


def failure_key(execution: str) -> str:
    return f"{checkpoint.folder(execution)}/failed.json"


def train_worker(told: dict[str, Any]) -> None:
    """Entry point of a worker. A failure that a retry cannot mend is left in the store: raised, it would only be retried."""
    order = Order.model_validate(told["order"])
    torch.set_num_threads(1)
    store, context = Store(order.store), ray.train.get_context()
    rank, world, settings = context.get_world_rank(), context.get_world_size(), order.settings
    torch.manual_seed(settings.seed)
    policy = build_policy(order.config, order.statistics)
    found = checkpoint.newest(store, order.executions, order.subject) if rank == 0 else None
    state = _agree(found or fresh(policy), world)

    def average(vector: torch.Tensor) -> None:
        if world > 1:
            dist.all_reduce(vector)
            vector /= world

    def save(now: State) -> None:
        if rank == 0:
            checkpoint.save(store, order.executions[0], now, order.subject)
        ray.train.report({"step": now.step, "loss": now.curve[-1][1]})

    try:
        train(policy, _batches(order, told["shards"][rank], rank, world, state.step), settings, state, average, save)
    except FlywheelError as error:
        if rank == 0:
            store.put(failure_key(order.executions[0]), str(error).encode())


def _agree(state: State, world: int) -> State:
    """Every worker starts where rank 0 does."""
    if world > 1:
        step = torch.tensor([state.step])
        for vector in (step, state.weights, state.momentum, state.variance):
            dist.broadcast(vector, src=0)
        state.step = int(step)
    return state


def _batches(order: Order, shard: Any, rank: int, world: int, first: int) -> Iterator[Batch]:
    """This worker's part of each batch. The shard streams from Ray Data, and is kept where it is small enough."""
    size = max(1, order.settings.batch // world)
    if order.statistics.rows <= order.resident_rows * world:
        blocks = [Samples(**block) for block in shard.iter_batches(batch_size=4096, batch_format="numpy")]
        rows = Samples(*(np.concatenate([getattr(block, name) for block in blocks]) for name in ("features", "actions", "valid")))
        yield from resident_batches(rows, size, order.settings.seed, rank, first)
    epoch = 0
    while True:
        buffer = max(size, order.resident_rows // 2)
        seed = order.settings.seed + first + epoch
        for block in shard.iter_batches(batch_size=size, batch_format="numpy", drop_last=True, local_shuffle_buffer_size=buffer, local_shuffle_seed=seed):
            yield torch.from_numpy(block["features"]), torch.from_numpy(block["actions"]), torch.from_numpy(block["valid"])
        epoch += 1
