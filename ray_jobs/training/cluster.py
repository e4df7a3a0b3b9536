"""The Ray side of training: the view's statistics through Ray Data, and the TorchTrainer.

A TorchTrainer starts seven processes that each import Ray Train for seconds. What can be left out without loss is left
out: who hands out datasets, who cleans up after a lost controller, the coordinator of a streaming split, and torch where
episodes are decoded.
"""

import os
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from ray_jobs.ray_errors import chain, class_of, telling_line
from ray_jobs.seam.errors import DataError, FlywheelError, OutOfMemory, StoreError
from ray_jobs.seam.store import Store
from ray_jobs.training.samples import Moments, statistics
from ray_jobs.training.spec import Statistics
from ray_jobs.training.watchdog import FIRST

if TYPE_CHECKING:
    from ray.data import Dataset

    from ray_jobs.training.stream import Reader
    from ray_jobs.training.worker import Order

ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # by default workers are polled every 2 s
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
LOST_GROUPS = 5  # of one execution; the next one begins with a new cluster where the target makes one
STOPPING_S = 30.0  # from the driver's SIGTERM until the workers have written where they stand


STATISTICS_SHARDS = 64  # evenly over the view


def view_statistics(reader: "Reader", shards: "Dataset | None") -> Statistics:
    """Of some of the view's shards, the same ones whether all are in memory (`shards`) or not. Raises DataError where no row of them is usable."""
    count = len(reader.plan.shards)
    chosen = [count * place // STATISTICS_SHARDS for place in range(STATISTICS_SHARDS)] if count > STATISTICS_SHARDS else list(range(count))
    dataset = shards or reader.dataset(chosen)
    blocks = enumerate(dataset.iter_batches(batch_size=None, batch_format="numpy"))
    try:
        return told(lambda: statistics(Moments.from_columns(block) for number, block in blocks if not shards or number in set(chosen)))
    except ValueError as error:
        raise DataError("no usable row in the view: every state or action is NaN or infinite") from error


def fit(reader: "Reader", shards: "Dataset | None", order: "Order") -> None:
    """Train; the result lies in the newest checkpoint of order.executions[0]. Raises StoreError where Ray gave up.

    `shards`: all of the reader's, decoded, or None where they are to be streamed. settings.workers=0 trains in this process, where a debugger can follow.
    SIGTERM and the deadline make the workers write where they stand before they are raised from here.
    """
    settings = order.settings
    least = settings.min_workers or settings.workers
    elastic = least < settings.workers
    _set_environment(elastic)
    from ray.train.torch import TorchConfig
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig  # ray.train's own; by those names the checker knows the old ones
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    from ray_jobs.training.worker import train_worker

    class Trainer(TorchTrainer):
        """Without two processes that no setting leaves out: its workers read for themselves, and a lost controller's placement group goes with the job."""

        def _create_default_callbacks(self) -> list[Any]:
            return [each for each in super()._create_default_callbacks() if not isinstance(each, DatasetsCallback | PlacementGroupCleanerCallback)]

    with tempfile.TemporaryDirectory(prefix="fw-train-") as folder:  # Ray Train's own notes; checkpoints go through the store
        trainer = Trainer(
            train_worker,
            train_loop_config={"order": order.model_dump(mode="json"), "reader": ray.put(reader), "shards": shards, "watched": settings.workers > 0},
            torch_config=TorchConfig(
                backend="nccl" if settings.gpus else "gloo", timeout_s=int(2 * FIRST * settings.hang_s)
            ),  # the watchdog is to see it first
            scaling_config=ScalingConfig(
                num_workers=(least, settings.workers) if elastic else settings.workers,
                use_gpu=settings.gpus > 0,
                resources_per_worker={"CPU": 1, **({"GPU": settings.gpus} if settings.gpus else {})},
                placement_strategy="SPREAD",  # a lost node costs one worker, and each has its node's other cores for decoding
            ),
            run_config=RunConfig(
                name="run",
                storage_path=folder,
                failure_config=FailureConfig(max_failures=LOST_GROUPS),
            ),
        )
        try:
            told(trainer.fit)
        except KeyboardInterrupt:  # the driver's Terminated or DeadlineExceeded, or a bare one out of Ray's native code
            if settings.workers and _stopped(Store(order.store), order.executions[0]):
                print("training stopped where it stood", flush=True)
            raise


def _set_environment(elastic: bool) -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # A process of its own, and of no use where there is but one node to lose.
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "1" if len(ray.nodes()) > 1 else "0"
    # Of an elastic group Ray Train counts a node that was just lost as there for up to 20 s, and waits for room on it.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "20" if elastic else "60"


def _stopped(store: Store, execution: str) -> bool:
    """Ask the workers to stop; whether they have, with their last step in the store, in STOPPING_S."""
    from ray_jobs.training.gang import stop_key

    store.put(stop_key(execution), b"")
    ends = time.monotonic() + STOPPING_S
    while time.monotonic() < ends:
        if not store.exists(stop_key(execution)):
            return True
        time.sleep(0.1)
    return False


def told(call: Callable[[], Any]) -> Any:
    """The call's result; what a task or worker raised comes out as the FlywheelError that it was."""
    try:
        return call()
    except (ray.exceptions.RayError, RuntimeError) as error:
        for cause in chain(error):
            # Ray's own error is of the cause's class too, with a whole traceback for a text.
            if isinstance(cause, FlywheelError) and not isinstance(cause, ray.exceptions.RayTaskError):
                raise type(cause)(str(cause).splitlines()[0]) from error  # Ray Data adds advice of its own
        if class_of(error) == "out_of_memory":
            raise OutOfMemory(f"a process of Ray ran out of memory: {telling_line(error)}") from error
        raise StoreError(f"Ray could not finish: {telling_line(error)}") from error
