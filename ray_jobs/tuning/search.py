"""What is searched: which settings are tried on which episodes, when a trial may be stopped, and which one was best. Pure."""

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np

from ray_jobs.packing.view import PackedEpisode
from ray_jobs.seam.configs import TrainSettings, TuningSettings
from ray_jobs.seam.model import Strict, digest

POINTS = 9  # at least so many errors are measured of a trial that is never stopped, for its curve


class Candidate(Strict):
    """The settings of one trial that others do not share."""

    learning_rate: float
    batch: int
    policy: str

    def apply(self, training: TrainSettings, steps: int) -> TrainSettings:
        return training.model_copy(update={**self.model_dump(), "steps": steps})


class Trial(Strict):
    """How it went. points: (step, mean action error over the held-out episodes). failed: why training ended by itself."""

    candidate: Candidate
    points: tuple[tuple[int, float], ...] = ()
    failed: str | None = None

    @property
    def error(self) -> float | None:
        return self.points[-1][1] if self.points else None

    @property
    def step(self) -> int:
        return self.points[-1][0] if self.points else 0


def drawn(settings: TuningSettings, training: TrainSettings) -> list[Candidate]:
    """The settings as they stand, then as many as make up `trials`, each drawn from the seed and its number alone; no two are equal.

    Where the choices give fewer different ones, there are fewer.
    """
    found = [Candidate(learning_rate=training.learning_rate, batch=training.batch, policy=training.policy)]
    for number in range(1, 10 * settings.trials):
        if len(found) == settings.trials:
            break
        draw = np.random.default_rng([settings.seed, number])
        rate = float(np.exp(draw.uniform(*np.log(settings.learning_rate))))
        batch, policy = (choices[int(draw.integers(len(choices)))] for choices in (settings.batch, settings.policy or (training.policy,)))
        candidate = Candidate(learning_rate=float(f"{rate:.3g}"), batch=int(batch), policy=str(policy))
        if candidate not in found:
            found.append(candidate)
    return found


def some(episodes: Sequence[PackedEpisode], share: float) -> tuple[PackedEpisode, ...]:
    """A share of the recorded episodes, rounded up, by the hashes of their ids, each with its copies; in the order given."""
    sources = sorted({episode.source_episode_id for episode in episodes}, key=lambda name: hashlib.sha256(f"tuning/{name}".encode()).digest())
    chosen = set(sources[: math.ceil(share * len(sources))])
    return tuple(episode for episode in episodes if episode.source_episode_id in chosen)


def rungs(settings: TuningSettings) -> list[int]:
    """Steps at which a trial may be stopped, the earliest first."""
    first = settings.steps // settings.reduction**settings.rungs
    return [first * settings.reduction**number for number in range(settings.rungs)]


def measured_at(settings: TuningSettings) -> list[int]:
    """Steps after which the error is measured: evenly spaced, every rung, and the last."""
    even = {round(settings.steps * number / POINTS) for number in range(1, POINTS + 1)}
    return sorted({step for step in even if step} | set(rungs(settings)) | {settings.steps})


def best(trials: Iterable[Trial], steps: int) -> Trial | None:
    """The least error of those that were trained to the end; of equals the one that comes first. None where there is none."""
    whole = [trial for trial in trials if trial.step == steps and trial.error is not None and math.isfinite(trial.error)]
    return min(whole, key=lambda trial: trial.error or 0.0, default=None)


def key(prefix: str, trial: Candidate, subject: str) -> str:
    """Where an execution notes how a trial of `subject` goes."""
    return f"{prefix}/trials/{digest(subject, trial)[:16]}.json"
