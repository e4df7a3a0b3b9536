"""A ray renderer in Python: no GPU, no EGL, no window system; about a thousand small frames per CPU second.

What never moves during an episode (geom group 0) is cast once; of what moves (group 1) only the rays that pass through a geom's bounding sphere are cast.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

PIXELS = 96
STATIC, MOVING = (np.array([group == wanted for group in range(6)], np.uint8) for wanted in (0, 1))
LIGHT = np.array([0.45, 0.30, 0.84]) / np.linalg.norm([0.45, 0.30, 0.84])
AMBIENT = 0.45
SKY = (60, 64, 72)
FAR_M = 10.0


@dataclass(frozen=True)
class View:
    """How the camera differs from its mount in the model: a bump turns it (radians about its own axes) and shifts it (metres)."""

    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gain: float = 1.0  # exposure


def _turn(view: View) -> np.ndarray:
    """Rotation [3, 3] of the camera about its own axes: x right, y up, z backwards."""
    (sx, sy, sz), (cx, cy, cz) = np.sin([view.pitch, view.yaw, view.roll]), np.cos([view.pitch, view.yaw, view.roll])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


class Renderer:
    """Frames of one camera. Call `reset` when something static or the view has changed, then `frame` at each moment."""

    def __init__(self, model: mujoco.MjModel, camera: str = "front", pixels: int = PIXELS) -> None:
        self.model, self.pixels = model, pixels
        self.camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        self.moving = np.flatnonzero(model.geom_group == 1)
        self.colour = model.geom_rgba[:, :3].astype(np.float32) * 255.0
        half = np.tan(model.cam_fovy[self.camera] * np.pi / 360)
        across = ((np.arange(pixels) + 0.5) / pixels * 2 - 1) * half
        right, down = np.meshgrid(across, across)
        rays = np.stack([right, -down, -np.ones_like(right)], axis=-1).reshape(-1, 3)
        self.rays_in_camera = rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def reset(self, data: mujoco.MjData, view: View) -> None:
        """Place the camera and cast the background."""
        mount = data.cam_xmat[self.camera].reshape(3, 3)
        self.eye = data.cam_xpos[self.camera] + np.asarray(view.shift)
        self.rays = self.rays_in_camera @ (mount @ _turn(view)).T
        self.rays_f32 = self.rays.astype(np.float32)
        self.gain = view.gain
        self.background = np.empty((len(self.rays), 3), np.float32)
        self.background[:] = SKY
        self.depth = np.full(len(self.rays), np.inf)
        everywhere = np.arange(len(self.rays))
        self._cast(data, STATIC, everywhere, self.background, self.depth)
        self.background = np.clip(self.background * self.gain, 0, 255).astype(np.uint8)

    def frame(self, data: mujoco.MjData) -> np.ndarray:
        """uint8 [pixels, pixels, 3], RGB."""
        image = self.background.copy()
        centres = data.geom_xpos[self.moving] - self.eye
        distance = np.linalg.norm(centres, axis=1)
        sine = np.minimum(self.model.geom_rbound[self.moving] / distance, 1.0)
        near = self.rays_f32 @ (centres / distance[:, None]).T.astype(np.float32) > np.sqrt(1 - sine**2).astype(np.float32)
        seen = np.flatnonzero(near.any(axis=1))
        if len(seen):
            patch = image[seen].astype(np.float32) / self.gain
            self._cast(data, MOVING, seen, patch, self.depth[seen])
            image[seen] = np.clip(patch * self.gain + 0.5, 0, 255)
        return image.reshape(self.pixels, self.pixels, 3)

    def _cast(self, data: mujoco.MjData, group: np.ndarray, rays: np.ndarray, image: np.ndarray, depth: np.ndarray) -> None:
        """Shade (Lambert) in `image` and `depth` what the rays hit before `depth`."""
        count = len(rays)
        geom, distance, normal = np.empty(count, np.int32), np.empty(count), np.empty(count * 3)
        directions = np.ascontiguousarray(self.rays[rays]).ravel()
        mujoco.mj_multiRay(self.model, data, self.eye, directions, group, 1, -1, geom, distance, normal, count, FAR_M)
        hit = np.flatnonzero((geom >= 0) & (distance < depth))
        light = AMBIENT + (1 - AMBIENT) * np.maximum(normal.reshape(-1, 3)[hit] @ LIGHT, 0)
        image[hit] = self.colour[geom[hit]] * light[:, None].astype(np.float32)
        depth[hit] = distance[hit]
