"""What goes wrong on a fleet: one table. A new kind of damage is one more row of DEFECTS; nothing else need change.

A defect acts at one of three places: `plan` changes what the robot does, `corrupt` changes what is recorded of it, and `file` is something that
happens to the recording as a file (fleet.record carries it out).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fleet.arm import Arm
from fleet.expert import Demonstration, Style
from fleet.render import View

Severity = Literal["mild", "strong"]
Plan = Callable[[Style, float, np.random.Generator], Style]
Corrupt = Callable[[Demonstration, float, np.random.Generator], Demonstration]


@dataclass(frozen=True)
class Defect:
    """`mild` and `strong` are the amounts, in `unit`. `weight`: how often it is drawn, relative to the others; 0 for a held-out kind."""

    name: str
    unit: str
    mild: float
    strong: float
    plan: Plan | None = None
    corrupt: Corrupt | None = None
    file: Literal["truncate", "duplicate"] | None = None
    weight: float = 1.0

    def amount(self, severity: Severity) -> float:
        return self.mild if severity == "mild" else self.strong


def _delayed(rows: np.ndarray, steps: int) -> np.ndarray:
    """Row i shows what was true `steps` rows earlier; the first value is repeated until then."""
    return rows[np.maximum(np.arange(len(rows)) - steps, 0)]


def _action_lag(demo: Demonstration, steps: float, draw: np.random.Generator) -> Demonstration:
    """The commands are logged late: through a queue between controller and logger."""
    return replace(demo, actions=_delayed(demo.actions, int(steps)))


def _axis_flip(demo: Demonstration, axes: float, draw: np.random.Generator) -> Demonstration:
    """dy, or dx and dy, are logged in another frame than the robot's own."""
    actions = demo.actions.copy()
    actions[:, 2 - int(axes) : 2] *= -1
    return replace(demo, actions=actions)


def _frozen_camera(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """The driver goes on delivering one and the same frame: for a while, or (share 1) one of an earlier scene, because it hung before the episode began."""
    if share >= 1:
        stale = Arm().reset(int(draw.integers(2**32, 2**33))).frame
        return replace(demo, frames=np.repeat(stale[None], len(demo.frames), axis=0))
    count = len(demo.frames)
    length = round(count * share)
    start = int(draw.integers(2, count - length))
    frames = demo.frames.copy()
    frames[start : start + length] = frames[start]
    return replace(demo, frames=frames)


def _camera_lag(demo: Demonstration, steps: float, draw: np.random.Generator) -> Demonstration:
    """Frames are stamped on arrival, and arrive late."""
    return replace(demo, frames=_delayed(demo.frames, int(steps)))


def _action_noise(demo: Demonstration, deviation: float, draw: np.random.Generator) -> Demonstration:
    """What is logged is not what was commanded: noise (m) on each axis, and with it a grip that flips now and then."""
    actions = demo.actions.copy()
    actions[:, :3] += draw.normal(0, deviation, (len(actions), 3)).astype(np.float32)
    flipped = draw.random(len(actions)) < deviation * 8
    actions[flipped, 3] = 1 - actions[flipped, 3]
    return replace(demo, actions=actions)


def _nan_states(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """An encoder that times out reads as NaN: one joint for a few samples, or all of them for a third of the episode."""
    states = demo.states.copy()
    rows = draw.choice(len(states), max(2, round(len(states) * share)), replace=False)
    states[rows, int(draw.integers(0, 4)) if share < 0.2 else slice(None)] = np.nan
    return replace(demo, states=states)


def _clock_step(demo: Demonstration, seconds: float, draw: np.random.Generator) -> Demonstration:
    """The host's clock is corrected in the middle of an episode: forward leaves a gap, backward makes time run twice."""
    stamps = demo.stamps_ns.copy()
    earliest = int(np.ceil(max(-seconds, 0) * 10)) + 2
    stamps[int(draw.integers(earliest, len(stamps) - 3)) :] += round(seconds * 1e9)
    return replace(demo, stamps_ns=stamps)


def _encoder_offset(demo: Demonstration, radians: float, draw: np.random.Generator) -> Demonstration:
    """One joint lost its zero."""
    states = demo.states.copy()
    states[:, int(draw.integers(0, 4))] += radians * draw.choice([-1, 1])
    return replace(demo, states=states)


def _failed_demonstration(style: Style, metres: float, draw: np.random.Generator) -> Style:
    """Mild: the block is put down short of the target. Strong: the gripper closes beside it and carries nothing. Nobody says so."""
    if metres < 0.08:
        return replace(style, short=metres)
    angle = draw.uniform(0, 2 * np.pi)
    return replace(style, miss=(float(metres * np.cos(angle)), float(metres * np.sin(angle))))


def _idle(style: Style, steps: float, draw: np.random.Generator) -> Style:
    """The operator lets go: once for a while, or again and again."""
    times = 1 if steps < 20 else 3
    starts = np.sort(draw.choice(np.arange(2, 22), times, replace=False))
    gone = np.arange(times) * round(steps / times)  # later pauses move back by those before
    return replace(style, pauses=tuple((int(start), round(steps / times)) for start in starts + gone))


def _bumped_camera(style: Style, degrees: float, draw: np.random.Generator) -> Style:
    """Somebody ran into the mount: it looks elsewhere by so many degrees, and sits a little rotated."""
    angle, amount = draw.uniform(0, 2 * np.pi), np.radians(degrees)
    roll = draw.uniform(-0.5, 0.5) * amount
    return replace(style, view=View(pitch=float(amount * np.sin(angle)), yaw=float(amount * np.cos(angle)), roll=float(roll)))


DEFECTS = {
    defect.name: defect
    for defect in (
        Defect("action_lag", "steps of 0.1 s", 2, 5, corrupt=_action_lag),
        Defect("axis_flip", "flipped axes", 1, 2, corrupt=_axis_flip),
        Defect("frozen_camera", "share of the episode", 0.3, 1.0, corrupt=_frozen_camera),
        Defect("failed_demonstration", "m beside its goal", 0.06, 0.10, plan=_failed_demonstration),
        Defect("idle", "steps of 0.1 s", 12, 36, plan=_idle),
        Defect("bumped_camera", "degrees", 2.0, 7.0, plan=_bumped_camera),
        Defect("action_noise", "m, standard deviation", 0.006, 0.02, corrupt=_action_noise),
        Defect("camera_lag", "steps of 0.1 s", 2, 5, corrupt=_camera_lag, weight=0.6),
        Defect("nan_states", "share of the samples", 0.06, 0.33, corrupt=_nan_states, weight=0.6),
        Defect("clock_step", "s", 0.7, -1.2, corrupt=_clock_step, weight=0.6),
        Defect("truncated_file", "share of the last episode that is missing", 0.15, 0.6, file="truncate", weight=0.6),
        Defect("duplicate_upload", "1: one episode logged again, 2: the whole file copied", 1, 2, file="duplicate", weight=0.6),
        # Held out: no check was written with these in view.
        Defect("encoder_offset", "rad", 0.05, 0.2, corrupt=_encoder_offset, weight=0),
    )
}
PLANTED = tuple(name for name, defect in DEFECTS.items() if defect.weight)
