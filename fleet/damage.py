"""How each kind of damage is done: to the recorded rows (corruptions) or to what the robot does (plans). Which amounts: fleet.defects.

A corruption takes any demonstration of at least two axes at any rate, not only the arm's: times are in seconds or steps of 0.1 s, and
angles in the state's own unit.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from fleet.arm import Arm
from fleet.expert import Demonstration, Style
from fleet.render import PIXELS, View

STEP_S = 0.1


def period_s(demo: Demonstration) -> float:
    return float(np.median(np.diff(demo.stamps_ns))) / 1e9


def _rows(demo: Demonstration, steps: float) -> int:
    """Steps of 0.1 s as rows, at least one."""
    return max(1, round(steps * STEP_S / period_s(demo)))


def _moving(values: np.ndarray, draw: np.random.Generator) -> int:
    """One axis of those that move as much as half of the most, the last (a gripper) only where there is no other."""
    span = np.nanmax(values, axis=0) - np.nanmin(values, axis=0)
    axes = [axis for axis in np.flatnonzero(span >= 0.3 * span[: max(1, len(span) - 1)].max()) if axis < len(span) - 1 or len(span) == 1]
    return int(draw.choice(axes))


def delayed(rows: np.ndarray, steps: int) -> np.ndarray:
    """Row i shows what was true `steps` rows earlier; the first value is repeated until then."""
    return rows[np.maximum(np.arange(len(rows)) - steps, 0)]


def action_lag(demo: Demonstration, steps: float, draw: np.random.Generator) -> Demonstration:
    """The commands are logged late: through a queue between controller and logger."""
    return replace(demo, actions=delayed(demo.actions, _rows(demo, steps)))


def axis_flip(demo: Demonstration, axes: float, draw: np.random.Generator) -> Demonstration:
    """dy, or dx and dy, are logged in another frame than the robot's own."""
    actions = demo.actions.copy()
    actions[:, 2 - int(axes) : 2] *= -1
    return replace(demo, actions=actions)


def frozen_camera(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """The driver goes on delivering one and the same frame: for a while, or (share 1) one of an earlier scene, because it hung before the episode began."""
    if share >= 1:
        stale = Arm().reset(int(draw.integers(2**32, 2**33))).frame if demo.frames.shape[1:3] == (PIXELS, PIXELS) else demo.frames[0]
        return replace(demo, frames=np.repeat(stale[None], len(demo.frames), axis=0))
    count = len(demo.frames)
    length = round(count * share)
    start = int(draw.integers(2, count - length))
    frames = demo.frames.copy()
    frames[start : start + length] = frames[start]
    return replace(demo, frames=frames)


def camera_lag(demo: Demonstration, steps: float, draw: np.random.Generator) -> Demonstration:
    """Frames are stamped on arrival, and arrive late."""
    return replace(demo, frames=delayed(demo.frames, _rows(demo, steps)))


def action_noise(demo: Demonstration, deviation: float, draw: np.random.Generator) -> Demonstration:
    """What is logged is not what was commanded: noise (m) on each axis, and with it a grip that flips now and then."""
    actions = demo.actions.copy()
    actions[:, :3] += draw.normal(0, deviation, (len(actions), 3)).astype(np.float32)
    flipped = draw.random(len(actions)) < deviation * 8
    actions[flipped, 3] = 1 - actions[flipped, 3]
    return replace(demo, actions=actions)


def nan_states(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """An encoder that times out reads as NaN: one joint for a few samples, or all of them for a third of the episode."""
    states = demo.states.copy()
    rows = draw.choice(len(states), max(2, round(len(states) * share)), replace=False)
    states[rows, int(draw.integers(0, min(4, states.shape[1]))) if share < 0.2 else slice(None)] = np.nan
    return replace(demo, states=states)


def clock_step(demo: Demonstration, seconds: float, draw: np.random.Generator) -> Demonstration:
    """The host's clock is corrected in the middle of an episode: forward leaves a gap, backward makes time run twice."""
    stamps = demo.stamps_ns.copy()
    earliest = int(np.ceil(max(-seconds, 0) / period_s(demo))) + 2
    stamps[int(draw.integers(earliest, len(stamps) - 3)) :] += round(seconds * 1e9)
    return replace(demo, stamps_ns=stamps)


def encoder_offset(demo: Demonstration, radians: float, draw: np.random.Generator) -> Demonstration:
    """One joint lost its zero."""
    states = demo.states.copy()
    states[:, int(draw.integers(0, min(4, states.shape[1])))] += radians * draw.choice([-1, 1])
    return replace(demo, states=states)


def failed_demonstration(style: Style, metres: float, draw: np.random.Generator) -> Style:
    """Mild: the block is put down short of the target. Strong: the gripper closes beside it and carries nothing. Nobody says so."""
    if metres < 0.08:
        return replace(style, short=metres)
    angle = draw.uniform(0, 2 * np.pi)
    return replace(style, miss=(float(metres * np.cos(angle)), float(metres * np.sin(angle))))


def idle(style: Style, steps: float, draw: np.random.Generator) -> Style:
    """The operator lets go: once for a while, or again and again."""
    times = 1 if steps < 20 else 3
    starts = np.sort(draw.choice(np.arange(2, 22), times, replace=False))
    gone = np.arange(times) * round(steps / times)  # later pauses move back by those before
    return replace(style, pauses=tuple((int(start), round(steps / times)) for start in starts + gone))


def bumped_camera(style: Style, degrees: float, draw: np.random.Generator) -> Style:
    """Somebody ran into the mount: it looks elsewhere by so many degrees, and sits a little rotated."""
    angle, amount = draw.uniform(0, 2 * np.pi), np.radians(degrees)
    roll = draw.uniform(-0.5, 0.5) * amount
    return replace(style, view=View(pitch=float(amount * np.sin(angle)), yaw=float(amount * np.cos(angle)), roll=float(roll)))


def encoder_noise(demo: Demonstration, radians: float, draw: np.random.Generator) -> Demonstration:
    """A loose plug: one joint's readings are noisy."""
    states = demo.states.copy()
    states[:, _moving(states, draw)] += draw.normal(0, radians, len(states)).astype(np.float32)
    return replace(demo, states=states)


def encoder_slip(demo: Demonstration, radians: float, draw: np.random.Generator) -> Demonstration:
    """One joint's encoder slips in the middle, and reads wrong from then on."""
    states = demo.states.copy()
    states[int(draw.integers(len(states) // 4, 3 * len(states) // 4)) :, _moving(states, draw)] += radians * draw.choice([-1, 1])
    return replace(demo, states=states)


def spikes(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """Single readings of one joint are far off, by a share of its range: one, or (from a half on) three."""
    states = demo.states.copy()
    axis = _moving(states, draw)
    rows = draw.choice(np.arange(3, len(states) - 3), 3 if share >= 0.5 else 1, replace=False)
    states[rows, axis] += share * np.ptp(states[:, axis]) * draw.choice([-1, 1], len(rows))
    return replace(demo, states=states)


def stuck_joint(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """One joint's reading keeps one value for the last part of the episode, or (share 1) for all of it."""
    states = demo.states.copy()
    start, axis = round(len(states) * (1 - share)), _moving(states, draw)
    states[start:, axis] = states[start, axis]
    return replace(demo, states=states)


def stale_states(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """The driver of the joints hangs: for a part of the episode all of them keep their values."""
    states = demo.states.copy()
    length = round(len(states) * share)
    start = int(draw.integers(len(states) // 5, max(len(states) - length, len(states) // 5 + 1)))
    states[start : start + length] = states[start]
    return replace(demo, states=states)


def state_lag(demo: Demonstration, steps: float, draw: np.random.Generator) -> Demonstration:
    """The joints are stamped late: their rows show what was true earlier, beside commands and frames of now."""
    return replace(demo, states=delayed(demo.states, _rows(demo, steps)))


def swapped_axes(demo: Demonstration, pairs: float, draw: np.random.Generator) -> Demonstration:
    """Two command axes change places in the log (1), or also two axes of the state (2)."""
    actions, states = demo.actions.copy(), demo.states.copy()
    actions[:, [0, 1]] = actions[:, [1, 0]]
    if pairs >= 2:
        states[:, [0, 1]] = states[:, [1, 0]]
    return replace(demo, actions=actions, states=states)


def wrong_unit(demo: Demonstration, factor: float, draw: np.random.Generator) -> Demonstration:
    """The joints are logged in another unit than on this robot's other days."""
    return replace(demo, states=(demo.states * factor).astype(np.float32))


def dead_commands(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """The logger keeps the last command for a part of the episode, or (share 1) never sees one."""
    actions = demo.actions.copy()
    start = round(len(actions) * (1 - share) * draw.uniform(0.2, 0.9))
    actions[start : start + round(len(actions) * share)] = actions[start]
    return replace(demo, actions=actions)


def cut_short(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """The recording ends, properly closed, before the task does."""
    count = round(len(demo.stamps_ns) * (1 - share))
    second = None if demo.second is None else demo.second[:count]
    return replace(demo, frames=demo.frames[:count], states=demo.states[:count], actions=demo.actions[:count], stamps_ns=demo.stamps_ns[:count], second=second)


def slow_loop(demo: Demonstration, factor: float, draw: np.random.Generator) -> Demonstration:
    """The control loop runs slower than it should: every period is longer by the factor."""
    return replace(demo, stamps_ns=(demo.stamps_ns * factor).astype(np.int64))


def jitter(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """The loop's timer is disturbed: each stamp is off by up to a share of the period."""
    moved = draw.uniform(-share, share, len(demo.stamps_ns)) * period_s(demo) * 1e9
    return replace(demo, stamps_ns=np.maximum.accumulate(demo.stamps_ns + moved.astype(np.int64)).clip(0))


def dropped_frames(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """Some frames never reach the logger."""
    lost = np.zeros(len(demo.frames), bool)
    lost[1 + draw.choice(len(lost) - 1, max(1, round(len(lost) * share)), replace=False)] = True
    return replace(demo, lost=lost)


def repeated_frames(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """The driver delivers the frame before once more, here and there."""
    frames = demo.frames.copy()
    for row in np.sort(1 + draw.choice(len(frames) - 1, round(len(frames) * share), replace=False)):
        frames[row] = frames[row - 1]
    return replace(demo, frames=frames)


def _each(demo: Demonstration, change: Callable[[np.ndarray], np.ndarray], rows: np.ndarray | slice = slice(None)) -> Demonstration:
    frames = demo.frames.copy()
    frames[rows] = np.clip(change(frames[rows].astype(np.float32)), 0, 255).astype(np.uint8)
    return replace(demo, frames=frames)


def _some(demo: Demonstration, share: float, draw: np.random.Generator) -> np.ndarray:
    return np.sort(1 + draw.choice(len(demo.frames) - 2, max(1, round(len(demo.frames) * share)), replace=False))


def blur(demo: Demonstration, pixels: float, draw: np.random.Generator) -> Demonstration:
    """A smeared or unfocused lens."""
    return _each(demo, lambda frames: gaussian_filter(frames, (0, pixels, pixels, 0)))


def exposure(demo: Demonstration, gain: float, draw: np.random.Generator) -> Demonstration:
    """Exposure is set wrongly: too bright above 1, too dark below."""
    return _each(demo, lambda frames: frames * gain)


def black_frames(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """The camera sees nothing for a while: a lid, a lamp that is off."""
    length = max(2, round(len(demo.frames) * share))
    start = int(draw.integers(1, len(demo.frames) - length))
    return _each(demo, lambda frames: draw.normal(2, 1, frames.shape), slice(start, start + length))


def corrupt_blocks(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """Lost packets: in some frames a band of the picture is grey or green."""
    height = demo.frames.shape[1]

    def lose(frames: np.ndarray) -> np.ndarray:
        for frame in frames:
            top = int(draw.integers(0, height // 2))
            frame[top : top + int(draw.integers(height // 4, height // 2))] = (128, 128, 128) if draw.random() < 0.5 else (0, 135, 0)
        return frames

    return _each(demo, lose, _some(demo, share, draw))


def picture_noise(demo: Demonstration, levels: float, draw: np.random.Generator) -> Demonstration:
    """A failing sensor or cable: snow over every frame, of this standard deviation in grey levels."""
    return _each(demo, lambda frames: frames + draw.normal(0, levels, frames.shape))


def noise_lines(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """Interference: in some frames whole lines are wrong."""

    def stripe(frames: np.ndarray) -> np.ndarray:
        for frame in frames:
            lines = draw.choice(frame.shape[0], frame.shape[0] // 6, replace=False)
            frame[lines] = draw.uniform(0, 255, (len(lines), 1, 3))
        return frames

    return _each(demo, stripe, _some(demo, share, draw))


def turned_camera(demo: Demonstration, quarters: float, draw: np.random.Generator) -> Demonstration:
    """The picture is mirrored (1) or upside down (2)."""
    return replace(demo, frames=demo.frames[:, ::-1, ::-1] if quarters >= 2 else demo.frames[:, :, ::-1])


def sliding_camera(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """The mount gives way in the middle of the episode: from then on the picture is displaced by a share of its width."""
    count, width = len(demo.frames), demo.frames.shape[2]
    pixels, start = max(1, round(share * width)), int(draw.integers(round(0.35 * count), round(0.6 * count)))
    frames = demo.frames.copy()
    frames[start:] = np.pad(frames[start:], ((0, 0), (0, 0), (pixels, 0), (0, 0)), mode="edge")[:, :, :width]
    return replace(demo, frames=frames)


def colours(demo: Demonstration, amount: float, draw: np.random.Generator) -> Demonstration:
    """Below 1: a cast, red stronger and blue weaker by that share. From 1 on: red and blue change places (BGR taken for RGB)."""
    if amount >= 1:
        return replace(demo, frames=demo.frames[..., ::-1])
    return _each(demo, lambda frames: frames * np.array([1 + amount, 1, 1 - amount], np.float32))


def covered(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """Something hangs before the lens: a share of the picture is one dark colour."""
    width = demo.frames.shape[2]
    edge = round(width * share)
    frames = demo.frames.copy()
    frames[:, :, :edge] = (frames[:, :, :edge] * 0.04 + 30).astype(np.uint8)
    return replace(demo, frames=frames)


def flicker(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """A lamp and a shutter beat: every other frame is darker."""
    return _each(demo, lambda frames: frames * (1 - share), slice(None, None, 2))


def swapped_cameras(demo: Demonstration, share: float, draw: np.random.Generator) -> Demonstration:
    """Two cameras are plugged in the wrong way round, from a point of the episode on or (share 1) from its beginning."""
    if demo.second is None:
        raise ValueError("cameras can only be swapped where there are two")
    start = round(len(demo.frames) * (1 - share))
    frames, second = demo.frames.copy(), demo.second.copy()
    frames[start:], second[start:] = demo.second[start:], demo.frames[start:]
    return replace(demo, frames=frames, second=second)
