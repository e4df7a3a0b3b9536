"""Small pictures for networks that look, in NumPy alone: the same numbers where episodes are decoded and where a policy acts."""

from functools import lru_cache

import numpy as np

SIDE_PX = 64
PICTURE = "picture:"  # and the camera's name


def observe_pictures(states: np.ndarray, frames: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """state f32 [n, d], and of each camera picture:NAME uint8 [n, 64, 64, 3] RGB, whatever the size of its frames uint8 [n, h, w, 3].

    Raises ValueError where frames are anything else.
    """
    pictures = {f"{PICTURE}{camera}": shrunk(seen, SIDE_PX) for camera, seen in sorted(frames.items())}
    return {"state": states.astype(np.float32), **pictures}


def shrunk(frames: np.ndarray, side: int) -> np.ndarray:
    """uint8 [n, side, side, 3]. A new pixel is the mean of the area that it covers; what is not square is stretched, so that nothing is cut off."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames have to be uint8 [n, h, w, 3], not {frames.dtype} {list(frames.shape)}")
    count, height, width, _ = frames.shape
    if height == width == side:
        return frames
    down, across = _cover(height, side), _cover(width, side)
    made = np.empty((count, side, side, 3), np.uint8)
    for number, frame in enumerate(frames):  # one by one: as f32, a block of frames takes four times its memory
        rows = (down @ frame.reshape(height, -1).astype(np.float32)).reshape(side, width, 3)
        made[number] = np.rint(across @ rows)
    return made


@lru_cache(maxsize=16)
def _cover(size: int, side: int) -> np.ndarray:
    """f32 [side, size]: the share that each old pixel has in each new one."""
    edges = np.linspace(0, size, side + 1)
    old = np.arange(size)
    share = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    share = np.clip(share, 0, None)
    return (share / share.sum(axis=1, keepdims=True)).astype(np.float32)
