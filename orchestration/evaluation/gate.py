"""The gate: whether a policy may become the champion. Pure; every reason is a sentence for a person, and every refusal is told, not the first alone.

Data: what the candidate was made of must have been checked whole (orchestration/evaluation/prerequisites.py).
Closed loop: the candidate must clear a floor, be non-inferior to the champion on the same scenes, and not be shown to be worse on them
or on any one task or condition (orchestration/evaluation/paired.py has the statistics). A policy that is shown to be worse is refused
even within the margin, so that many small losses cannot add up.
Offline only (nothing was rolled out): the error of its actions on held-out episodes decides, and the reasons say so.
"""

import math
from dataclasses import dataclass
from typing import Any

from orchestration.evaluation.paired import as_good, interval, pairs_needed, power, worse
from ray_jobs.seam.model import Strict

ALPHA = 0.05  # one-sided, of showing that a policy is worse: over all groups of a kind together (Bonferroni)
WANTED = 0.8  # chance of passing, when told how many rollouts would be enough


class GateSettings(Strict):
    margin: float = 0.10  # of success, by which a new policy may at most be worse than the champion
    floor: float = 0.30  # least lower limit (Wilson, two-sided 95 %) of the success of any policy
    minimum_rollouts: int = 20  # fewer decide nothing
    offline_margin: float = 0.05  # share by which the offline error may at most exceed the champion's
    offline_floor: float = 1.0  # offline error must stay below this; 1 is what always predicting the mean action gets


@dataclass(frozen=True)
class Verdict:
    """difference: candidate - champion with its 90 % interval, where both were rolled out on the same scenes.

    power: chance that a policy exactly as good as the champion would have passed with so many rollouts.
    """

    promote: bool
    reasons: tuple[str, ...]
    basis: str  # rollouts | offline | nothing
    rollouts: int = 0
    difference: tuple[float, float, float] | None = None
    power: float | None = None


@dataclass(frozen=True)
class Found:
    """What one part of the gate says. notes: what a person should know either way."""

    refusals: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def gate(scores: dict[str, Any], settings: GateSettings, prerequisites: tuple[str, ...] = ()) -> Verdict:
    """Judge `scores` as ray_jobs.evaluation writes them: {"candidate": …, "champion": … or None, "manifest": …, "groups": …, "offline": …}.

    `prerequisites`: what is wrong with the checks of the candidate's data; any refuses.
    """
    if scores["candidate"]["rollouts"] > 0:
        return _closed_loop(scores, settings, prerequisites)
    if scores.get("manifest"):
        return _verdict("nothing", Found(prerequisites), Found(("the evaluator has no trial of this policy yet: a log without it decides nothing",)))
    if scores.get("offline"):
        return _verdict("offline", Found(prerequisites), _offline(scores["offline"], scores.get("champion"), settings))
    why = "nothing was measured: no rollouts, and no held-out episode with actions; bring more episodes, or lower training.holdout"
    return _verdict("nothing", Found(prerequisites), Found((why,)))


def _verdict(basis: str, *parts: Found, **more: Any) -> Verdict:
    refusals = tuple(reason for part in parts for reason in part.refusals)
    support = tuple(reason for part in parts for reason in part.support)
    return Verdict(not refusals, (refusals or support) + tuple(note for part in parts for note in part.notes), basis, **more)


def _closed_loop(scores: dict[str, Any], settings: GateSettings, prerequisites: tuple[str, ...]) -> Verdict:
    candidate, champion = scores["candidate"], scores.get("champion")
    rollouts = candidate["rollouts"]
    data = Found(prerequisites)
    if rollouts < settings.minimum_rollouts:
        few = Found((f"{rollouts} rollouts decide nothing: at least {settings.minimum_rollouts} are needed",))
        return _verdict("rollouts", data, few, rollouts=rollouts)
    floor = _floor(candidate, settings.floor)
    if champion is None:
        return _verdict("rollouts", data, floor, Found(support=("there is no other champion to compare with",)), rollouts=rollouts)
    pairs = {
        scene: (bool(candidate["by_scene"][scene]), bool(champion["by_scene"][scene])) for scene in candidate["by_scene"].keys() & champion["by_scene"].keys()
    }
    if len(pairs) < settings.minimum_rollouts:
        few = Found((f"only {len(pairs)} scenes were faced by both: at least {settings.minimum_rollouts} are needed{_instead(champion)}",))
        return _verdict("rollouts", data, floor, few, rollouts=len(pairs))
    gained, lost = _discordant(list(pairs.values()))
    low, high = interval(gained, lost, len(pairs))
    discordance = (gained + lost + 1) / (len(pairs) + 2)  # a little more than was seen where little was: none seen is not none there
    chance = power(discordance, len(pairs), settings.margin)
    small = f"with {len(pairs)} rollouts a policy as good as the champion passes in {chance:.0%} of cases"
    if not as_good(gained, lost, len(pairs), settings.margin):
        enough = pairs_needed(discordance, settings.margin, WANTED)
        small += f"; {enough} would give {WANTED:.0%}" if enough else f"; no number of rollouts that one can afford gives {WANTED:.0%}"
    return _verdict(
        "rollouts",
        data,
        floor,
        _against(gained, lost, len(pairs), settings.margin),
        Found(notes=(small,)),
        *(_regressions(kind, groups, pairs) for kind, groups in sorted(scores.get("groups", {}).items())),
        rollouts=len(pairs),
        difference=((gained - lost) / len(pairs), low, high),
        power=chance,
    )


def _floor(candidate: dict[str, Any], floor: float) -> Found:
    told = f"{candidate['successes']} of {candidate['rollouts']} rollouts succeed"
    demanded = f"and {floor:.0%} is demanded (lower Wilson limit)"
    if candidate["low"] < floor:
        return Found((f"below the floor: {told}, so its success may be as low as {candidate['low']:.0%}, {demanded}",))
    return Found(support=(f"above the floor: {told}, so its success is at least {candidate['low']:.0%}, {demanded}",))


def _discordant(pairs: list[tuple[bool, bool]]) -> tuple[int, int]:
    """(scenes that the candidate alone wins, scenes that the champion alone wins)."""
    return pairs.count((True, False)), pairs.count((False, True))


def _against(gained: int, lost: int, pairs: int, margin: float) -> Found:
    low, high = interval(gained, lost, pairs)
    counted = f"on the same {pairs} scenes it wins {gained} that the champion loses and loses {lost} that the champion wins"
    limits = f"difference {(gained - lost) / pairs:+.0%}, 90 % interval {low:+.0%} to {high:+.0%}, margin {margin:.0%}"
    chance = worse(gained, lost)
    if chance < ALPHA:
        return Found((f"worse than the champion: {counted} ({limits}, exact McNemar test p = {chance:.2g})",))
    if not as_good(gained, lost, pairs, margin):
        return Found((f"not shown to be as good as the champion: {counted} ({limits})",))
    better = "better than the champion" if low > 0 else "as good as the champion within the margin"
    return Found(support=(f"{better}: {counted} ({limits})",))


def _regressions(kind: str, groups: dict[str, list[str]], pairs: dict[str, tuple[bool, bool]]) -> Found:
    """The tasks or conditions on which the candidate is shown to be worse. groups: name -> its scenes."""
    faced = {name: [pairs[scene] for scene in scenes if scene in pairs] for name, scenes in groups.items()}
    faced = {name: told for name, told in sorted(faced.items()) if told}
    refusals = []
    for name, told in faced.items():
        gained, lost = _discordant(told)
        chance = worse(gained, lost)
        if chance < ALPHA / len(faced):
            counted = f"it wins {gained} of {len(told)} scenes that the champion loses and loses {lost} that the champion wins"
            refusals.append(f"worse than the champion on the {kind} {name!r}: {counted} (exact McNemar test p = {chance:.2g}, {len(faced)} looked at)")
    return Found(tuple(refusals), () if refusals or not faced else (f"worse on none of {len(faced)} {kind}s",))


def _instead(champion: dict[str, Any]) -> str:
    """What a person can do about a champion with which nothing can be compared."""
    return f". {told}; `promote` moves the champion by hand" if (told := champion.get("unreadable")) else ""


def _offline(offline: dict[str, Any], reigning: dict[str, Any] | None, settings: GateSettings) -> Found:
    candidate, champion = offline["candidate"], offline.get("champion")
    found, earlier = (math.nan if each is None or each["error"] is None else each["error"] for each in (candidate, champion))  # JSON has no NaN
    about = f"decided offline, without rollouts, on {candidate['episodes']} held-out episodes of {len(candidate['by_day'])} days"
    error = f"error {found:.3f} of the actions' spread, mean over episodes"
    if not found < settings.offline_floor:  # an error that is no number is refused too
        return Found((f"{about}: {error}, is no better than always predicting the mean action ({settings.offline_floor:g} is the limit)",))
    if champion is None and reigning is not None:
        return Found((f"{about}: {error}, but the champion could be asked about none of them{_instead(reigning)}",))
    if champion is None:
        return Found(support=(f"{about}: {error}, is below {settings.offline_floor:g}", "there is no other champion to compare with"))
    limit = earlier * (1 + settings.offline_margin)
    against = f"{error}, the champion's is {earlier:.3f}, and at most {settings.offline_margin:.0%} more is allowed"
    if not found <= limit:
        return Found((f"{about}: worse than the champion: {against}",))
    return Found(support=(f"{about}: as good as the champion: {against}",))
