"""The gate: whether a policy may become the champion. Pure; every reason is a sentence for a person.

Closed loop: each policy must clear a floor, and be non-inferior to the champion on the same seeds: the one-sided 95 % limit of
the difference of success rates (Newcombe's method 10 for paired proportions) must lie above -margin. A policy that is shown to be
worse is refused even within the margin, so that many small losses cannot add up.
Offline only (nothing was rolled out): the error of its actions on held-out episodes decides, and the reasons say so.
"""

import math
from dataclasses import dataclass
from typing import Any

from ray_jobs.seam.model import Strict
from ray_jobs.seam.proportions import Z_90, paired_difference


class GateSettings(Strict):
    margin: float = 0.10  # of success, by which a new policy may at most be worse than the champion
    floor: float = 0.30  # least lower limit (Wilson, two-sided 95 %) of the success of any policy
    minimum_rollouts: int = 20  # fewer decide nothing
    offline_margin: float = 0.05  # share by which the offline error may at most exceed the champion's
    offline_floor: float = 1.0  # offline error must stay below this; 1 is what always predicting the mean action gets


@dataclass(frozen=True)
class Verdict:
    """difference: candidate - champion with its 90 % interval, where both were rolled out on the same seeds.

    power: chance that a policy exactly as good as the champion would have passed with so many rollouts.
    """

    promote: bool
    reasons: tuple[str, ...]
    basis: str  # rollouts | offline | nothing
    rollouts: int = 0
    difference: tuple[float, float, float] | None = None
    power: float | None = None


def gate(scores: dict[str, Any], settings: GateSettings) -> Verdict:
    """Judge `scores` as ray_jobs.evaluation writes them: {"candidate": …, "champion": … or None, "offline": … or None}."""
    if scores["candidate"]["rollouts"] > 0:
        return _closed_loop(scores["candidate"], scores.get("champion"), settings)
    if scores.get("offline"):
        return _offline(scores["offline"], settings)
    return Verdict(False, ("nothing was measured: no rollouts, and no held-out episode with actions",), "nothing")


def _closed_loop(candidate: dict[str, Any], champion: dict[str, Any] | None, settings: GateSettings) -> Verdict:
    rollouts = candidate["rollouts"]
    told = f"{candidate['successes']} of {rollouts} rollouts succeed"
    if rollouts < settings.minimum_rollouts:
        return Verdict(False, (f"{rollouts} rollouts decide nothing: at least {settings.minimum_rollouts} are needed",), "rollouts", rollouts)
    if candidate["low"] < settings.floor:
        reason = f"below the floor: {told}, so its success may be as low as {candidate['low']:.0%}, and {settings.floor:.0%} is demanded (lower Wilson limit)"
        return Verdict(False, (reason,), "rollouts", rollouts)
    floor = f"above the floor: {told}, so its success is at least {candidate['low']:.0%}, and {settings.floor:.0%} is demanded (lower Wilson limit)"
    if champion is None:
        return Verdict(True, (floor, "there is no other champion to compare with"), "rollouts", rollouts)
    return _against(candidate, champion, floor, settings)


def _against(candidate: dict[str, Any], champion: dict[str, Any], floor: str, settings: GateSettings) -> Verdict:
    seeds = sorted(candidate["by_seed"].keys() & champion["by_seed"].keys())
    if len(seeds) < settings.minimum_rollouts:
        return Verdict(False, (f"only {len(seeds)} seeds were faced by both: at least {settings.minimum_rollouts} are needed",), "rollouts", len(seeds))
    pairs = [(bool(candidate["by_seed"][seed]), bool(champion["by_seed"][seed])) for seed in seeds]
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    low, high = paired_difference(pairs.count((True, True)), gained, lost, pairs.count((False, False)), Z_90)
    difference = (gained - lost) / len(pairs)
    chance = power(sum(won for _, won in pairs) / len(pairs), len(pairs), settings.margin)
    counted = f"on the same {len(pairs)} seeds it wins {gained} that the champion loses and loses {lost} that the champion wins"
    interval = f"difference {difference:+.0%}, 90 % interval {low:+.0%} to {high:+.0%}, margin {settings.margin:.0%}"
    small = f"with {len(pairs)} rollouts a policy as good as the champion passes in {chance:.0%} of cases"

    def verdict(promote: bool, *reasons: str) -> Verdict:
        return Verdict(promote, reasons, "rollouts", len(pairs), (difference, low, high), chance)

    if high < 0:
        return verdict(False, f"worse than the champion: {counted} ({interval})")
    if low <= -settings.margin:
        return verdict(False, f"not shown to be as good as the champion: {counted} ({interval})", small)
    better = "better than the champion" if low > 0 else "as good as the champion within the margin"
    return verdict(True, floor, f"{better}: {counted} ({interval})", small)


def power(rate: float, pairs: int, margin: float) -> float:
    """Chance that an equal policy passes, by the normal approximation; its successes are taken as independent of the champion's, which is cautious."""
    rate = min(max(rate, 0.5 / pairs), 1 - 0.5 / pairs)  # a rate of 0 or 1 is a small sample's
    error = math.sqrt(2 * rate * (1 - rate) / pairs)
    return 0.5 * (1 + math.erf((margin / error - Z_90) / math.sqrt(2)))


def _offline(offline: dict[str, Any], settings: GateSettings) -> Verdict:
    candidate, champion = offline["candidate"], offline.get("champion")
    about = f"decided offline, without rollouts, on {candidate['frames']} held-out moments of {candidate['episodes']} episodes"
    error = f"error {candidate['error']:.3f} of the actions' spread"
    if not candidate["error"] < settings.offline_floor:  # an error that is no number is refused too
        return Verdict(False, (about, f"{error} is no better than always predicting the mean action ({settings.offline_floor:g} is the limit)"), "offline")
    if champion is None:
        return Verdict(True, (about, f"{error} is below {settings.offline_floor:g}", "there is no other champion to compare with"), "offline")
    limit = champion["error"] * (1 + settings.offline_margin)
    against = f"{error}, the champion's is {champion['error']:.3f}, and at most {settings.offline_margin:.0%} more is allowed"
    if not candidate["error"] <= limit:
        return Verdict(False, (about, f"worse than the champion: {against}"), "offline")
    return Verdict(True, (about, f"as good as the champion: {against}"), "offline")
