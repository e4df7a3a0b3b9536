"""Step "tuning": many short trainings on some of the view's episodes, the poorer ones stopped early, and the best one's settings.

Which settings are tried, on which episodes, and every number of a trial follow from the settings and the view. Where a trial is stopped does not where
several run at a time: a rung compares a trial with those that came there before it.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ray_jobs.driver import Execution, connect
from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.configs import Tuned, TuningConfig
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.model import canonical, digest
from ray_jobs.seam.results import DayResult, Shown
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.features import find_extractor
from ray_jobs.training.ingest import Part, read_parts
from ray_jobs.training.present import selection_table
from ray_jobs.training.selection import Selection, nothing_left, select
from ray_jobs.tuning.present import curves, table
from ray_jobs.tuning.search import Candidate, Trial, best, drawn, rungs, some

if TYPE_CHECKING:
    from ray_jobs.training.samples import Moments

MOMENTS_PER_TASK = 1200
HELD_OUT = 64  # episodes that each trial is asked about, at most


def run(config: TuningConfig, execution: Execution) -> dict[str, DayResult]:
    """One result, for the last of the days; without a best one where there is nothing to learn from or to compare on, or every trial failed.

    Raises UserError for an unknown policy, tag or score, and where the decoded episodes are too many; DataError for a dataset that is not whole.
    """
    started = time.monotonic()
    day, settings = config.days[-1], config.settings
    candidates = drawn(settings, config.training)
    for policy in {each.policy for each in candidates}:
        find_extractor(policy)
    chosen = select(Store(config.data), config.view, config.training.selection)
    train, held_out = some(chosen.train, settings.episodes), some(chosen.held_out, min(1.0, HELD_OUT / max(1, len(chosen.held_out))))
    counts = {"trials": len(candidates), "episodes": len(train), "held_out": len(held_out)}
    shown = {"selection": Shown(type="md", value=selection_table(chosen.told))}
    if not train or not held_out:
        reason = "no episode is held out to compare trials on: set training.holdout, or wait for more episodes" if train else nothing_left(chosen.told)
        return {day: DayResult(reason=reason, counts=counts, output={"best": None}, output_digest=digest(None), shown=shown)}
    connect()
    trials = _trials(config, execution, chosen, train, held_out, candidates)
    winner = best(trials, settings.steps)
    evidence = {
        "view": [dataset.model_dump() for dataset in config.view],
        "training": config.training.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
        "selection": chosen.told.model_dump(),
        "episodes": [episode.episode_id for episode in train],
        "held_out": [episode.episode_id for episode in held_out],
        "trials": [trial.model_dump() for trial in trials],
    }
    key = f"tunings/{digest(evidence)[:32]}.json"
    execution.store.put(key, canonical(evidence).encode())
    as_set = trials[0].error if trials[0].step == settings.steps else None
    told = None
    if winner is not None and winner.error is not None:
        told = Tuned(day=day, evidence=key, trials=len(trials), error=winner.error, error_as_set=as_set, **winner.candidate.model_dump())
    counts |= {"stopped": sum(not trial.failed and trial.step < settings.steps for trial in trials), "failed": sum(bool(trial.failed) for trial in trials)}
    shown = {
        "trials": Shown(type="md", value=table(trials, winner, settings.steps)),
        "curves": Shown(type="md", value=curves(trials, winner, rungs(settings))),
        **shown,
        "evidence": Shown(type="text", value=key),
        "seconds": Shown(type="float", value=round(time.monotonic() - started, 2)),
    }
    failed = None if told else "every trial failed: the policies go on with the settings of `training`"
    output = {"best": told.model_dump() if told else None, "evidence": key}
    return {day: DayResult(reason=failed, counts=counts, output=output, output_digest=digest(key), shown=shown)}


def _trials(
    config: TuningConfig,
    execution: Execution,
    chosen: Selection,
    train: tuple[PackedEpisode, ...],
    held_out: tuple[PackedEpisode, ...],
    candidates: list[Candidate],
) -> list[Trial]:
    """All of them, as far as each came."""
    import ray

    from ray_jobs.tuning.asha import search
    from ray_jobs.tuning.trial import Sample, Study, noted

    passes = {episode.episode_id: weight for episode, weight in zip(chosen.train, chosen.weights, strict=True)}
    samples = {}
    for policy in sorted({each.policy for each in candidates}):
        cameras = find_extractor(policy).chosen(chosen.cameras)
        decoded = _decoded(config, execution, (*train, *held_out), policy, cameras)
        size = sum(values.nbytes for moments in decoded for values in (*moments.seen.values(), moments.actions))
        if size > config.training.resident_mb * 1_000_000:
            limit = config.training.resident_mb
            raise UserError(f"{size / 1e6:.0f} MB of decoded episodes are more than training.resident_mb ({limit}): lower tuning.episodes, or raise it")
        weights = [passes[episode.episode_id] for episode in train]
        samples[policy] = ray.put(Sample(cameras, decoded[: len(train)], weights, decoded[len(train) :]))
    study = Study(
        store=execution.store.config,
        executions=(execution.prefix, *execution.siblings()),
        subject=digest(config.training, config.settings, config.view),
        candidates=candidates,
        training=config.training,
        settings=config.settings,
        held_out=held_out,
        state_width=len(train[0].state_names),
        samples=samples,
    )
    search(study, lambda done: execution.progress(config.days[-1], "trials", done, len(candidates), "trials"))
    return [noted(execution.store, study.executions, candidate, study.subject) for candidate in candidates]


def _decoded(config: TuningConfig, execution: Execution, episodes: Sequence[PackedEpisode], policy: str, cameras: tuple[str, ...]) -> list["Moments"]:
    import ray

    from ray_jobs.training.cluster import told

    task = ray.remote(num_cpus=1)(decode)
    waiting = [task.remote(config.data, Part.listing(parts), policy, cameras) for parts in _pieces(episodes)]
    found: list[Moments] = []
    for reference in waiting:
        found += told(partial(ray.get, reference))
        execution.progress(config.days[-1], f"decode for {policy}", len(found), len(episodes))
    return found


def _pieces(episodes: Sequence[PackedEpisode]) -> Iterator[list[Part]]:
    """Whole episodes, a few seconds of decoding together."""
    piece: list[Part] = []
    for episode in episodes:
        piece.append(Part.whole(episode))
        if sum(part.stop for part in piece) >= MOMENTS_PER_TASK:
            yield piece
            piece = []
    if piece:
        yield piece


def decode(store: StoreConfig, parts: str, policy: str, cameras: tuple[str, ...]) -> list["Moments"]:
    """A task: each part by itself. Raises DataError as `read_parts` does."""
    opened, extractor = Store(store), find_extractor(policy)
    return [read_parts(opened, [part], extractor, cameras) for part in Part.listed(parts)]
