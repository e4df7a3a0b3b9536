"""The Ray side of training: warm processes, samples through Ray Data, and the TorchTrainer.

Starting a process that has imported torch and Ray costs seconds, and a TorchTrainer wants four beside the driver. So the
processes are started first, import while the driver does, extract the samples, and are then taken over by the trainer:
Ray hands an idle process to the next task or actor of the same job and environment.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import ray

from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.errors import DataError, FlywheelError, StoreError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.ingest import read_samples
from ray_jobs.training.samples import Samples, join, statistics
from ray_jobs.training.spec import Statistics

if TYPE_CHECKING:
    from ray.data import Dataset

    from ray_jobs.training.worker import Order

EPISODES_PER_TASK = 8
# Ray Train gives these to every process that it starts. Tasks that run under the same leave processes that it can take over.
ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0"}
DRIVER_ENVIRONMENT = {**ENVIRONMENT, "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}


def _import_heavy() -> None:
    import ray.train.torch  # noqa: F401

    import ray_jobs.training.policy  # noqa: F401


def warm(processes: int) -> list[Any]:
    """Begin to start that many processes; returns what to hold until they are in use."""
    os.environ.update(DRIVER_ENVIRONMENT)
    task = ray.remote(_import_heavy).options(runtime_env={"env_vars": ENVIRONMENT}, num_cpus=1)
    return [task.remote() for _ in range(processes)]


def samples_dataset(store: StoreConfig, episodes: tuple[PackedEpisode, ...], policy: str, camera: str | None) -> "Dataset":
    """The samples of all episodes, extracted once; Ray keeps them in its object store and spills what does not fit.

    Raises DataError or StoreError as the first episode that cannot be read does.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True  # the same rows to the same worker, every time

    def extract(batch: Any) -> Any:
        from ray_jobs.training.policy import find_policy

        kind, opened = find_policy(policy), Store(store)
        parts = [read_samples(opened, PackedEpisode.model_validate_json(text), kind, camera) for text in batch["episode"]]
        return join(parts).columns()

    tasks = max(1, -(-len(episodes) // EPISODES_PER_TASK))
    rows = ray.data.from_items([{"episode": episode.model_dump_json()} for episode in episodes], override_num_blocks=tasks)
    mapped = rows.map_batches(extract, batch_size=EPISODES_PER_TASK, batch_format="numpy", num_cpus=1, runtime_env={"env_vars": ENVIRONMENT})
    return told(mapped.materialize)


def dataset_statistics(dataset: "Dataset") -> Statistics:
    """Raises DataError where no row is left."""
    try:
        return statistics(Samples(**block) for block in dataset.iter_batches(batch_size=8192, batch_format="numpy"))
    except ValueError as error:
        raise DataError("no usable row in the view: every state or action is NaN or infinite") from error


def fit(dataset: "Dataset", order: "Order", workers: int) -> None:
    """Train; the result lies in the newest checkpoint of order.executions[0]. Raises StoreError where Ray gave up."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from ray_jobs.training.worker import train_worker

    with tempfile.TemporaryDirectory(prefix="fw-train-") as folder:  # Ray Train's own notes; checkpoints go through the store
        trainer = TorchTrainer(
            train_worker,
            train_loop_config=order.model_dump(mode="json"),
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
            datasets={"train": dataset},
            dataset_config=ray.train.DataConfig(execution_options=dataset.context.execution_options, enable_shard_locality=False),
            run_config=ray.train.RunConfig(
                name="run",
                storage_path=folder,
                failure_config=ray.train.FailureConfig(max_failures=3),
            ),
        )
        told(trainer.fit)


def told(call: Callable[[], Any]) -> Any:
    """The call's result; what a task or worker raised comes out as the FlywheelError that it was."""
    try:
        return call()
    except (ray.exceptions.RayError, ray.exceptions.RayTaskError, RuntimeError) as error:
        for cause in _causes(error):
            if isinstance(cause, FlywheelError):
                raise type(cause)(str(cause)) from error
        raise StoreError(f"Ray could not finish: {str(error).strip().splitlines()[-1][:300]}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
