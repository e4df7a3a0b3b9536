"""The moments that show in a camera's frames."""

from collections.abc import Callable

import numpy as np

from orchestration.curation.review.motion import speed
from orchestration.curation.review.plots import Line, Moment, longest, named
from orchestration.curation.review.recorded import Looks, Recorded


def dark(recorded: Recorded, evidence: str) -> Moment | None:
    return _frames(recorded, evidence, "light", "grey level", lambda looks: looks.light, lambda looks: looks.light <= np.nanmin(looks.light) + 8)


def bright(recorded: Recorded, evidence: str) -> Moment | None:
    return _frames(recorded, evidence, "light", "grey level", lambda looks: looks.light, lambda looks: looks.light >= np.nanmax(looks.light) - 8)


def flicker(recorded: Recorded, evidence: str) -> Moment | None:
    def turned(looks: Looks) -> np.ndarray:
        steps = np.abs(np.diff(looks.light, prepend=looks.light[:1]))
        return steps >= steps.max()

    return _frames(recorded, evidence, "light", "grey level", lambda looks: looks.light, turned)


def frozen(recorded: Recorded, evidence: str) -> Moment | None:
    def same(looks: Looks) -> np.ndarray:
        return np.nan_to_num(looks.change, nan=np.inf) <= max(0.5, 0.1 * float(np.nanpercentile(looks.change, 90)) if len(looks.change) > 1 else 0.0)

    return _frames(recorded, evidence, "change from frame to frame", "grey levels", lambda looks: looks.change, same)


def soft(recorded: Recorded, evidence: str) -> Moment | None:
    return _frames(recorded, evidence, "sharpness", "variance of the Laplacian", lambda looks: looks.sharp, lambda looks: looks.sharp <= looks.sharp.min())


def noisy(recorded: Recorded, evidence: str) -> Moment | None:
    return _frames(recorded, evidence, "sharpness", "variance of the Laplacian", lambda looks: looks.sharp, lambda looks: looks.sharp >= looks.sharp.max())


def twice(recorded: Recorded, evidence: str) -> Moment | None:
    """A frame that changes by far less than both neighbours do."""

    def dips(looks: Looks) -> np.ndarray:
        change = np.nan_to_num(looks.change, nan=0.0)
        depth = np.zeros(len(change))
        depth[1:-1] = np.minimum(change[:-2], change[2:]) - change[1:-1]
        return depth >= max(float(depth.max()), 1e-9)

    return _frames(recorded, evidence, "change from frame to frame", "grey levels", lambda looks: looks.change, dips)


def badly_lit(recorded: Recorded, evidence: str) -> Moment | None:
    """The light where it is farthest from what most of the episode has."""

    def unusual(looks: Looks) -> np.ndarray:
        away = np.abs(looks.light - np.nanmedian(looks.light))
        return away >= np.nanmax(away)

    return _frames(recorded, evidence, "light", "grey level", lambda looks: looks.light, unusual)


def broken(recorded: Recorded, evidence: str) -> Moment | None:
    """A picture unlike the one before it."""

    def torn(looks: Looks) -> np.ndarray:
        return np.nan_to_num(looks.change, nan=0.0) >= np.nanmax(np.append(looks.change, 0.0))

    return _frames(recorded, evidence, "change from frame to frame", "grey levels", lambda looks: looks.change, torn)


def late_picture(recorded: Recorded, evidence: str) -> Moment | None:
    """The picture's motion and the joints', each over its own largest."""
    camera, found = _camera(recorded, evidence), speed(recorded)
    if camera is None or found is None:
        return None
    looks = recorded.looks(camera)
    if len(looks.t_s) < 2:
        return None
    change = looks.change / max(float(np.nanmax(looks.change)), 1e-9)
    lines = (Line("picture", looks.t_s, change), Line("joints", found[0], found[1] / max(float(np.nanmax(found[1])), 1e-9)))
    return Moment(f"motion in {camera} and of the joints", "share of the largest", lines, camera=camera)


def _frames(
    recorded: Recorded, evidence: str, title: str, unit: str, signal: Callable[[Looks], np.ndarray], bad: Callable[[Looks], np.ndarray]
) -> Moment | None:
    camera = _camera(recorded, evidence)
    if camera is None:
        return None
    looks = recorded.looks(camera)
    if len(looks.t_s) < 2:
        return None
    found = longest(bad(looks))
    span = (float(looks.t_s[found[0]]), float(looks.t_s[found[1] - 1])) if found else (None, None)
    return Moment(f"{camera}: {title}", unit, (Line(camera, looks.t_s, signal(looks)),), span[0], span[1], camera)


def _camera(recorded: Recorded, evidence: str) -> str | None:
    return named(evidence, recorded.cameras) or min(recorded.cameras, default=None)
