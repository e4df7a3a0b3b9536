"""What each Ray Train worker runs: its lanes of the data, the shared loop, and (rank 0) the checkpoints."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training import checkpoint
from ray_jobs.training.features import find_extractor
from ray_jobs.training.gang import Leaving, Member, OtherFailed, drained, fail, failure
from ray_jobs.training.loop import State, fresh, train
from ray_jobs.training.model import read_model
from ray_jobs.training.policy import Policy, build_policy
from ray_jobs.training.samples import Batch, Moments
from ray_jobs.training.spec import PolicyConfig, Statistics
from ray_jobs.training.stream import batches, resident
from ray_jobs.training.watchdog import Watchdog

OVER = -1  # a step


class Order(Strict):
    """What the workers are told. `executions`: where checkpoints may lie; the first is where they are written. `start`: a model to go on from."""

    store: StoreConfig
    executions: tuple[str, ...]
    subject: str
    settings: TrainSettings
    config: PolicyConfig
    statistics: Statistics
    start: str | None = None


def train_worker(told: dict[str, Any]) -> None:
    """Entry point of a worker. Returns where training is over: finished, asked to stop, or failed in a way that a retry cannot mend.

    told: order (an Order), reader (a reference to the view's stream.Reader), shards (its decoded Dataset where it is small enough to stay in memory),
    watched (this is a process of its own, which may be ended).
    Raises Leaving where this worker's node goes, so that Ray Train begins the group again without it.
    """
    order = Order.model_validate(told["order"])
    torch.set_num_threads(1)
    store, context, execution = Store(order.store), ray.train.get_context(), order.executions[0]
    rank, world, settings = context.get_world_rank(), context.get_world_size(), order.settings
    torch.manual_seed(settings.seed)
    device = ray.train.torch.get_device() if settings.gpus else torch.device("cpu")
    try:
        policy = build_policy(order.config, order.statistics).to(device)
    except FlywheelError as error:
        fail(store, execution, error)
        return
    if (state := _agree(_start(store, order, policy) if rank == 0 else fresh(policy), world)).step == OVER:
        return
    member = Member(store, execution, order.subject, settings, rank, world, state.step, device)
    with Watchdog(settings.hang_s, state.step, member.hangs) if told["watched"] else nullcontext() as watchdog, member:

        def after(now: State) -> None:
            def alive() -> None:
                if watchdog:
                    watchdog.beat(now.step)

            alive()
            member.after(now, alive)

        try:
            train(policy, _lanes(order, told, rank, world, state.step), settings, state, member.reduce, after)
        except OtherFailed:
            return
        except Leaving as left:
            if drained():
                raise Leaving(f"{left}: a node is being drained") from left
            member.stopped()
        except FlywheelError as error:
            if not told["watched"]:  # in the driver's own process, where nobody retries it
                raise
            member.failed(error, state)


def _start(store: Store, order: Order, policy: Policy) -> State:
    """Where to go on; its step is OVER where nothing can go on: an earlier group of this execution failed in a way that a retry cannot mend, or this does."""
    over = replace(fresh(policy), step=OVER)
    if failure(store, order.executions[0]):
        return over
    try:
        if found := checkpoint.newest(store, order.executions, order.subject):
            return found.to(policy.binary.device)
        if order.start:
            policy.load(read_model(store, order.start).tensors())
        return fresh(policy)
    except FlywheelError as error:
        fail(store, order.executions[0], error)
        return over


def _lanes(order: Order, told: dict[str, Any], rank: int, world: int, first: int) -> dict[int, Iterator[Batch]]:
    """This worker's part of the data, each lane standing at the step `first`."""
    settings, reader = order.settings, ray.get(told["reader"])
    if told["shards"] is not None:
        fetch = resident([Moments.from_columns(block) for block in told["shards"].iter_batches(batch_size=None, batch_format="numpy")])
    else:
        spare = int(ray.cluster_resources().get("CPU", 1)) - world
        fetch = reader.streamed(max(1, spare // settings.lanes))
    extractor = find_extractor(order.config.policy)
    return {lane: batches(reader.plan, lane, settings.micro_batch, first, fetch, extractor) for lane in range(rank, settings.lanes, world)}


def _agree(state: State, world: int) -> State:
    """Every worker starts where rank 0 does."""
    if world > 1:
        step = torch.tensor([state.step], device=state.weights.device)
        for vector in (step, state.weights, state.momentum, state.variance):
            dist.broadcast(vector, src=0)
        state.step = int(step)
    return state
