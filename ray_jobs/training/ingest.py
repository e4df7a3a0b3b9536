"""From a view of day datasets to training rows: which episodes, which are held out, and how one is read."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from pydantic import TypeAdapter

from ray_jobs.packing.video import CorruptVideo
from ray_jobs.packing.view import PackedEpisode, episodes_of, iter_frames, read_rows
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store
from ray_jobs.training.features import Extractor, Observation
from ray_jobs.training.samples import Moments, join, moments

FRAMES_AT_ONCE = 64  # decoded frames in memory, whatever an episode's length


@dataclass(frozen=True)
class Selection:
    """Episodes of one shape (state, action and cameras by name). `other_shape` counts those that do not have it."""

    train: tuple[PackedEpisode, ...]
    held_out: tuple[PackedEpisode, ...]
    other_shape: int

    @property
    def cameras(self) -> tuple[str, ...]:
        """By name."""
        return tuple(sorted((self.train or self.held_out)[0].cameras))


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


class Part(Strict):
    """Moments [start, stop) of a packed episode."""

    episode: PackedEpisode
    start: int
    stop: int

    @staticmethod
    def whole(episode: PackedEpisode) -> "Part":
        return Part(episode=episode, start=0, stop=episode.length)

    @staticmethod
    def listing(parts: Sequence["Part"]) -> str:
        return _PARTS.dump_json(list(parts)).decode()

    @staticmethod
    def listed(text: str) -> list["Part"]:
        return _PARTS.validate_json(text)


_PARTS = TypeAdapter(list[Part])


def read_parts(store: Store, parts: Iterable[Part], extractor: Extractor, cameras: tuple[str, ...]) -> Moments:
    """Their rows, with the moments around them that windows reach. Raises DataError, naming the file, where one cannot be read."""
    return join(_read(store, part, extractor, cameras) for part in parts)


def _read(store: Store, part: Part, extractor: Extractor, cameras: tuple[str, ...]) -> Moments:
    episode = part.episode
    start, stop = max(0, part.start + 1 - extractor.window), min(episode.length, part.stop + extractor.chunk - 1)
    file = episode.file
    try:
        state, action = read_rows(store, episode, start, stop)
        frames = {}
        for camera in cameras:
            file = episode.cameras[camera].file
            frames[camera] = iter_frames(store, episode, camera, start, stop)
        seen = observed(extractor, state, frames)
    except CorruptVideo as error:
        raise DataError(f"{file} cannot be decoded ({error}): copy or pack {episode.day} again") from error
    except (OSError, ValueError, KeyError) as error:  # Arrow's errors are ValueError and OSError
        raise DataError(f"{file} cannot be read ({str(error).splitlines()[0][:200]}): copy or pack {episode.day} again") from error
    return moments(seen, action, slice(part.start - start, part.stop - start))


def observed(extractor: Extractor, states: np.ndarray, frames: dict[str, Iterator[np.ndarray]]) -> Observation:
    """Of states [n, d] and as many frames uint8 [h, w, 3] of each camera, a few of them in memory at a time."""
    parts = []
    for start in range(0, len(states), FRAMES_AT_ONCE):
        piece = states[start : start + FRAMES_AT_ONCE].astype(np.float32)
        parts.append(extractor.observe(piece, {camera: np.stack(list(islice(pictures, len(piece)))) for camera, pictures in frames.items()}))
    for pictures in frames.values():
        next(pictures, None)  # lets the reader count them
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
