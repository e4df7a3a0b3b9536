"""From packed episodes to training rows: how a piece of one is read."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from pydantic import TypeAdapter

from ray_jobs.packing.video import CorruptVideo
from ray_jobs.packing.view import PackedEpisode, iter_frames, read_rows
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store
from ray_jobs.training.features import Extractor, Observation
from ray_jobs.training.samples import Moments, join, moments

FRAMES_AT_ONCE = 64  # decoded frames in memory, whatever an episode's length


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
