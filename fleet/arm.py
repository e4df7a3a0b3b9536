"""The simulated robot: a 4-DoF arm with a gripper that puts a red block on a green target, controlled at 10 Hz.

State [5]: yaw, shoulder, elbow, wrist (rad), gripper (0 open .. 1 closed; 0.5 on the block).
Action [4]: dx, dy, dz (metres, of the commanded grasp point, base frame: x forward, y left, z up), grip (above 0.5: close).
"""

from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from fleet.levels import Variation, draw_variation
from fleet.render import Renderer, View

TASK = "put the red block on the green target"
STATE_NAMES = ("yaw", "shoulder", "elbow", "wrist", "gripper")
ACTION_NAMES = ("dx", "dy", "dz", "grip")
CONTROL_HZ = 10
HORIZON = 60  # steps that a rollout may take
MAX_STEP_M = 0.04  # of one action, per axis
SHOULDER_Z, UPPER, FORE, TOOL = 0.20, 0.25, 0.25, 0.12
REACH = np.array([[0.16, -0.24, 0.016], [0.44, 0.24, 0.24]])  # lowest and highest commanded grasp point
SPAWN = np.array([[0.25, -0.16], [0.38, 0.16]])  # where block and target may lie
HOME = np.array([0.24, 0.0, 0.16])
FINGER_TRAVEL = 0.04
BLOCK_HALF = 0.02
SUCCESS_M = 0.03  # between the centres of block and target
APART_M = 0.10  # least distance of block and target at the start


def inverse_kinematics(point: np.ndarray) -> np.ndarray:
    """Joint angles [4] (rad) that put the grasp point at `point` [3] (m) with the tool pointing down, elbow up."""
    radius, height = np.hypot(point[0], point[1]), point[2] + TOOL - SHOULDER_Z
    cosine = (radius**2 + height**2 - UPPER**2 - FORE**2) / (2 * UPPER * FORE)
    elbow = -np.arccos(np.clip(cosine, -1.0, 1.0))
    shoulder = np.arctan2(height, radius) - np.arctan2(FORE * np.sin(elbow), UPPER + FORE * np.cos(elbow))
    return np.array([np.arctan2(point[1], point[0]), shoulder, elbow, -np.pi / 2 - shoulder - elbow])


def forward_kinematics(joints: np.ndarray) -> np.ndarray:
    """Grasp point [..., 3] (m) of joint angles [..., 4] (rad)."""
    yaw, shoulder, elbow, wrist = np.moveaxis(np.asarray(joints), -1, 0)
    radius = UPPER * np.cos(shoulder) + FORE * np.cos(shoulder + elbow) + TOOL * np.cos(shoulder + elbow + wrist)
    height = SHOULDER_Z + UPPER * np.sin(shoulder) + FORE * np.sin(shoulder + elbow) + TOOL * np.sin(shoulder + elbow + wrist)
    return np.stack([radius * np.cos(yaw), radius * np.sin(yaw), height], axis=-1)


@dataclass(frozen=True)
class Observation:
    """state: f32 [5], frame: uint8 [96, 96, 3] RGB, both of the same moment."""

    state: np.ndarray
    frame: np.ndarray


class Arm:
    """One simulated robot. `reset(seed)` draws block, target, start pose and light; the same seed draws the same everywhere."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_path(str(Path(__file__).with_name("arm.xml")))
        self.data = mujoco.MjData(self.model)
        self.renderer = Renderer(self.model)
        self.substeps = round(1 / CONTROL_HZ / self.model.opt.timestep)
        self.target = np.zeros(2)
        self.commanded = HOME.copy()
        self.block_half = BLOCK_HALF
        self._as_built = (self.renderer.colour, self.model.geom_size.copy(), self.model.geom_rbound.copy(), self.model.geom_aabb.copy())
        self._varied = False

    def reset(self, seed: int, view: View | None = None, level: str = "none") -> Observation:
        """Start an episode. `view` overrides where the camera looks (a bump); its exposure is drawn from the seed in any case.

        `level` is one of fleet.levels.LEVELS; every level but "none" draws a view of its own. Raises ValueError for another.
        """
        variation = draw_variation(level, seed, self.model.ngeom)
        if variation or self._varied:
            self._vary(variation)
        view = variation.view if variation else view
        draw = np.random.default_rng(seed)
        block = draw.uniform(*SPAWN)
        self.target = draw.uniform(*SPAWN)
        while np.linalg.norm(self.target - block) < APART_M:
            self.target = draw.uniform(*SPAWN)
        # Roughly square to the gripper, which cannot turn about the vertical by itself.
        heading = np.arctan2(block[1], block[0]) + draw.uniform(-0.25, 0.25)
        self.commanded = HOME + draw.uniform(-0.025, 0.025, 3)
        gain = draw.uniform(0.94, 1.06)
        mujoco.mj_resetData(self.model, self.data)
        joints = inverse_kinematics(self.commanded)
        self.data.joint("block").qpos[:] = [*block, self.block_half, np.cos(heading / 2), 0, 0, np.sin(heading / 2)]
        for name, angle in zip(STATE_NAMES[:4], joints, strict=True):
            self.data.joint(name).qpos[:] = angle
        self.data.ctrl[:4] = joints
        self.model.body("target").pos[:2] = self.target
        mujoco.mj_forward(self.model, self.data)
        view = view or View()
        self.renderer.reset(self.data, View(view.pitch, view.yaw, view.roll, view.shift, view.gain * gain))
        self.held_still = 0
        return self.observe()

    def _vary(self, variation: Variation | None) -> None:
        """Colours and sizes of one scene; None brings back what was built. Mass and inertia stay."""
        colour, size, radius, box = self._as_built
        model, block, target = self.model, self.model.geom("block").id, self.model.geom("target").id
        self._varied = variation is not None
        model.geom_size[:], model.geom_rbound[:], model.geom_aabb[:] = size, radius, box
        self.renderer.colour = colour if variation is None else (colour * variation.colours).astype(np.float32)
        if variation:
            model.geom_size[block] *= variation.block
            model.geom_size[target, 0] *= variation.target
            model.geom_rbound[block] *= variation.block
            model.geom_aabb[block, 3:] *= variation.block
        self.block_half = float(model.geom_size[block, 2])

    def observe(self) -> Observation:
        return Observation(self.state, self.renderer.frame(self.data))

    @property
    def state(self) -> np.ndarray:
        """f32 [5], see STATE_NAMES."""
        joints = [self.data.joint(name).qpos[0] for name in STATE_NAMES[:4]]
        return np.array([*joints, self.data.joint("left").qpos[0] / FINGER_TRAVEL], np.float32)

    @property
    def block(self) -> np.ndarray:
        """Centre of the block, [3] (m)."""
        return self.data.joint("block").qpos[:3].copy()

    @property
    def point(self) -> np.ndarray:
        """Measured grasp point, [3] (m)."""
        return forward_kinematics(self.state[:4].astype(float))

    def step(self, action: np.ndarray) -> Observation:
        """Carry out one action [4] for 0.1 s. Raises ValueError for an action that is not four finite numbers."""
        if np.shape(action) != (4,) or not np.all(np.isfinite(action)):
            raise ValueError(f"an action is four finite numbers {ACTION_NAMES}, not {action!r}")
        delta = np.clip(np.asarray(action[:3], float), -MAX_STEP_M, MAX_STEP_M)
        self.commanded = np.clip(self.commanded + delta, *REACH)
        self.data.ctrl[:4] = inverse_kinematics(self.commanded)
        self.data.ctrl[4:] = FINGER_TRAVEL if action[3] > 0.5 else 0.0
        mujoco.mj_step(self.model, self.data, self.substeps)
        self.held_still = self.held_still + 1 if self._at_rest_on_target() else 0
        return self.observe()

    @property
    def distance(self) -> float:
        """Between the centres of block and target, on the table's plane (m)."""
        return float(np.linalg.norm(self.block[:2] - self.target))

    @property
    def success(self) -> bool:
        """The released block has lain still on the target for two control steps."""
        return self.held_still >= 2

    def _at_rest_on_target(self) -> bool:
        still = np.linalg.norm(self.data.joint("block").qvel[:3]) < 0.02
        return bool(self.distance < SUCCESS_M and self.block[2] < self.block_half + 0.004 and still and self.state[4] < 0.35)
