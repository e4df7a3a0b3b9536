"""Checks of the pictures: alone, against the joints' clock, and of the view against the fleet's."""

from collections.abc import Iterator

import numpy as np

from orchestration.curation.checks.case import Case
from orchestration.curation.view import turned, unmoved_match, view_match

CELLS, COLOURS = 64, 3  # of a palette
FEW = 3.0  # times as far must a view move where so few are known: a head may look elsewhere once
GAIN = 0.05  # of correlation that a displacement must explain


def pictures(case: Case) -> Iterator[str]:
    limits = case.limits
    for camera, share in case.each("image.repeated"):
        if share > limits.max_repeated:
            yield f"dead_camera: {share:.0%} of the {camera} frames repeat the one before"
            continue
        frozen, longest = case.scores.get(f"image.frozen:{camera}", 0.0), case.scores.get(f"image.frozen_s:{camera}", 0.0)
        if frozen > limits.max_frozen or longest > limits.max_frozen_s:
            yield f"frozen_camera: {frozen:.0%} of the {camera} frames stand (up to {longest:.1f} s) while the arm moves"
    for name, check, limit, text in (
        ("black", "black", limits.max_black, "hold no light"),
        ("featureless", "featureless", limits.max_featureless, "show nothing"),
        ("overexposed", "overexposed", limits.max_overexposed, "are half white"),
        ("glitch", "corrupt_picture", limits.max_glitch, "are unlike the frames on both sides"),
        ("painted", "corrupt_picture", limits.max_painted, "have plain areas that the others have not"),
        ("torn", "corrupt_picture", limits.max_torn, "have stripes that the others have not"),
        ("burst", "corrupt_picture", limits.max_burst, "are full of noise beside the others"),
    ):
        for camera, share in case.each(f"image.{name}"):
            if share > limit:
                yield f"{check}: {share:.1%} of the {camera} frames {text}"
    for camera, beat in case.each("image.flicker"):
        if beat > limits.max_flicker:
            yield f"flicker: the light of {camera} changes by {beat:.0%} from frame to frame"
    for camera, crisp in case.each("image.crisp"):
        if crisp < limits.min_crisp:
            yield f"blur: {camera} has {crisp:.2f} of the finest detail over the next, a sharp picture a third"


def camera_clock(case: Case) -> Iterator[str]:
    limits = case.limits
    for camera, lag in case.each("image.lag_s"):
        match, gain = case.scores.get(f"image.lag_match:{camera}", 0.0), case.scores.get(f"image.lag_gain:{camera}", 0.0)
        usual = case.middle(f"image.lag_s:{camera}")
        known = usual is not None and (case.middle(f"image.lag_match:{camera}") or 0.0) >= limits.min_camera_match
        limit = limits.max_camera_lag_s if known else limits.max_camera_lag_alone_s
        away = lag - (usual if usual is not None and known else 0.0)
        if match >= limits.min_camera_match and gain >= limits.min_camera_gain and abs(away) > limit:
            yield f"camera_lag: {camera} shows motion {away:+.2f} s from where the joints say (explains {match:.0%} of it, {match - gain:.0%} without)"


def camera_place(case: Case) -> Iterator[str]:
    """Against the robot's usual view, as far as that is one: a camera on a moving head or hand has none."""
    if case.usual is None:
        return
    for name in sorted(case.vectors):
        camera = name.split(":", 1)[-1]
        if not name.startswith("background:") or name not in case.usual.shape or camera not in case.usual.views:
            continue
        habit, shape, spread = case.usual.views[camera], case.usual.shape, case.usual.shape_spread
        own = np.asarray(case.vectors[name])
        found = view_match(own, shape[name], spread[name])
        case.scores[f"view.shift:{camera}"], case.scores[f"view.match:{camera}"] = found.shift, found.match
        allowed = case.limits.max_view_shift * (1.0 if case.caution == 1 else FEW)
        lost = found.match < habit.match - max(case.limits.max_view_loss, 6 * habit.match_spread * case.usual.widening)
        if why := _instead(case, camera, own, found.match):
            yield why
        elif lost:
            yield f"view_changed: the {camera} view matches this robot's usual one to {found.match:.2f}, usually {habit.match:.2f}"
        elif found.shift > allowed and found.shift > habit.shift + 6 * habit.shift_spread * case.usual.widening and found.match > 0.3:
            yield f"camera_moved: the {camera} view is off by {found.shift:.1%} of its width against this robot's usual view{_since(case, name)}"
        else:
            yield from _bumped(case, camera)


def _instead(case: Case, camera: str, own: np.ndarray, match: float) -> str | None:
    """What explains a view that is not the usual: turned round, or another camera's."""
    assert case.usual is not None
    name = f"background:{camera}"
    for how in ("upside down", "mirrored"):
        if view_match(turned(own, how), case.usual.shape[name], case.usual.shape_spread[name]).match > match + case.limits.min_view_gain:
            return f"camera_turned: the {camera} view is {how} against this robot's usual view"
    for other in sorted(case.usual.views):
        theirs = f"background:{other}"
        if other != camera and view_match(own, case.usual.shape[theirs], case.usual.shape_spread[theirs]).match > match + case.limits.min_view_gain:
            return f"cameras_swapped: {camera} shows what {other} usually shows"
    return None


def _bumped(case: Case, camera: str) -> Iterator[str]:
    """The view at the end against the view at the beginning, for cameras that usually stand."""
    assert case.usual is not None
    opening, closing = case.vector(f"opening:{camera}"), case.vector(f"closing:{camera}")
    if opening is None or closing is None or f"opening:{camera}" not in case.usual.shape or f"closing:{camera}" not in case.usual.shape:
        return
    habit, name = case.usual.views[camera], f"background:{camera}"
    usual = view_match(case.usual.shape[f"opening:{camera}"], case.usual.shape[f"closing:{camera}"], case.usual.shape_spread[name]).shift
    moved = view_match(closing, opening, case.usual.shape_spread[name])
    still = unmoved_match(opening, case.usual.shape[name], case.usual.shape_spread[name])
    gain = moved.match - unmoved_match(closing, opening, case.usual.shape_spread[name])
    if (
        gain > GAIN
        and moved.shift > max(case.limits.max_view_shift, 3 * usual)
        and habit.shift + 6 * habit.shift_spread < case.limits.max_view_shift
        and still > 0.7
    ):
        yield f"camera_moved: the {camera} view moves by {moved.shift:.1%} of its width within the episode"


def colours(case: Case) -> Iterator[str]:
    """Channels exchanged, or a cast, against the robot's usual colours."""
    if case.usual is None:
        return
    for name in sorted(case.vectors):
        found = case.comparable(name, case.usual) if name.startswith("palette:") else None
        if found is None:
            continue
        camera = name.split(":", 1)[1]
        own, usual, spread = (part.reshape(CELLS, COLOURS) for part in found)
        away, exchanged = float(np.abs(own - usual).mean()), float(np.abs(own[:, ::-1] - usual).mean())
        least = case.limits.min_colour * (1.0 if case.caution == 1 else FEW)  # rooms and backdrops change, too
        cast, varies = np.abs((own - usual).mean(axis=0)).max(), float(np.median(spread))
        if away > max(least, 3 * varies) and exchanged < case.limits.max_channel_gain * away:
            yield f"channels_swapped: the colours of {camera} fit this robot's usual ones with red and blue exchanged"
        elif cast > max(least, 6 * varies):
            yield f"colour_cast: the colours of {camera} are off by {cast:.0%} of the light against this robot's usual"


def _since(case: Case, name: str) -> str:
    drift = next((drift for drift in case.usual.drifts if drift.name == name), None) if case.usual else None
    return f", since {drift.since}" if drift else ""
