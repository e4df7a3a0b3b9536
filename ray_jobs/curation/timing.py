"""Clocks and rates of one stream, and of the streams against each other."""

import numpy as np
from scipy.ndimage import median_filter

WINDOW = 25  # samples of the running median that tells a clock step from late delivery
LONGEST_S = 60.0  # a silence longer than this is not counted in lost samples: it is a gap or a clock step


def timing(t_ns: np.ndarray, log_ns: np.ndarray) -> dict[str, float]:
    """Scores of one stream with at least two samples; t_ns: publish time, log_ns: when the logger wrote it.

    rate_hz    1 / median period
    gap_s      longest silence
    even       share of periods within half a median period of it: a stream that ticks, or one that speaks when it has to
    lost       share of samples missing at that rate: 1 - n / sum(round(step / period))
    jitter     interquartile range of the periods over their median
    backward   steps back in time
    clock_s    largest lasting change of publish time against log time (a running median, so that one late delivery is none)
    delay_s    median of log time less publish time
    """
    steps = np.diff(t_ns) / 1e9
    forward = steps[steps > 0]
    period = float(np.median(forward)) if len(forward) else 0.0
    if period <= 0:
        return {"backward": float((steps < 0).sum()), "standing": 1.0}
    beats = np.maximum(np.rint(np.clip(steps, 0, LONGEST_S) / period), 0)
    low, high = np.percentile(forward, [25, 75])
    return {
        "rate_hz": 1 / period,
        "gap_s": float(steps.max()),
        "even": float(np.mean(np.abs(steps - period) < 0.5 * period)),
        "lost": float(1 - len(t_ns) / max(len(t_ns), beats.sum() + 1)),
        "jitter": float((high - low) / period),
        "backward": float((steps < 0).sum()),
        "clock_s": clock_step(t_ns, log_ns),
        "delay_s": float(np.median(log_ns - t_ns)) / 1e9,
    }


def clock_step(t_ns: np.ndarray, log_ns: np.ndarray) -> float:
    """By how many s publish time moves against log time for good: the largest change between the medians of neighbouring windows
    that the medians of all before and all after confirm (a stalled logger catches up, a clock that was set does not)."""
    offset = ((t_ns - t_ns[0]) - (log_ns - log_ns[0])) / 1e9
    width = min(WINDOW, len(offset) // 2)
    if width < 2 or not np.any(np.abs(np.diff(offset)) > 1e-4):
        return 0.0
    smooth = median_filter(offset, size=width, mode="nearest")
    change = np.abs(smooth[width:] - smooth[:-width])
    place = int(np.argmax(change)) + width // 2 + 1
    lasting = abs(float(np.median(offset[place:]) - np.median(offset[:place])))
    return min(float(change.max()), lasting)


def together(times: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """stream -> (t_ns, log_ns) of the streams with samples.

    duration_s        from the first sample of any stream to the last, by the logger's clock
    time.uncovered_s:<stream>  the longer of its late start and its early end within that time
    time.skew_s       largest difference of the streams' median delay (log - publish): their clocks disagree
    """
    if not times:
        return {"duration_s": 0.0}
    first = min(int(log.min()) for _, log in times.values())
    last = max(int(log.max()) for _, log in times.values())
    scores = {"duration_s": (last - first) / 1e9}
    for name, (_, log) in times.items():
        scores[f"time.uncovered_s:{name}"] = max(int(log.min()) - first, last - int(log.max())) / 1e9
    if len(times) > 1:
        delays = [float(np.median(log - t)) / 1e9 for t, log in times.values()]
        scores["time.skew_s"] = max(delays) - min(delays)
    return scores
