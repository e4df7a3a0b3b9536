"""Numbers of single pictures: light, change, sharpness, colour; small copies of them. No joints, no clocks."""

import io

import numpy as np
from PIL import Image

BACKGROUND = 32  # the background descriptor is this many pixels square
GRID = 8  # cells a side of the small grey that every frame leaves
STRIP = 5
THUMB_HEIGHT = 64
BLOCK = 8
CHUNK = 32


def grey(*runs: np.ndarray) -> np.ndarray:
    """Runs of frames, [n, h, w, 3] u8 each, one after the other -> [n, h, w] u8, Rec. 601 luma."""
    runs = tuple(frames for frames in runs if len(frames)) or runs[:1]
    out = np.empty((sum(len(frames) for frames in runs), *runs[0].shape[1:3]), np.uint8)
    done = 0
    for frames in runs:
        for first in range(0, len(frames), CHUNK):  # in pieces that stay in the cache
            part = frames[first : first + CHUNK].astype(np.uint16)
            out[done + first : done + first + len(part)] = (part[..., 0] * 77 + part[..., 1] * 150 + part[..., 2] * 29) >> 8
        done += len(frames)
    return out


def shrink(pictures: np.ndarray, size: int) -> np.ndarray:
    """[n, h, w] -> [n, size, size] by area means (nearest where the picture is smaller)."""
    height, width = pictures.shape[1:]
    rows = np.minimum(np.arange(size + 1) * height // size, height - 1)
    columns = np.minimum(np.arange(size + 1) * width // size, width - 1)
    summed = np.empty((len(pictures), size, size), np.float32)
    for first in range(0, len(pictures), CHUNK):
        part = pictures[first : first + CHUNK].astype(np.float32)
        summed[first : first + CHUNK] = np.add.reduceat(np.add.reduceat(part, rows[:-1], axis=1), columns[:-1], axis=2)
    counts = np.maximum(np.diff(np.append(rows[:-1], height)), 1)[:, None] * np.maximum(np.diff(np.append(columns[:-1], width)), 1)[None, :]
    return np.asarray(summed / counts, dtype=np.float32)


def per_frame(lumas: np.ndarray, lead: int) -> dict[str, np.ndarray]:
    """lumas [n, h, w] u8, of which the first `lead` (0 or 1) only serve as predecessor -> f32 [n - lead] each.

    change: mean absolute difference to the frame before (NaN for an episode's first); local: the same of the 8x8 block that changed
    most; light, contrast: mean and deviation; bright: share of pixels above 250; sharp: variance of the Laplacian; plain: share of pixels
    whose Laplacian is 0 (painted areas); across: mean absolute step from row to row over that from column to column.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("change", "local", "light", "contrast", "bright", "sharp", "plain", "across")}
    for first in range(lead, len(lumas), CHUNK):
        own = lumas[first : first + CHUNK]
        wide = own.astype(np.int16)
        before = lumas[max(first - 1, 0) : first + len(own) - 1].astype(np.int16)
        moved = np.abs(wide[len(own) - len(before) :] - before)
        unknown = np.full(len(own) - len(before), np.nan)
        found["change"].append(np.concatenate([unknown, moved.mean(axis=(1, 2))]))
        found["local"].append(np.concatenate([unknown, blocks(moved)]))
        found["light"].append(own.mean(axis=(1, 2)))
        found["contrast"].append(own.std(axis=(1, 2), dtype=np.float32))
        found["bright"].append((own > 250).mean(axis=(1, 2)))
        down, right = np.diff(wide, axis=1), np.diff(wide, axis=2)
        bend = np.diff(down, axis=1)[:, :, 1:-1] + np.diff(right, axis=2)[:, 1:-1, :]
        found["sharp"].append(bend.var(axis=(1, 2), dtype=np.float32) if bend.size else np.zeros(len(own)))
        found["plain"].append((bend == 0).mean(axis=(1, 2)) if bend.size else np.zeros(len(own)))
        found["across"].append((np.abs(down).mean(axis=(1, 2)) + 0.1) / (np.abs(right).mean(axis=(1, 2)) + 0.1))
    return {name: np.concatenate(parts).astype(np.float32) for name, parts in found.items()}


def blocks(moved: np.ndarray) -> np.ndarray:
    """[n, h, w] -> [n]: the largest mean over any 8x8 block (over the whole picture where it is smaller)."""
    count, height, width = moved.shape
    if height < BLOCK or width < BLOCK:
        return np.asarray(moved.mean(axis=(1, 2)))
    whole = moved[:, : height // BLOCK * BLOCK, : width // BLOCK * BLOCK]
    tiles = whole.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK).sum(axis=2, dtype=np.int32).sum(axis=3)
    return np.asarray(tiles.max(axis=(1, 2)) / BLOCK**2)


def laplacian_variance(lumas: np.ndarray) -> np.ndarray:
    """[n, h, w] -> f32 [n]; 0 where a picture is smaller than 3x3."""
    if min(lumas.shape[1:]) < 3:
        return np.zeros(len(lumas), np.float32)
    wide = lumas.astype(np.float32)
    bend = 4 * wide[:, 1:-1, 1:-1] - wide[:, :-2, 1:-1] - wide[:, 2:, 1:-1] - wide[:, 1:-1, :-2] - wide[:, 1:-1, 2:]
    return np.asarray(bend.var(axis=(1, 2)))


def crispness(lumas: np.ndarray) -> np.ndarray:
    """[n, h, w] -> f32 [n]: variance of the Laplacian over that of the picture at half size. Blur takes the finest octave first, noise adds to it."""
    count, height, width = lumas.shape
    half = lumas[:, : height // 2 * 2, : width // 2 * 2].reshape(count, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    return np.asarray((laplacian_variance(lumas) + 0.1) / (laplacian_variance(half) + 1.0))


def thumbs(frames: np.ndarray) -> np.ndarray:
    """[n, 64, w, 3] u8."""
    height, width = frames.shape[1:3]
    size = (max(1, round(width * THUMB_HEIGHT / height)), THUMB_HEIGHT)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)) for frame in frames])


def palette(pictures: np.ndarray) -> np.ndarray:
    """[n, h, w, 3] -> [8 * 8 * 3]: how far each channel of each cell lies from the cell's grey, as a share of the picture's mean: no light, only colour."""
    cells = np.stack([shrink(pictures[..., channel], GRID).mean(axis=0) for channel in range(3)], axis=-1)
    return np.asarray((cells - cells.mean(axis=-1, keepdims=True)) / max(float(cells.mean()), 10.0)).ravel()


def strip(pictures: np.ndarray) -> bytes:
    """Five small frames side by side, as JPEG (some 10 kB)."""
    picks = pictures[np.linspace(0, len(pictures) - 1, STRIP).round().astype(int)]
    sink = io.BytesIO()
    Image.fromarray(np.concatenate(list(picks), axis=1)).save(sink, "JPEG", quality=70)
    return sink.getvalue()
