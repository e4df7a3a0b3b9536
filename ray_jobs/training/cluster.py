"""The Ray side of training: samples through Ray Data, and the TorchTrainer.

A TorchTrainer starts seven processes that each import Ray Train for seconds. What can be left out without loss is left
out: the coordinator of a streaming split, and torch where samples are extracted.
"""

import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from ray_jobs.packing.view import PackedEpisode
from ray_jobs.ray_errors import chain, class_of, telling_line
from ray_jobs.seam.errors import DataError, FlywheelError, OutOfMemory, StoreError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.features import find_extractor
from ray_jobs.training.ingest import read_samples
from ray_jobs.training.samples import Samples, join, statistics
from ray_jobs.training.spec import Statistics

if TYPE_CHECKING:
    from ray.data import Dataset

    from ray_jobs.training.worker import Order

FRAMES_PER_TASK = 1200  # decoded and reduced by one task: a few seconds
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # by default workers are polled every 2 s, and each report waits for that
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a lost worker resumes from the last checkpoint, announced or not
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def samples_dataset(store: StoreConfig, episodes: tuple[PackedEpisode, ...], policy: str, camera: str | None) -> "Dataset":
    """The samples of all episodes, extracted once; Ray keeps them in its object store and spills what does not fit.

    Raises DataError or StoreError as the first episode that cannot be read does.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # wrapped by Ray Data, the error would lose what it was
    context.execution_options.preserve_order = True  # the same rows to the same worker, every time

    def extract(batch: Any) -> Any:
        extractor, opened = find_extractor(policy), Store(store)
        parts = [read_samples(opened, PackedEpisode.model_validate_json(text), extractor, camera) for text in batch["episode"]]
        return join(parts).columns()

    tasks = min(len(episodes), -(-sum(episode.length for episode in episodes) // FRAMES_PER_TASK))
    rows = ray.data.from_items([{"episode": episode.model_dump_json()} for episode in episodes], override_num_blocks=tasks)
    return told(rows.map_batches(extract, batch_size=None, batch_format="numpy", num_cpus=1).materialize)


def dataset_statistics(dataset: "Dataset") -> Statistics:
    """Raises DataError where no row is left."""
    try:
        return statistics(Samples(**block) for block in dataset.iter_batches(batch_size=8192, batch_format="numpy"))
    except ValueError as error:
        raise DataError("no usable row in the view: every state or action is NaN or infinite") from error


def fit(dataset: "Dataset", order: "Order", workers: int) -> None:
    """Train; the result lies in the newest checkpoint of order.executions[0]. Raises StoreError where Ray gave up.

    workers=0 trains in this process, where a debugger can follow.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from ray_jobs.training.worker import train_worker

    with tempfile.TemporaryDirectory(prefix="fw-train-") as folder:  # Ray Train's own notes; checkpoints go through the store
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"order": order.model_dump(mode="json"), "shards": dataset.split(max(1, workers), equal=True)},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
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
    except (ray.exceptions.RayError, RuntimeError) as error:
        for cause in chain(error):
            # Ray's own error is of the cause's class too, with a whole traceback for a text.
            if isinstance(cause, FlywheelError) and not isinstance(cause, ray.exceptions.RayTaskError):
                raise type(cause)(str(cause).splitlines()[0]) from error  # Ray Data adds advice of its own
        if class_of(error) == "out_of_memory":
            raise OutOfMemory(f"a process of Ray ran out of memory: {telling_line(error)}") from error
        raise StoreError(f"Ray could not finish: {telling_line(error)}") from error
