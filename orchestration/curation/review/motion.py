"""The moments that show in times, joints and commands. What a reason does not say is looked for in the streams, as the check would."""

import re
from collections.abc import Callable

import numpy as np

from orchestration.curation.review.plots import Line, Moment, longest, named
from orchestration.curation.review.recorded import Recorded, Samples

STILL = 0.05  # of the 90th percentile of the speed
MOST_LINES = 5


def periods(recorded: Recorded, evidence: str) -> Moment | None:
    """Time between samples; the longest."""
    return _at_the_largest(recorded, evidence, "time between samples", lambda samples: np.diff(samples.t_s), lambda steps: steps)


def backward(recorded: Recorded, evidence: str) -> Moment | None:
    return _at_the_largest(recorded, evidence, "step of publish time", lambda samples: np.diff(samples.t_s), lambda steps: -steps)


def clock(recorded: Recorded, evidence: str) -> Moment | None:
    """Publish time against log time; where it changes most."""

    def drift(samples: Samples) -> np.ndarray:
        return (samples.t_s - samples.log_s)[1:]

    return _at_the_largest(recorded, evidence, "publish time less log time", drift, lambda late: np.abs(np.diff(late, prepend=late[:1])))


def _at_the_largest(
    recorded: Recorded, evidence: str, title: str, signal: Callable[[Samples], np.ndarray], badness: Callable[[np.ndarray], np.ndarray]
) -> Moment | None:
    name = named(evidence, recorded.streams)
    streams = {name: recorded.streams[name]} if name else recorded.streams
    streams = {name: samples for name, samples in streams.items() if len(samples.log_s) >= 2}
    if not streams:
        return None
    worst = max(streams, key=lambda name: float(badness(signal(streams[name])).max()))
    samples = streams[worst]
    shown = signal(samples)
    at = int(np.argmax(badness(shown)))
    line = Line(worst, samples.log_s[1:], shown)
    return Moment(f"{worst}: {title}", "s", (line,), float(samples.log_s[at]), float(samples.log_s[at + 1]), _camera_of(worst))


def _camera_of(stream: str) -> str | None:
    return stream.split(":", 1)[1] if stream.startswith("camera:") else None


def not_finite(recorded: Recorded, evidence: str) -> Moment | None:
    for name in ("state", "action"):
        samples = recorded.streams.get(name)
        if samples is not None and not np.isfinite(samples.values).all():
            axis = int(np.argmax((~np.isfinite(samples.values)).sum(axis=0)))
            bad = longest(~np.isfinite(samples.values[:, axis]))
            assert bad is not None
            return _of_axis(recorded, name, axis, samples.log_s[bad[0]], samples.log_s[bad[1] - 1])
    return None


def step(recorded: Recorded, evidence: str) -> Moment | None:
    """An axis around its largest step."""
    samples, axis = _axis(recorded, evidence, lambda values: _ratio(np.abs(np.diff(values, axis=0))))
    if samples is None:
        return None
    at = int(np.nanargmax(np.abs(np.diff(samples.values[:, axis]))))
    return _of_axis(recorded, "state", axis, samples.log_s[at], samples.log_s[at + 1])


def beside_its_course(recorded: Recorded, evidence: str) -> Moment | None:
    """An axis where a sample is farthest from the cubic through its neighbours."""

    def away(values: np.ndarray) -> np.ndarray:
        return np.nan_to_num(np.abs(values[2:-2] - (4 * (values[1:-3] + values[3:-1]) - values[:-4] - values[4:]) / 6))

    samples, axis = _axis(recorded, evidence, lambda values: _ratio(away(values)) if len(values) > 4 else np.zeros(values.shape[1]))
    if samples is None or len(samples.log_s) < 5:
        return None
    at = 2 + int(np.argmax(away(samples.values[:, [axis]])))
    return _of_axis(recorded, "state", axis, samples.log_s[at - 1], samples.log_s[at + 1])


def rough(recorded: Recorded, evidence: str) -> Moment | None:
    """The axis that bends most suddenly, there."""
    stream = _spoken(recorded, evidence)
    samples, axis = _axis(recorded, "", lambda values: _ratio(np.abs(np.diff(values, n=2, axis=0))), stream)
    if samples is None:
        return None
    at = 1 + int(np.argmax(np.nan_to_num(np.abs(np.diff(samples.values[:, axis], n=2)))))
    return _of_axis(recorded, stream, axis, samples.log_s[at - 1], samples.log_s[at + 1])


def repeats(recorded: Recorded, evidence: str) -> Moment | None:
    """All axes' longest common stand."""
    samples, axis = _axis(recorded, "", lambda values: np.nanstd(values, axis=0))
    if samples is None or (found := longest((np.diff(samples.values, axis=0) == 0).all(axis=1))) is None:
        return None
    return _of_axis(recorded, "state", axis, samples.log_s[found[0]], samples.log_s[found[1]])


def extreme(recorded: Recorded, evidence: str) -> Moment | None:
    """An axis where it is farthest from its middle."""
    samples, axis = _axis(recorded, evidence, lambda values: np.nanmax(np.abs(values - np.nanmedian(values, axis=0)), axis=0))
    if samples is None:
        return None
    column = samples.values[:, axis]
    at = int(np.nanargmax(np.abs(column - np.nanmedian(column))))
    return _of_axis(recorded, "state", axis, samples.log_s[max(at - 1, 0)], samples.log_s[min(at + 1, len(column) - 1)])


def start(recorded: Recorded, evidence: str) -> Moment | None:
    samples, axis = _axis(recorded, evidence, lambda values: np.nanstd(values, axis=0))
    return None if samples is None else _of_axis(recorded, "state", axis, samples.log_s[0], samples.log_s[min(5, len(samples.log_s) - 1)])


def stuck(recorded: Recorded, evidence: str) -> Moment | None:
    """An axis over its longest constant stretch, beside its command."""
    stream = _spoken(recorded, evidence)

    def constant(values: np.ndarray) -> np.ndarray:
        runs = [longest(np.diff(column) == 0) or (0, 0) for column in values.T]
        return np.array([last - first for first, last in runs], float)

    samples, axis = _axis(recorded, evidence, constant, stream)
    if samples is None:
        return None
    found = longest(np.diff(samples.values[:, axis]) == 0)
    if found is None:
        return _of_axis(recorded, stream, axis, None, None)
    return _of_axis(recorded, stream, axis, samples.log_s[found[0]], samples.log_s[found[1]])


def whole_axis(recorded: Recorded, evidence: str) -> Moment | None:
    """An axis beside its command, over the whole episode."""
    stream = _spoken(recorded, evidence)
    samples, axis = _axis(recorded, evidence, lambda values: np.nanstd(values, axis=0), stream)
    return None if samples is None else _of_axis(recorded, stream, axis, None, None)


def commanded(recorded: Recorded, evidence: str) -> Moment | None:
    """An action axis and the joint that goes most with it, or all of both: does the arm do what it is told, and when?"""
    action, state = recorded.streams.get("action"), recorded.streams.get("state")
    if action is None or state is None or min(len(action.log_s), len(state.log_s)) < 3 or not action.values.shape[1] or not state.values.shape[1]:
        return None
    said = re.search(r"action ax[ie]s (\d+)", evidence)
    told = action.values[:, [int(said.group(1))]] if said and int(said.group(1)) < action.values.shape[1] else action.values
    steps = np.diff(np.stack([np.interp(action.log_s, state.log_s, column) for column in np.nan_to_num(state.values.T)], axis=1), axis=0)
    span = np.maximum(np.ptp(np.nan_to_num(told), axis=0), 1e-9)
    # Whether actions are places or strides the recording does not say: taken is what goes more with the motion
    ways = [np.nan_to_num(told[:-1] / span), np.nan_to_num(np.diff(told, axis=0) / span)]
    if said:
        fits = [np.abs([_correlation(way[:, 0], column) for column in steps.T]) for way in ways]
        joint = int(np.argmax(np.maximum(*fits)))
        way, motion = ways[0] if fits[0][joint] >= fits[1][joint] else ways[1], steps[:, joint]
        names = _label(recorded, "action", int(said.group(1))), f"motion of {_label(recorded, 'state', joint)}"
        lines = [way[:, 0], motion]
    else:
        speed = np.linalg.norm(steps / np.maximum(np.ptp(np.nan_to_num(state.values), axis=0), 1e-9), axis=1)
        sizes = [np.linalg.norm(way - np.median(way, axis=0), axis=1) for way in ways]
        lines, names = [max(sizes, key=lambda size: _correlation(size, speed)), speed], ("command", "motion")
    scaled = [line / max(float(np.abs(line).max()), 1e-9) for line in lines]
    return Moment("command and motion", "each over its largest", tuple(Line(name, action.log_s[1:], y) for name, y in zip(names, scaled, strict=True)))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    spread = float(one.std() * other.std())
    return float(((one - one.mean()) * (other - other.mean())).mean()) / spread if spread > 1e-12 else 0.0


def standing(recorded: Recorded, evidence: str) -> Moment | None:
    """The speed over its longest stand."""
    found = speed(recorded)
    if found is None:
        return None
    moments, pace = found
    still = longest(pace <= STILL * np.nanpercentile(pace, 90))
    span = (float(moments[still[0]]), float(moments[still[1] - 1])) if still else (None, None)
    return Moment("speed of the joints", "share of the fast pace", (Line("speed", moments, pace),), *span)


def ending(recorded: Recorded, evidence: str) -> Moment | None:
    found = speed(recorded)
    if found is None:
        return None
    moments, pace = found
    return Moment("speed of the joints", "share of the fast pace", (Line("speed", moments, pace),), max(0.0, float(moments[-1]) - 0.5), float(moments[-1]))


def overview(recorded: Recorded, evidence: str) -> Moment | None:
    """The joints that move most."""
    for name in ("state", "action"):
        samples = recorded.streams.get(name)
        if samples is not None and samples.values.shape[1] and len(samples.log_s) >= 2:
            span = np.nanmax(samples.values, axis=0, initial=-np.inf) - np.nanmin(samples.values, axis=0, initial=np.inf)
            axes = sorted(np.argsort(-span, kind="stable")[:MOST_LINES].tolist())
            lines = tuple(Line(_label(recorded, name, axis), samples.log_s, samples.values[:, axis]) for axis in axes)
            return Moment(f"{name}: the axes that move most", "as recorded", lines)
    return None


def _axis(recorded: Recorded, evidence: str, badness: Callable[[np.ndarray], np.ndarray], stream: str = "state") -> tuple[Samples | None, int]:
    """The axis that the evidence numbers, else the one that is worst."""
    samples = recorded.streams.get(stream)
    if samples is None or len(samples.log_s) < 3 or not samples.values.shape[1]:
        return None, 0
    said = re.search(r"ax[ie]s (\d+)", evidence)
    if said and int(said.group(1)) < samples.values.shape[1]:
        return samples, int(said.group(1))
    worst = np.nan_to_num(badness(samples.values))
    return samples, int(np.argmax(worst))


def _spoken(recorded: Recorded, evidence: str) -> str:
    """The stream of numbers that the evidence is about."""
    return "action" if re.search(r"\b(action|commands?)\b", evidence) and recorded.streams.get("action") is not None else "state"


def _of_axis(recorded: Recorded, stream: str, axis: int, begin: float | None, end: float | None) -> Moment:
    samples = recorded.streams[stream]
    lines = [Line(_label(recorded, stream, axis), samples.log_s, samples.values[:, axis])]
    action = recorded.streams.get("action")
    if stream == "state" and action is not None and axis < action.values.shape[1] and action.values.shape[1] == samples.values.shape[1]:
        lines.append(Line(_label(recorded, "action", axis), action.log_s, action.values[:, axis]))
    span = (None, None) if begin is None or end is None else (float(begin), float(end))
    return Moment(f"{stream} axis {axis}", "as recorded", tuple(lines), *span)


def _label(recorded: Recorded, stream: str, axis: int) -> str:
    names = recorded.axes.get(stream, ())
    return f"{stream} {names[axis] if axis < len(names) else axis}"


def _ratio(steps: np.ndarray) -> np.ndarray:
    """Largest over the usual, axis by axis."""
    return np.nanmax(steps, axis=0) / np.maximum(np.nanpercentile(steps, 90, axis=0), 1e-9)


def speed(recorded: Recorded) -> tuple[np.ndarray, np.ndarray] | None:
    """Times [n] and speeds [n] of all joints together, each over its own range, as a share of the 90th percentile."""
    samples = recorded.streams.get("state")
    if samples is None or len(samples.log_s) < 3 or not samples.values.shape[1]:
        return None
    span = np.maximum(np.nanmax(samples.values, axis=0) - np.nanmin(samples.values, axis=0), 1e-9)
    seconds = np.maximum(np.diff(samples.log_s), 1e-6)
    pace = np.linalg.norm(np.nan_to_num(np.diff(samples.values, axis=0)) / span, axis=1) / seconds
    return samples.log_s[1:], pace / max(float(np.percentile(pace, 90)), 1e-9)
