"""A scripted operator that knows where block and target are, and that varies from one demonstration to the next as people do."""

from dataclasses import dataclass

import numpy as np

from fleet.arm import BLOCK_HALF, HORIZON, MAX_STEP_M, Arm, Observation
from fleet.render import View

GRASP_Z = BLOCK_HALF - 0.002
RELEASE_Z = BLOCK_HALF + 0.001
FUNNEL = 2.2  # metres of height per metre of sideways error: come down while closing in
NEAR_M = 0.006
AS_MOUNTED = View()


@dataclass(frozen=True)
class Style:
    """How one demonstration is done. Lengths in metres, times in control steps of 0.1 s."""

    speed: float = 0.023  # per step
    hover: float = 0.09  # height from which block and target are approached
    noise: float = 0.0015  # standard deviation of each axis of each action, carried out as recorded
    close_steps: int = 4
    open_steps: int = 3
    pauses: tuple[tuple[int, int], ...] = ()  # (step at which, how long)
    miss: tuple[float, float] = (0.0, 0.0)  # where the gripper closes, relative to the block
    short: float = 0.0  # how far before the target the block is put down
    view: View = AS_MOUNTED


@dataclass
class Demonstration:
    """One episode of n steps. frames: uint8 [n, 96, 96, 3] RGB; states: f32 [n, 5]; actions: f32 [n, 4]; row i of all three is one moment.

    stamps_ns: int64 [n], when each row was published, counted from the episode's start. lost: bool [n], frames that never reached the logger.
    second: another camera's frames, where the robot has one.
    """

    frames: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    stamps_ns: np.ndarray
    success: bool
    distance_m: float
    lost: np.ndarray | None = None
    second: np.ndarray | None = None


def draw_style(draw: np.random.Generator) -> Style:
    """The ordinary variation of a good operator. One in five hesitates, for at most 0.4 s: well within what is normal."""
    hesitates = draw.random() < 0.2
    when, long = int(draw.integers(3, 25)), int(draw.integers(2, 5))
    return Style(
        speed=float(draw.uniform(0.020, 0.026)),
        hover=float(draw.uniform(0.075, 0.105)),
        noise=float(draw.uniform(0.0005, 0.0015)),
        close_steps=int(draw.integers(3, 5)),
        open_steps=int(draw.integers(2, 4)),
        pauses=((when, long),) if hesitates else (),
    )


class Expert:
    """Decides one action at a time. `done` once the gripper has left the block."""

    def __init__(self, style: Style, draw: np.random.Generator) -> None:
        self.style, self.draw = style, draw
        self.phase = "reach"
        self.waited = 0
        self.carried = 0.0

    @property
    def done(self) -> bool:
        return self.phase == "done"

    def act(self, arm: Arm) -> np.ndarray:
        """f32 [4], see fleet.arm.ACTION_NAMES."""
        goal, grip = self._goal(arm)
        move = goal - arm.commanded
        length = float(np.linalg.norm(move))
        move *= min(1.0, self.style.speed / max(length, 1e-9))
        move += self.draw.normal(0, self.style.noise, 3)
        return np.array([*np.clip(move, -MAX_STEP_M, MAX_STEP_M), grip], np.float32)

    def _goal(self, arm: Arm) -> tuple[np.ndarray, float]:
        """Where to go next, and the grip. Phases follow from what is reached, so that a policy can tell them from one observation."""
        style = self.style
        if self.phase == "reach":
            place = arm.block[:2] + style.miss
            goal = self._come_down(arm, place, GRASP_Z)
            if np.linalg.norm(goal - arm.commanded) > NEAR_M:
                return goal, 0.0
            self.phase, self.waited = "close", 0
        if self.phase == "close":
            self.waited += 1
            if self.waited <= style.close_steps:
                return arm.commanded, 1.0
            self.phase = "lift"
        if self.phase == "lift":
            if arm.commanded[2] < style.hover - NEAR_M:
                return np.array([*arm.commanded[:2], style.hover]), 1.0
            self.phase = "carry"
            self.start = arm.commanded[:2].copy()
        if self.phase == "carry":
            way = arm.target - self.start
            place = arm.target - way / np.linalg.norm(way) * style.short
            goal = self._come_down(arm, place, RELEASE_Z)
            if np.linalg.norm(goal - arm.commanded) > NEAR_M:
                return goal, 1.0
            self.phase, self.waited = "open", 0
        if self.phase == "open":
            self.waited += 1
            if self.waited <= style.open_steps:
                return arm.commanded, 0.0
            self.phase = "leave"
        if self.phase == "leave" and arm.commanded[2] < style.hover - NEAR_M:
            return np.array([*arm.commanded[:2], style.hover]), 0.0
        self.phase = "done"
        return arm.commanded, 0.0

    def _come_down(self, arm: Arm, place: np.ndarray, floor: float) -> np.ndarray:
        aside = float(np.linalg.norm(place - arm.commanded[:2]))
        return np.array([*place, min(self.style.hover, floor + FUNNEL * max(aside - 0.008, 0.0))])


def demonstrate(arm: Arm, seed: int, style: Style | None = None, horizon: int = 2 * HORIZON) -> Demonstration:
    """Record one demonstration. The seed decides the scene and, unless given, the style."""
    draw = np.random.default_rng([seed, 1])
    style = style or draw_style(draw)
    expert = Expert(style, draw)
    observation = arm.reset(seed, style.view)
    seen: list[Observation] = []
    actions: list[np.ndarray] = []
    pauses = dict(style.pauses)
    resting = 0
    while not expert.done and len(actions) < horizon:
        resting = max(resting, pauses.pop(len(actions), 0))
        if resting:
            grip = actions[-1][3] if actions else 0.0
            action = np.array([*draw.normal(0, 0.0002, 3), grip], np.float32)
            resting -= 1
        else:
            action = expert.act(arm)
        seen.append(observation)
        actions.append(action)
        observation = arm.step(action)
    count = len(actions)
    return Demonstration(
        frames=np.stack([one.frame for one in seen]),
        states=np.stack([one.state for one in seen]),
        actions=np.stack(actions),
        stamps_ns=np.arange(count, dtype=np.int64) * 100_000_000,
        success=arm.success,
        distance_m=arm.distance,
    )
