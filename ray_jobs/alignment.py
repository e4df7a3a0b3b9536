"""Streams of different rates on one fixed-rate grid: what is packed, checked and trained on."""

from dataclasses import dataclass

import numpy as np

from ray_jobs.episode import Episode, Stream

LATEST_NS = 1e9  # between a stamp and its logging, in which streams of one clock may differ
ONE_TO_ONE = "one-to-one"
RESAMPLED = "resampled"


@dataclass(frozen=True)
class Aligned:
    """n steps at `fps`. Row k of everything belongs to t_s[k].

    t_s: [n] f64, seconds from the first step. state: [n, d] f32 (d is 0 where none was recorded). action: [n, a] f32 or None.
    frame_index: camera -> [n] i32, the row of stream "camera:<name>", that is the decoded frame after the clip's lead-in.
    method: "one-to-one" (step k is frame k of the first camera, or sample k of the state where there is no camera) or
    "resampled" (a uniform grid; frames may be repeated or skipped).
    """

    t_s: np.ndarray
    state: np.ndarray
    action: np.ndarray | None
    frame_index: dict[str, np.ndarray]
    fps: float
    method: str
    notes: tuple[str, ...] = ()


def align(episode: Episode, fps: float | None = None) -> Aligned:
    """The newest sample not later than each grid time plus half of the stream's own period (zero-order hold).

    The grid covers the interval in which every stream has samples. Where the first camera (or the state) is regular at
    `fps`, its own samples are the grid, so that recorded packets can be kept. `fps` defaults to the episode's nominal rate.
    """
    streams = {name: stream for name, stream in episode.streams.items() if len(stream.t_ns) and not name.startswith("depth:")}
    cameras = sorted(name for name in streams if name.startswith("camera:"))
    rate = fps or episode.meta.fps
    times, notes = clock(streams)
    primary = cameras[0] if cameras else "state" if "state" in streams else next(iter(streams), None)
    if primary is None or rate <= 0:
        return _pick(streams, cameras, {name: np.zeros(0, np.int64) for name in streams}, rate, RESAMPLED, (*notes, "nothing to align"))
    period = 1e9 / rate
    tolerance = {name: 0.5 * min(period, _period(times[name], period)) for name in streams}
    low = max(times[name][0] - tolerance[name] for name in streams)
    high = min(times[name][-1] + tolerance[name] for name in streams)
    own = times[primary]
    if np.all(np.abs(np.diff(own) / period - 1) <= 0.5):
        rows = np.flatnonzero((own >= low) & (own <= high))
        grid, method = own[rows], ONE_TO_ONE
    else:
        start = max(times[name][0] for name in streams)
        steps = int(max(0.0, np.floor((high - start) / period + 1)))
        grid, method = start + np.arange(steps) * period, RESAMPLED
    if not len(grid):
        notes = (*notes, "the streams do not overlap in time")
    index = {name: np.clip(np.searchsorted(times[name], grid + tolerance[name], side="right") - 1, 0, None) for name in streams}
    if method == ONE_TO_ONE:
        index[primary] = rows
    return _pick(streams, cameras, index, rate, method, notes)


def clock(streams: dict[str, Stream]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Monotonic times (f64 ns from the earliest sample, for precision) of each stream, on one clock for all of them.

    Publish time, or log time where a publish clock runs backwards, where it spans 0.5 s and 5 % more or less than the
    logger's and is not the steadier of the two, or where the streams were not stamped by one clock.
    """
    notes: tuple[str, ...] = ()
    for name, stream in streams.items():
        if len(stream.t_ns) < 2:
            continue
        backwards = bool(np.any(np.diff(stream.t_ns) < 0))
        logged = float(stream.log_ns.max() - stream.log_ns.min())
        apart = abs(float(stream.t_ns[-1] - stream.t_ns[0]) - logged) > max(0.5e9, 0.05 * logged)
        stepped = apart and not (_steady(stream.t_ns) and not _steady(stream.log_ns))
        if backwards or stepped:
            notes = (*notes, f"aligned on log time: the publish clock of {name} {'runs backwards' if backwards else 'steps'}")
    behind = {name: float(np.median((stream.t_ns - stream.log_ns).astype(np.float64))) for name, stream in streams.items()}
    if not notes and behind and max(behind.values()) - min(behind.values()) > LATEST_NS:
        first, last = min(behind, key=behind.__getitem__), max(behind, key=behind.__getitem__)
        notes = (f"aligned on log time: {first} and {last} were stamped by clocks {(behind[last] - behind[first]) / 1e9:.1f} s apart",)
    publish = not notes
    if not publish:
        back = [name for name, stream in streams.items() if np.any(np.diff(stream.log_ns) < 0)]
        notes += (f"and the logger's clock runs backwards, too, in {', '.join(sorted(back))}: times there are held",) if back else ()
    chosen = {name: stream.t_ns if publish else stream.log_ns for name, stream in streams.items()}
    origin = min((int(values.min()) for values in chosen.values()), default=0)
    return {name: np.maximum.accumulate((values - origin).astype(np.float64)) for name, values in chosen.items()}, notes


def _steady(t_ns: np.ndarray) -> bool:
    """Whether no interval stands out: forwards, and none both longer than half a second and ten times the usual."""
    steps = np.diff(t_ns)
    return bool(np.all(steps >= 0) and steps.max() <= max(0.5e9, 10 * float(np.median(steps))))


def _period(times: np.ndarray, fallback: float) -> float:
    steps = np.diff(times)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else fallback


def _pick(streams: dict[str, Stream], cameras: list[str], index: dict[str, np.ndarray], rate: float, method: str, notes: tuple[str, ...]) -> Aligned:
    steps = len(next(iter(index.values()), ()))
    empty = np.zeros((steps, 0), np.float32)
    return Aligned(
        t_s=np.arange(steps) / rate if rate > 0 else np.zeros(steps),
        state=streams["state"].values[index["state"]] if "state" in streams else empty,
        action=streams["action"].values[index["action"]] if "action" in streams else None,
        frame_index={name.removeprefix("camera:"): index[name].astype(np.int32) for name in cameras},
        fps=rate,
        method=method,
        notes=notes,
    )
