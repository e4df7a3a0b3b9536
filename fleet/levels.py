"""How far a rollout's scene may differ from the lab's: light, colours, camera and sizes, drawn from the seed (domain randomisation).

Tobin et al. 2017, "Domain Randomization for Transferring Deep Neural Networks from Simulation to the Real World". Block and target lie at the same
place on every level, so that levels can be compared scene by scene.
"""

from dataclasses import dataclass

import numpy as np

from fleet.render import View


@dataclass(frozen=True)
class Level:
    """Half widths of uniform draws."""

    light: float  # of the exposure, as a share
    colour: float  # of each colour channel of each thing, as a share
    camera_rad: float  # about each of the camera's axes
    camera_m: float  # along each of the base's axes
    size: float  # of block and target, as a share


LEVELS: dict[str, Level | None] = {
    "none": None,  # what the robots record
    "mild": Level(light=0.12, colour=0.06, camera_rad=0.008, camera_m=0.004, size=0.04),
    "strong": Level(light=0.30, colour=0.15, camera_rad=0.025, camera_m=0.012, size=0.10),
}


@dataclass(frozen=True)
class Variation:
    """One scene's draw. colours: factors [geoms, 3]; sizes are factors."""

    view: View
    colours: np.ndarray
    block: float
    target: float


def draw_variation(level: str, seed: int, geoms: int) -> Variation | None:
    """The variation of a seed on a level, None for level "none". Raises ValueError for an unknown level."""
    if level not in LEVELS:
        raise ValueError(f"no such level: {level}; there are {', '.join(LEVELS)}")
    width = LEVELS[level]
    if width is None:
        return None
    draw = np.random.default_rng([seed, 3])
    pitch, yaw, roll = (float(angle) for angle in draw.uniform(-width.camera_rad, width.camera_rad, 3))
    x, y, z = (float(way) for way in draw.uniform(-width.camera_m, width.camera_m, 3))
    gain = 1 + float(draw.uniform(-width.light, width.light))
    block, target = (1 + float(share) for share in draw.uniform(-width.size, width.size, 2))
    colours = 1 + draw.uniform(-width.colour, width.colour, (geoms, 3))
    return Variation(View(pitch, yaw, roll, (x, y, z), gain), colours, block, target)
