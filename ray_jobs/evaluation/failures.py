"""Failed rollouts as episodes that a person can open: a small LeRobot v3.0 dataset, made by the packer, apart from every day's data."""

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.episode import Clip, Episode, EpisodeMeta, Stream, write_episode
from ray_jobs.evaluation.evaluator import Recording, Scene, Trial, film
from ray_jobs.ingest.clips import ImageClip
from ray_jobs.packing.job import build
from ray_jobs.packing.manifest import NAME, manifest_of
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.model import digest
from ray_jobs.seam.store import Store, StoreConfig

DAY = "failures"  # no day: no view and no training ever names it


class Keeper:
    """Holds the whole recordings of the first few failures, by number, whatever the order in which trials come in; of all others a few frames."""

    def __init__(self, most: int):
        self.most = most
        self.kept: dict[int, Trial] = {}

    def take(self, number: int, trial: Trial | None) -> Trial | None:
        """The trial, made small."""
        if trial is None or trial.success or trial.recording is None:
            return trial
        self.kept[number] = trial
        if len(self.kept) > self.most:
            del self.kept[max(self.kept)]
        return replace(trial, recording=film(trial.recording))


def write_failures(store: Store, model: str, manifest: str, failed: list[tuple[Scene, Trial]]) -> DayDataset | None:
    """evaluations/<model hash>/failures-<manifest hash>/; None where no trial has frames, states and actions.

    The same trials give the same bytes. Raises StoreError.
    """
    told = [(scene, trial.recording) for scene, trial in failed if trial.recording is not None and _whole(trial.recording)]
    prefix = f"evaluations/{model.rsplit('/', 1)[-1]}/failures-{manifest}"
    try:
        with tempfile.TemporaryDirectory(prefix="failures-") as folder:
            scratch = Path(folder)
            local = Store(StoreConfig.local(scratch / "episodes"))
            rows = [_episode(local, scratch, model, manifest, scene, recording) for scene, recording in told]
            root = scratch / "dataset"
            packed = build(local, rows, root, scratch, lambda done: None)
            if not packed.writers:
                return None
            episodes, frames = (sum(getattr(writer, name) for writer in packed.writers.values()) for name in ("episodes", "frames"))
            made = manifest_of(root, DAY, episodes, frames)
            for file in made.files:
                store.put_file(f"{prefix}/{file.path}", root / file.path)
    except OSError as error:
        raise StoreError(f"cannot build the failures in the temporary folder: {error.strerror}; free or enlarge it, or set TMPDIR") from error
    store.put(f"{prefix}/{NAME}", made.to_bytes())
    return DayDataset(day=DAY, prefix=prefix, manifest_sha256=hashlib.sha256(made.to_bytes()).hexdigest(), episodes=episodes, frames=frames)


def _whole(recording: Recording) -> bool:
    return recording.fps > 0 and all(rows is not None and len(rows) == len(recording.frames) > 0 for rows in (recording.states, recording.actions))


def _episode(store: Store, folder: Path, model: str, manifest: str, scene: Scene, recording: Recording) -> dict[str, Any]:
    """Write the normalised episode; its row of EPISODES."""
    assert recording.states is not None and recording.actions is not None
    name = digest(model, manifest, scene)[:32]
    times = (np.arange(len(recording.frames)) * 1e9 / recording.fps).round().astype(np.int64)
    path = folder / f"{name}.mp4"
    clip = ImageClip(path)
    for moment, pixels in zip(times, recording.frames, strict=True):
        clip.add(pixels, "rgb24", int(moment), b"")
    made: Clip = clip.close()
    meta = EpisodeMeta(
        episode_id=name,
        robot="evaluation",
        task=scene.task or "evaluation",
        fps=recording.fps,
        state_names=recording.state_names,
        action_names=recording.action_names,
        cameras={recording.camera: made},
        source="rollout",
        upload=f"{model} scene {scene.id}",
        success=False,
        synthetic_clock=True,
    )
    streams = {
        "state": Stream(times, times, np.asarray(recording.states, np.float32)),
        "action": Stream(times, times, np.asarray(recording.actions, np.float32)),
        f"camera:{recording.camera}": Stream(times, times, np.zeros((len(times), 0), np.float32)),
    }
    write_episode(store, Episode(meta, streams), {recording.camera: path})
    return {"episode_id": name, "robot": meta.robot, "upload": meta.upload, "day": DAY, "start_ns": 0}
