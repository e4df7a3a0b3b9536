"""Clean recordings of robots that are nothing like the demo's: other joints, rates, commands, cameras, operators. No physics, no simulator.

Checks must keep them: an unknown robot is no defect. Joints follow smooth courses between a task's way points, with a person's pauses and
tremor; commands are positions, velocities, end-effector steps or none; pictures are a textured scene in which a chain of blobs moves as
the joints say. Everything follows from (shape, seed).
"""

import zlib
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from fleet.expert import Demonstration

PIXELS = 96


@dataclass(frozen=True)
class Shape:
    """A robot and who drives it. Rates in Hz, lengths in s, noise in the state's unit.

    commands: "position" (the joints follow with `lag_s`), "next" (the state one step later), "velocity", "step" (of a mixture of the joints), "none".
    pause: mean length of a pause, and its chance at a way point. eye: None, "fixed" or "hand" (the picture moves with the joints).
    """

    name: str
    joints: int
    hz: float
    commands: str = "position"
    eye: str | None = "fixed"
    eyes: int = 1
    length_s: tuple[float, float] = (8.0, 14.0)
    speed: float = 1.0
    noise: float = 5e-4
    last_digit: float = 0.0
    pause: tuple[float, float] = (0.5, 0.3)
    lag_s: float = 0.1
    gripper: bool = True
    homed: bool = False
    sensor: float = 2.0
    unit: float = 1.0
    axes: int = 0  # of the commands, where they are other ones than the joints


SHAPES = (
    Shape("one-joint lift", 1, 20, gripper=False, eye=None),
    Shape("so101-like", 6, 30, last_digit=0.0015, lag_s=0.08, eyes=2),
    Shape("so101 in degrees", 6, 30, last_digit=0.09, unit=57.3, noise=0.03),
    Shape("aloha-like two arms", 14, 50, lag_s=0.06, eyes=2, eye="hand", length_s=(10, 16)),
    Shape("humanoid, next state", 44, 20, commands="next", length_s=(12, 20), noise=0.0, sensor=0.0),
    Shape("franka, velocity", 7, 15, commands="velocity", homed=True, length_s=(8, 14)),
    Shape("widowx, end-effector steps", 7, 5, commands="step", axes=7, length_s=(8, 12)),
    Shape("sim arm without noise", 7, 20, commands="step", axes=7, noise=0.0, sensor=0.0, pause=(2.0, 0.5), length_s=(15, 25)),
    Shape("slow crane", 4, 10, speed=0.2, length_s=(40, 60), pause=(4.0, 0.6), gripper=False),
    Shape("fast delta", 4, 100, speed=4.0, length_s=(3, 5), pause=(0.1, 0.1), lag_s=0.03),
    Shape("mobile base", 3, 20, commands="velocity", eye="hand", gripper=False, length_s=(15, 25)),
    Shape("hesitant novice", 7, 30, pause=(4.0, 0.8), length_s=(25, 45), noise=1e-3),
    Shape("no commands", 7, 30, commands="none"),
    Shape("blind, 100 Hz", 6, 100, eye=None, length_s=(20, 30)),
    Shape("hand with tendons", 16, 30, lag_s=0.2, noise=2e-3, eyes=2),
)


def record(shape: Shape, seed: int) -> Demonstration:
    """One clean episode. states [n, joints]; actions [n, a] (a = 0 where there are none); frames [n, 96, 96, 3], n = 0 rows where there is no eye."""
    robot = np.random.default_rng(zlib.crc32(shape.name.encode()))
    draw = np.random.default_rng([zlib.crc32(shape.name.encode()), seed])
    joints = _course(shape, robot, draw)
    period = 1 / shape.hz
    if shape.commands == "position":
        commands = joints
        rows = max(0, round(shape.lag_s * shape.hz))
        joints = gaussian_filter1d(np.concatenate([np.repeat(joints[:1], rows, axis=0), joints])[: len(joints)], max(0.3, 0.03 * shape.hz), axis=0)
    elif shape.commands == "next":
        commands = np.concatenate([joints[1:], joints[-1:]])
    elif shape.commands == "velocity":
        commands = np.gradient(joints, period, axis=0)
        if shape.gripper:
            commands[:, -1] = joints[:, -1]
    elif shape.commands == "step":
        mix = robot.normal(0, 1, (shape.joints, shape.axes))
        steps = np.diff(joints, axis=0, append=joints[-1:])
        commands = steps @ mix
        if shape.gripper:
            commands[:, -1] = np.where(joints[:, -1] > 0.5, 1.0, -1.0)
    else:
        commands = np.zeros((len(joints), 0))
    states = joints + draw.normal(0, shape.noise / shape.unit, joints.shape)
    count = len(states)
    frames = [_pictures(shape, joints, np.random.default_rng([zlib.crc32(shape.name.encode()), eye]), draw) for eye in range(shape.eyes if shape.eye else 0)]
    states, commands = states * shape.unit, commands * (shape.unit if shape.commands in ("position", "next") else 1.0)
    if shape.last_digit:
        states = np.round(states / shape.last_digit) * shape.last_digit
    return Demonstration(
        frames=frames[0] if frames else np.zeros((0, PIXELS, PIXELS, 3), np.uint8),
        states=states.astype(np.float32),
        actions=commands.astype(np.float32),
        stamps_ns=(np.arange(count) * period * 1e9).astype(np.int64),
        success=True,
        distance_m=0.0,
        second=frames[1] if len(frames) > 1 else None,
    )


def _course(shape: Shape, robot: np.random.Generator, draw: np.random.Generator) -> np.ndarray:
    """[n, joints]: minimum-jerk moves between the task's way points, pauses, tremor; the last joint opens and closes where it is a gripper."""
    seconds = draw.uniform(*shape.length_s)
    legs = int(robot.integers(4, 7))
    middle, reach = robot.uniform(-0.8, 0.8, shape.joints), robot.uniform(0.15, 0.7, shape.joints)
    points = middle + reach * robot.uniform(-1, 1, (legs + 1, shape.joints))
    points = points + draw.normal(0, 0.25, points.shape) * reach
    if shape.homed:
        points[[0, -1]] = middle + draw.normal(0, 0.004, (2, shape.joints))
    weights = draw.uniform(0.6, 1.4, legs)
    pieces = []
    for leg, share in enumerate(weights / weights.sum()):
        rows = max(4, round(seconds * share * shape.hz))
        time = np.linspace(0, 1, rows, endpoint=False)[:, None] * draw.uniform(0.9, 1.0)
        start = draw.uniform(0, 0.15, shape.joints)
        curve = np.clip((time - start) / (0.85 - 0.0), 0, 1)
        pieces.append(points[leg] + (points[leg + 1] - points[leg]) * (10 * curve**3 - 15 * curve**4 + 6 * curve**5))
        points[leg + 1] = pieces[-1][-1]
        if draw.random() < shape.pause[1]:
            pieces.append(np.repeat(pieces[-1][-1:], max(1, round(draw.exponential(shape.pause[0]) * shape.hz)), axis=0))
    joints = np.concatenate(pieces)
    if shape.gripper:
        closes, opens = sorted(draw.uniform((0.25, 0.65), (0.4, 0.85)) * len(joints))
        wanted = ((np.arange(len(joints)) >= closes) & (np.arange(len(joints)) < opens)).astype(float)
        joints[:, -1] = gaussian_filter1d(wanted * draw.uniform(0.9, 1.0), 0.1 * shape.hz)
    tremor = gaussian_filter1d(draw.normal(0, 1, joints.shape), 0.15 * shape.hz, axis=0) * 0.004 * np.sqrt(shape.hz)
    busy = np.abs(np.gradient(joints, axis=0)).max(axis=1, keepdims=True) > 1e-6
    return np.asarray(joints + tremor * busy * (shape.noise > 0))


def _pictures(shape: Shape, joints: np.ndarray, robot: np.random.Generator, draw: np.random.Generator) -> np.ndarray:
    """uint8 [n, 96, 96, 3]: a textured scene with things on it, and the arm as blobs; from a hand's eye the scene itself moves."""
    size = 2 * PIXELS
    scene = sum(robot.normal(0, weight, (1, 1, 3)) + weight * _texture(robot, size, scale) for weight, scale in ((22, 24), (14, 6), (9, 1.5)))
    scene = np.asarray(120 + robot.uniform(-25, 25, 3) + scene)
    rows, columns = np.mgrid[0:size, 0:size]
    for _ in range(10):
        y, x, height, width = robot.integers(0, size, 2).tolist() + robot.integers(6, 46, 2).tolist()
        scene[y : y + height, x : x + width] = robot.uniform(20, 235, 3)
    for _ in range(3):  # what the task is about lies elsewhere each time
        y, x = draw.integers(size // 4, 3 * size // 4, 2)
        scene[(rows - y) ** 2 + (columns - x) ** 2 < draw.integers(4, 8) ** 2] = draw.uniform(30, 220, 3)
    scene = scene * draw.uniform(0.95, 1.05)
    towards = robot.normal(0, 1, (joints.shape[1], 8)) / np.sqrt(joints.shape[1])
    places = joints @ towards
    frames = np.empty((len(joints), PIXELS, PIXELS, 3), np.uint8)
    sides = np.arange(PIXELS)
    for number, place in enumerate(places):
        left, top = (PIXELS // 2, PIXELS // 2) if shape.eye == "fixed" else (np.clip(48 + 30 * place[:2], 0, PIXELS)).round().astype(int)
        frame = scene[top : top + PIXELS, left : left + PIXELS].copy()
        if shape.eye == "fixed":
            for link in range(4):
                x, y = 48 + 26 * place[2 * link], 48 + 26 * place[2 * link + 1]
                near = (sides[:, None] - y) ** 2 + (sides[None, :] - x) ** 2 < (10 - 1.5 * link) ** 2
                frame[near] = (40 + 30 * link, 45, 60)
        frames[number] = np.clip(frame + draw.normal(0, shape.sensor, (PIXELS, PIXELS, 1)), 0, 255)
    return frames


def _texture(draw: np.random.Generator, size: int, scale: float) -> np.ndarray:
    field = gaussian_filter(draw.normal(0, 1, (size, size, 1)), (scale, scale, 0))
    return np.asarray(field / max(float(field.std()), 1e-9))
