"""The tasks of the study: read normalised episodes as the packer would, train an arm with one seed, and roll it out.

All arms are read, trained and evaluated by the same code: the extraction, loop and evaluator of training and evaluation.
The one difference to `policy`: an arm trains in one process with whole batches, `policy` in several that average their gradients.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.alignment import align
from ray_jobs.episode import open_clip, read_episode
from ray_jobs.packing.video import CorruptVideo, decoded
from ray_jobs.seam.configs import EvaluateSettings, TrainSettings
from ray_jobs.seam.errors import DataError, FlywheelError, NotFound, StoreError
from ray_jobs.seam.proportions import wilson
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.features import find_extractor
from ray_jobs.training.ingest import observed
from ray_jobs.training.samples import Moments, moments

Shape = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # state names, action names, cameras that the policy sees
Read = tuple[Shape, Moments] | str  # or why it cannot be read


def extract(config: StoreConfig, episodes: list[str], policy: str) -> dict[str, Read]:
    """Episode id -> its samples, or one line that says why there are none. Raises StoreError where the store fails."""
    store = Store(config)
    return {episode: _read(store, episode, policy) for episode in episodes}


def _read(store: Store, episode_id: str, policy: str) -> Read:
    extractor = find_extractor(policy)
    try:
        episode = read_episode(store, episode_id)
        aligned = align(episode, max(1, round(episode.meta.fps)))
        if aligned.action is None or not aligned.action.shape[1]:
            return "it has no actions"
        if not len(aligned.t_s):
            return "its streams have no time in common"
        cameras = extractor.chosen(aligned.frame_index)
        with ExitStack() as clips:
            frames = {}
            for camera in cameras:
                path = clips.enter_context(open_clip(store, episode_id, camera))
                frames[camera] = _frames(path, episode.meta.cameras[camera].lead_in, aligned.frame_index[camera])
            seen = observed(extractor, np.asarray(aligned.state, np.float32), frames)
        return (episode.meta.state_names, episode.meta.action_names, cameras), moments(seen, np.asarray(aligned.action))
    except (DataError, NotFound) as error:
        return str(error)
    except StoreError:
        raise
    except ValueError as error:
        return str(error).splitlines()[0]


def _frames(path: Path, lead_in: int, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The wanted frames (not decreasing, repeats allowed) as uint8 [h, w, 3]."""
    number, index = 0, -1 - lead_in
    for frame in decoded(path):
        index += 1
        if number < len(wanted) and wanted[number] == index:
            pixels = frame.to_ndarray(format="rgb24")
            while number < len(wanted) and wanted[number] == index:
                yield pixels
                number += 1
        if number == len(wanted):
            return
    raise CorruptVideo(f"{path.name}: has no frame {int(wanted[number])}, which the recording says it has")


def run_arm(samples: dict[str, Moments], episodes: list[str], shape: Shape, training: TrainSettings, evaluation: EvaluateSettings) -> dict[str, Any] | str:
    """Train on these episodes for training.steps and roll out on the seeds of `evaluation`; what `arms` says of one training seed.

    A text where training failed as it would for the user: an arm of damaged data may well do so.
    """
    import torch

    from ray_jobs.evaluation.evaluator import build_evaluator
    from ray_jobs.evaluation.scores import TrialScore, summary
    from ray_jobs.training.loop import learn
    from ray_jobs.training.model import content_hash

    torch.set_num_threads(1)
    parts = [samples[episode] for episode in episodes]
    try:
        policy, state = learn(training.policy, parts, training, len(shape[0]), shape[2])
    except FlywheelError as error:
        return str(error)
    evaluator = build_evaluator(evaluation)
    assert evaluator is not None
    trials = {}
    for scene in evaluator.scenes():
        policy.reset()
        if (trial := evaluator.trial(policy, scene, False)) is not None:
            trials[scene.id] = TrialScore(success=trial.success, seconds=trial.seconds)
    if not trials:
        return "the evaluator has no trial of it"
    told = summary(f"unpublished/{content_hash(policy)}", trials)
    return {**told, "episodes": len(parts), "frames": sum(map(len, parts)), "steps": state.step, "loss": state.curve[-1][1]}


def pooled(found: dict[int, dict[str, Any] | str]) -> dict[str, Any] | str:
    """One arm over its training seeds: training seed -> what `run_arm` said. A text where a seed could not be trained:
    the mean of the others would flatter the arm.

    Every seed rolls out equally often, so the rate is the mean over seeds. low and high are the Wilson 95 % interval of all
    rollouts taken as independent. They are not: all policies face the same scenes. So the interval describes the policies of
    these training seeds; how far another training seed may lie from them is seen from the rates of the seeds alone.
    """
    seeds: dict[str, dict[str, Any]] = {}
    for seed, told in found.items():
        if isinstance(told, str):
            return f"with training seed {seed}: {told}"
        seeds[str(seed)] = told
    rollouts, successes = (sum(told[name] for told in seeds.values()) for name in ("rollouts", "successes"))
    low, high = wilson(successes, rollouts)
    first = next(iter(seeds.values()))
    frames = round(sum(told["frames"] for told in seeds.values()) / len(seeds))
    counts = {"episodes": first["episodes"], "frames": frames, "steps": first["steps"]}
    return {**counts, "rollouts": rollouts, "successes": successes, "rate": successes / rollouts, "low": low, "high": high, "training_seeds": seeds}
