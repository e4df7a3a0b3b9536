"""From a view of day datasets to training rows: which episodes, which are held out, and how one is read."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ray_jobs.packing.video import CorruptVideo
from ray_jobs.packing.view import PackedEpisode, episodes_of, iter_frames, read_episode_arrays
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store
from ray_jobs.training.features import Extractor
from ray_jobs.training.samples import Samples, episode_samples

FRAMES_AT_ONCE = 64  # decoded frames in memory, whatever an episode's length


@dataclass(frozen=True)
class Selection:
    """Episodes of one shape (state, action and cameras by name). `other_shape` counts those that do not have it."""

    train: tuple[PackedEpisode, ...]
    held_out: tuple[PackedEpisode, ...]
    other_shape: int

    @property
    def camera(self) -> str | None:
        """The camera that the policy sees: the first by name."""
        return min((self.train or self.held_out)[0].cameras, default=None)


def is_held_out(episode_id: str, every: int) -> bool:
    """True for about one episode in `every` (0: none), by its id alone: the same in every view and for every model."""
    return every > 0 and int(hashlib.sha256(episode_id.encode()).hexdigest()[:8], 16) % every == 0


def select(store: Store, view: Iterable[DayDataset], every: int) -> Selection:
    """The view's episodes that have actions, of the commonest shape. A synthetic copy is never held out, nor trained on where its source is held out.

    Raises NotFound or DataError for a dataset that is not whole."""
    episodes = [episode for dataset in view for episode in episodes_of(store, dataset) if episode.action_names]
    shapes = Counter(_shape(episode) for episode in episodes)
    if not shapes:
        return Selection((), (), 0)
    chosen = min(shapes, key=lambda shape: (-shapes[shape], shape))
    fitting = [episode for episode in episodes if _shape(episode) == chosen]
    return Selection(
        train=tuple(episode for episode in fitting if not is_held_out(episode.source_episode_id, every)),
        held_out=tuple(episode for episode in fitting if not episode.synthetic and is_held_out(episode.source_episode_id, every)),
        other_shape=len(episodes) - len(fitting),
    )


def _shape(episode: PackedEpisode) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return episode.state_names, episode.action_names, tuple(sorted(episode.cameras))


def read_samples(store: Store, episode: PackedEpisode, extractor: Extractor, camera: str | None) -> Samples:
    """The rows of one packed episode, in flat memory. Raises DataError, naming the file, where it cannot be read."""
    try:
        without_frames = episode.model_copy(update={"cameras": {}})
        arrays = read_episode_arrays(store, _nowhere(episode), without_frames)
        if camera is None:
            seen = extractor.features(arrays.state, None)
        else:
            seen = features_of(extractor, arrays.state, iter_frames(store, episode, camera))
    except CorruptVideo as error:
        raise DataError(f"{episode.cameras[camera or ''].file} cannot be decoded ({error}): copy or pack {episode.day} again") from error
    except (OSError, ValueError, KeyError) as error:  # Arrow's errors are ValueError and OSError
        raise DataError(f"{episode.file} cannot be read ({str(error).splitlines()[0][:200]}): copy or pack {episode.day} again") from error
    return episode_samples(extractor.chunk, seen, arrays.action)


def features_of(extractor: Extractor, states: np.ndarray, frames: Iterator[np.ndarray]) -> np.ndarray:
    """f32 [n, f] of states [n, d] and as many frames uint8 [h, w, 3], a few of them in memory at a time."""
    parts = []
    for start in range(0, len(states), FRAMES_AT_ONCE):
        piece = states[start : start + FRAMES_AT_ONCE].astype(np.float32)
        parts.append(extractor.features(piece, np.stack(list(islice(frames, len(piece))))))
    next(frames, None)  # lets the reader count them
    return np.concatenate(parts)


def _nowhere(episode: PackedEpisode) -> DayDataset:
    return DayDataset(day=episode.day, prefix=episode.dataset, manifest_sha256="", episodes=0, frames=0)
