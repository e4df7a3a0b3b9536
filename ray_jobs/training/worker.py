"""What each Ray Train worker runs: its lanes of the data, the shared loop, and (rank 0) the checkpoints."""

from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training import checkpoint
from ray_jobs.training.features import find_extractor
from ray_jobs.training.loop import State, fresh, train
from ray_jobs.training.model import read_model
from ray_jobs.training.policy import build_policy
from ray_jobs.training.samples import Moments
from ray_jobs.training.spec import PolicyConfig, Statistics
from ray_jobs.training.stream import batches, resident


class Order(Strict):
    """What the workers are told. `executions`: where checkpoints may lie; the first is where they are written. `start`: a model to go on from."""

    store: StoreConfig
    executions: tuple[str, ...]
    subject: str
    settings: TrainSettings
    config: PolicyConfig
    statistics: Statistics
    start: str | None = None


def failure_key(execution: str) -> str:
    return f"{checkpoint.folder(execution)}/failed.json"


def train_worker(told: dict[str, Any]) -> None:
    """Entry point of a worker. A failure that a retry cannot mend is left in the store: raised, it would only be retried.

    told: order (an Order), reader (a reference to the view's stream.Reader), shards (its decoded Dataset where it is small enough to stay in memory).
    """
    order = Order.model_validate(told["order"])
    torch.set_num_threads(1)
    store, context = Store(order.store), ray.train.get_context()
    rank, world, settings = context.get_world_rank(), context.get_world_size(), order.settings
    torch.manual_seed(settings.seed)
    policy = build_policy(order.config, order.statistics)
    found = checkpoint.newest(store, order.executions, order.subject) if rank == 0 else None
    if order.start and rank == 0 and found is None:
        policy.load(read_model(store, order.start).tensors())
    state = _agree(found or fresh(policy), world)

    def reduce(vector: torch.Tensor) -> None:
        if world > 1:
            dist.all_reduce(vector)

    def after(now: State) -> None:
        if now.step % settings.checkpoint_every == 0 or now.step == settings.steps:
            if rank == 0:
                checkpoint.save(store, order.executions[0], now, order.subject)
            ray.train.report({"step": now.step, "loss": now.curve[-1][1]})

    reader = ray.get(told["reader"])
    if told["shards"] is not None:
        fetch = resident([Moments.from_columns(block) for block in told["shards"].iter_batches(batch_size=None, batch_format="numpy")])
    else:
        spare = int(ray.cluster_resources().get("CPU", 1)) - world
        fetch = reader.streamed(max(1, spare // settings.lanes))
    extractor = find_extractor(order.config.policy)
    lanes = {lane: batches(reader.plan, lane, settings.micro_batch, state.step, fetch, extractor) for lane in range(rank, settings.lanes, world)}
    try:
        train(policy, lanes, settings, state, reduce, after)
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
