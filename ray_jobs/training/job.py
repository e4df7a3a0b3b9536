"""Step "training": stream the view through Ray Data into a Ray Train TorchTrainer, and write one immutable model."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from ray_jobs.driver import Execution, connect
from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.configs import TrainConfig
from ray_jobs.seam.errors import StoreError, UserError
from ray_jobs.seam.model import digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Store
from ray_jobs.training.features import Extractor, find_extractor
from ray_jobs.training.ingest import Part, read_parts
from ray_jobs.training.plan import make_plan, moment_bytes
from ray_jobs.training.present import curve_picture, selection_table
from ray_jobs.training.selection import Selection, nothing_left, select
from ray_jobs.training.spec import PolicyConfig, Statistics

if TYPE_CHECKING:
    from ray_jobs.training.loop import State
    from ray_jobs.training.model import LineageDataset
    from ray_jobs.training.policy import Policy


def run(config: TrainConfig, execution: Execution) -> dict[str, DayResult]:
    """One model, for the last of the days. A selection that leaves nothing is no failure: there is nothing to learn from.

    Raises DataError for a dataset that is not whole or a loss that is no number, UserError for an unknown policy, tag or score, and for a model
    to go on from that is another policy.
    """
    started = time.monotonic()
    day = config.days[-1]
    find_extractor(config.settings.policy)  # an unknown policy is told before anything is started
    chosen = select(Store(config.data), config.view, config.settings.selection)
    counts = {"datasets": len(config.view), "held_out": len(chosen.held_out), "left_out": sum(chosen.told.left_out.values())}
    if not chosen.train:
        counts |= {"steps": 0, "episodes": 0, "frames": 0}
        shown = {"selection": Shown(type="md", value=selection_table(chosen.told))}
        return {day: DayResult(reason=nothing_left(chosen.told), counts=counts, output={"model": None, "lineage": None}, shown=shown)}
    connect()
    policy, state, resumed = _train(config, execution, chosen)
    return {day: _publish(config, execution.store, chosen, policy, state, resumed, counts, time.monotonic() - started)}


def _train(config: TrainConfig, execution: Execution, chosen: Selection) -> tuple["Policy", "State", int]:
    """The trained policy, the state it ended in, and the step it resumed from."""
    from ray_jobs.training.cluster import fit, told, view_statistics
    from ray_jobs.training.stream import Reader

    day, settings, episodes = config.days[-1], config.settings, chosen.train
    execution.progress(day, "start", 0, len(episodes))
    extractor = find_extractor(settings.policy)
    cameras = extractor.chosen(chosen.cameras)
    shapes = _shapes(Store(config.data), episodes[0], extractor, cameras)
    size = moment_bytes(shapes)
    first = episodes[0]
    shape = PolicyConfig(policy=settings.policy, state_width=len(first.state_names), action_width=len(first.action_names), cameras=cameras, shapes=shapes)
    begun = going_on(execution.store, config.start, shape) if config.start else None
    plan = make_plan([episode.length for episode in episodes], chosen.weights, settings.lanes, settings.seed, size)
    reader = Reader(config.data, episodes, plan, settings.policy, cameras)
    small = size * sum(episode.length for episode in episodes) <= settings.resident_mb * 1_000_000
    shards = told(reader.dataset(range(len(plan.shards))).materialize) if small else None
    found = begun or view_statistics(reader, shards)
    execution.progress(day, "samples", len(episodes), len(episodes))
    from ray_jobs.training import checkpoint
    from ray_jobs.training.gang import failure
    from ray_jobs.training.policy import build_policy
    from ray_jobs.training.worker import Order

    subject = digest(settings.model_dump(exclude={"checkpoint_every", "resident_mb", "min_workers", "hang_s"}), config.view, shape, config.start)
    executions = (execution.prefix, *execution.siblings())
    before = checkpoint.newest(execution.store, executions, subject)
    resumed = before.step if before else 0
    order = Order(store=config.store, executions=executions, subject=subject, settings=settings, config=shape, statistics=found, start=config.start)
    if resumed < settings.steps:
        with _watched(execution, day, settings.steps):
            fit(reader, shards, order)
        if error := failure(execution.store, execution.prefix):
            raise error
    state = checkpoint.newest(execution.store, executions, subject)
    if state is None or state.step < settings.steps:
        raise StoreError(f"training ended at step {state.step if state else 0} of {settings.steps} without an error: look at the workers' logs")
    import torch

    policy = build_policy(shape, found)
    torch.nn.utils.vector_to_parameters(state.weights, policy.network.parameters())
    return policy, state, resumed


def going_on(store: Store, start: str, shape: PolicyConfig) -> Statistics:
    """The statistics of the model to go on from: it is for them that its weights are right. Raises UserError where it is not a model of this shape."""
    from ray_jobs.training.model import read_model

    before = read_model(store, start)
    old, new = before.config.model_dump(), shape.model_dump()
    if different := [name for name in new if old[name] != new[name]]:
        told = "; ".join(f"its {name} is {old[name]}, and here it is {new[name]}" for name in different)
        raise UserError(f"training cannot go on from {start}: {told}. Set training.start to fresh")
    return before.statistics


def _shapes(store: Store, episode: PackedEpisode, extractor: Extractor, cameras: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Of what the policy sees of one moment."""
    seen = read_parts(store, [Part(episode=episode, start=0, stop=1)], extractor, cameras).seen
    return {name: values.shape[1:] for name, values in seen.items()}


@contextmanager
def _watched(execution: Execution, day: str, steps: int) -> Iterator[None]:
    """Report the checkpoints as they appear: they are the only thing that workers say, whatever the store."""
    from ray_jobs.training import checkpoint

    over = threading.Event()

    def watch() -> None:
        told = -1
        while not over.wait(1.0):
            try:
                done = max(checkpoint.steps(execution.store, execution.prefix), default=0)
            except StoreError:
                continue  # the workers will say so themselves
            if done > told:
                execution.progress(day, "train", done, steps, "steps")
                told = done

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _publish(
    config: TrainConfig, store: Store, chosen: Selection, policy: "Policy", state: "State", resumed: int, counts: dict[str, int], seconds: float
) -> DayResult:
    from ray_jobs.training.model import Lineage, write_model

    metrics = {"loss": state.curve[-1][1], "first_loss": state.curve[0][1]}
    lineage = Lineage(
        model="",
        datasets=tuple(_lineage(config, chosen)),
        settings=config.settings.model_dump(),
        code=None,
        versions={name: version(name) for name in ("ray", "torch", "numpy")},
        metrics=metrics,
        steps=state.step,
        resumed_from_step=resumed,
        seconds=round(seconds, 2),
        selection=chosen.told,
        started_from=config.start,
        tuned=config.tuned,
    )
    prefix = write_model(store, policy, lineage)
    return DayResult(
        counts={**counts, "steps": state.step, "episodes": len(chosen.train), "frames": sum(episode.length for episode in chosen.train)},
        output={"model": prefix, "lineage": f"{prefix}/lineage.json"},
        output_digest=prefix.rsplit("/", 1)[1],
        shown={
            "training_curve": Shown(type="md", value=curve_picture({"loss": state.curve})),
            "selection": Shown(type="md", value=selection_table(chosen.told)),
            "started_from": Shown(type="text", value=config.start or _fresh(config)),
            **({"tuned": Shown(type="text", value=config.tuned.evidence)} if config.tuned else {}),
            "loss": Shown(type="float", value=metrics["loss"]),
            "resumed_from_step": Shown(type="int", value=resumed),
            "seconds": Shown(type="float", value=round(seconds, 2)),
        },
    )


def _fresh(config: TrainConfig) -> str:
    return "fresh weights: there is no champion of an earlier day" if config.settings.start == "champion" else "fresh weights"


def _lineage(config: TrainConfig, chosen: Selection) -> Iterator["LineageDataset"]:
    from ray_jobs.training.model import LineageDataset

    of: dict[str, tuple[list[PackedEpisode], list[PackedEpisode]]] = {dataset.prefix: ([], []) for dataset in config.view}
    for role, episodes in enumerate((chosen.train, chosen.held_out)):
        for episode in episodes:
            of["/".join(episode.dataset.split("/")[:2])][role].append(episode)  # below it lies a folder for each shape
    for dataset in config.view:
        trained, held_out = of[dataset.prefix]
        yield LineageDataset(
            day=dataset.day,
            prefix=dataset.prefix,
            manifest_sha256=dataset.manifest_sha256,
            trained_on=tuple(episode.episode_id for episode in trained),
            held_out=tuple(episode.episode_id for episode in held_out),
            uploads=tuple(sorted({episode.upload for episode in (*trained, *held_out)})),
        )
