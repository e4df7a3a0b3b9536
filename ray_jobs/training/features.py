"""What a policy sees of a frame: two colour blobs and a thumbnail. NumPy alone, so that whoever extracts needs no torch."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ray_jobs.training.mistakes import by_the_author_of
from ray_jobs.training.policies.pictures import observe_pictures

BLOB_WIDTH = 8
THUMB_PX = 6
THUMB_WIDTH = THUMB_PX * THUMB_PX * 3
FRAME_WIDTH = BLOB_WIDTH + THUMB_WIDTH
MIN_PIXELS = 3  # fewer are noise of the codec


Observation = dict[str, np.ndarray]  # name -> [n, ...]: f32 [n, k] are normalised by the statistics, uint8 are small pictures


@dataclass(frozen=True)
class Extractor:
    """What a policy makes of an episode: states f32 [n, d] and RGB frames (camera -> uint8 [n, h, w, 3]) -> an Observation; and how much of it at once."""

    observe: Callable[[np.ndarray, dict[str, np.ndarray]], Observation]
    chunk: int
    window: int = 1
    cameras: Literal["first", "all"] = "first"

    def chosen(self, cameras: Iterable[str]) -> tuple[str, ...]:
        """Those that the policy sees, by name."""
        return tuple(sorted(cameras)[: 1 if self.cameras == "first" else None])


def keypoint_features(states: np.ndarray, frames: dict[str, np.ndarray]) -> Observation:
    """features f32 [n, d + FRAME_WIDTH], or [n, d] without a camera: state, blobs, thumbnail."""
    seen = [frame_features(pictures) for pictures in frames.values()]
    return {"features": np.concatenate([states.astype(np.float32), *seen], axis=1)}


def frame_features(frames: np.ndarray) -> np.ndarray:
    """[n, FRAME_WIDTH] f32 of RGB frames uint8 [n, h, w, 3]: blobs, then thumbnail."""
    return np.concatenate([blobs(frames), thumbnails(frames)], axis=1)


def blobs(frames: np.ndarray) -> np.ndarray:
    """[n, 8] f32: centre across and down (-1 .. 1), square root of the share of pixels, seen (0 or 1); of red, then of green.

    A blob that is not seen has only zeros. A colour counts where it is well above both other channels, which holds
    over changes of light and through 4:2:0 video.
    """
    red, green, blue = (frames[..., channel].astype(np.int16) for channel in range(3))
    masks = (
        (red > 60) & (red * 10 > green * 17) & (red * 10 > blue * 17),
        (green > 60) & (green * 10 > red * 17) & (green * 10 > blue * 15),
    )
    return np.concatenate([_centre(mask) for mask in masks], axis=1)


def _centre(mask: np.ndarray) -> np.ndarray:
    count, height, width = mask.shape
    pixels = mask.sum(axis=(1, 2))
    seen = pixels >= MIN_PIXELS
    weight = np.maximum(pixels, 1)
    across = (mask.sum(axis=1) @ np.linspace(-1, 1, width)) / weight
    down = (mask.sum(axis=2) @ np.linspace(-1, 1, height)) / weight
    size = np.sqrt(pixels / (height * width))
    return (np.stack([across, down, size, np.ones(count)], axis=1) * seen[:, None]).astype(np.float32)


def thumbnails(frames: np.ndarray) -> np.ndarray:
    """[n, 108] f32 in 0 .. 1: mean colours of a 6 x 6 grid; what is left over at the right and bottom is cut off."""
    count, height, width, _ = frames.shape
    high, wide = max(height // THUMB_PX, 1), max(width // THUMB_PX, 1)
    cut = frames[:, : high * THUMB_PX, : wide * THUMB_PX]
    if cut.shape[1:3] != (high * THUMB_PX, wide * THUMB_PX):
        raise ValueError(f"a frame of {width} x {height} is smaller than {THUMB_PX} x {THUMB_PX} pixels")
    means = cut.reshape(count, THUMB_PX, high, THUMB_PX, wide, 3).mean(axis=(2, 4), dtype=np.float32) / 255
    return means.reshape(count, THUMB_WIDTH)


KEYPOINTS = Extractor(keypoint_features, chunk=4)
CNN_SEES = Extractor(observe_pictures, chunk=6, cameras="all")
ACT_SEES = Extractor(observe_pictures, chunk=8, cameras="all")
BUILT_IN = {"keypoints": KEYPOINTS, "cnn": CNN_SEES, "act": ACT_SEES}


def find_extractor(policy: str) -> Extractor:
    """Of a policy by its name in the settings; only a policy of the user's own is imported. Raises UserError."""
    if policy in BUILT_IN:
        return BUILT_IN[policy]
    with _whole():
        from ray_jobs.training.policy import find_policy

    kind = find_policy(policy)
    return Extractor(by_the_author_of(policy)(kind.observe), kind.chunk, kind.window, kind.cameras)


@contextmanager
def _whole() -> Iterator[None]:
    """Around the import of torch: SIGINT, which is how Ray cancels a task, waits until it is done.

    A process that was interrupted while torch's C++ part started cannot import it again: the next task there fails ("bad call flags") or crashes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # SIGINT never ends anything but the main thread
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)
