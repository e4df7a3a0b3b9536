"""Synthetic copies of kept episodes: the same joints and actions under other light, a little out of focus, from a little aside.

Off unless PackConfig.augment says otherwise. What is drawn follows from the seed and the episode's id alone. A copy is marked in every row
of the data, in meta/episodes and in its provenance, with the episode it was made of; it is never held out, and never made of one that is
(ray_jobs/training/selection.py).
"""

import hashlib
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from ray_jobs.seam.configs import AugmentSettings
from ray_jobs.seam.model import Strict, canonical

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601


class Recipe(Strict):
    """What is done to every frame of one copy, of every camera alike.

    brightness, contrast, colour: factors, of each value, of its distance from middle grey, and of its distance from the pixel's own grey.
    blur_px: Gaussian, at the recording's size. crop: share of each side that is cut away; right, down: where the rest lies, in [0, 1].
    """

    brightness: float
    contrast: float
    colour: float
    blur_px: float
    crop: float
    right: float
    down: float


def expand(rows: list[dict[str, Any]], settings: AugmentSettings | None) -> list[dict[str, Any]]:
    """Each row followed by its copies: rows with an id of their own, `source_episode_id`, and `recipe`."""
    if settings is None:
        return rows
    return [each for row in rows for each in (row, *(_copy(row, settings, number) for number in range(settings.copies)))]


def source_of(row: dict[str, Any]) -> str:
    """The recorded episode that a row is, or was made of."""
    return str(row.get("source_episode_id") or row["episode_id"])


def _copy(row: dict[str, Any], settings: AugmentSettings, number: int) -> dict[str, Any]:
    recipe = draw(row["episode_id"], settings, number)
    name = hashlib.sha256(f"synthetic/{row['episode_id']}/{number}/{canonical(recipe)}".encode()).hexdigest()[:32]
    return {**row, "episode_id": name, "source_episode_id": row["episode_id"], "recipe": recipe}


def draw(episode_id: str, settings: AugmentSettings, number: int) -> Recipe:
    """The recipe of an episode's copy `number`, to four digits."""
    seed = hashlib.sha256(f"{settings.seed}/{episode_id}/{number}".encode()).digest()
    shares = np.frombuffer(seed[:28], "<u4") / 2**32  # in [0, 1): no generator whose stream a new version may change
    brightness, contrast, colour = (round(1 + most * (2 * share - 1), 4) for share, most in zip(shares, _factors(settings), strict=False))
    blur, crop, right, down = (float(share) for share in shares[3:])
    return Recipe(
        brightness=brightness,
        contrast=contrast,
        colour=colour,
        blur_px=round(settings.blur_px * blur, 4),
        crop=round(settings.crop * crop, 4),
        right=round(right, 4),
        down=round(down, 4),
    )


def _factors(settings: AugmentSettings) -> tuple[float, float, float]:
    return settings.brightness, settings.contrast, settings.colour


def apply(recipe: Recipe, frame: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] RGB of the same size."""
    height, width = frame.shape[:2]
    picture = Image.fromarray(frame)
    if recipe.crop:
        left, top = recipe.crop * recipe.right * width, recipe.crop * recipe.down * height
        box = (left, top, left + (1 - recipe.crop) * width, top + (1 - recipe.crop) * height)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if recipe.blur_px:
        picture = picture.filter(ImageFilter.GaussianBlur(recipe.blur_px))
    values: np.ndarray = np.asarray(picture, np.float32)
    grey = (values @ LUMA)[..., None]
    values = grey + recipe.colour * (values - grey)
    values = (127.5 + recipe.contrast * (values - 127.5)) * recipe.brightness
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
