"""What a person sees of an evaluation: success, its groups, the offline error by joint and horizon, and film strips."""

from typing import Any

import numpy as np

from ray_jobs.contact_sheet import contact_sheet
from ray_jobs.evaluation.evaluator import Trial, film
from ray_jobs.seam.results import Shown

FILM_ROWS = 6


def shown(found: dict[str, Any]) -> dict[str, Shown]:
    told = {"scores": Shown(type="md", value=table(found))}
    if found["groups"]:
        told["by_group"] = Shown(type="md", value=groups_table(found))
    if found["offline"]:
        told["offline_by_joint"] = Shown(type="md", value=joints_table(found["offline"]["candidate"]))
    if found["manifest"]:
        told["scenes"] = Shown(type="text", value=found["manifest"])
    if found["failures"]:
        told["failures"] = Shown(type="text", value=f"{found['failures']['episodes']} failed rollouts as a LeRobot dataset: {found['failures']['prefix']}")
    return told


def table(found: dict[str, Any]) -> str:
    """Markdown: success with its interval, and offline error, of candidate and champion."""
    lines = ["| | model | success | 95 % interval | mean seconds to it | offline error | 95 % interval |", "|---|---|---|---|---|---|---|"]
    for who in ("candidate", "champion"):
        told = found[who]
        if told is None:
            lines.append(f"| {who} | none yet | | | | | |")
            continue
        rate = f"{told['successes']} of {told['rollouts']}" if told["rollouts"] else "not rolled out"
        interval = f"{told['low']:.0%} to {told['high']:.0%}" if told["rollouts"] else ""
        seconds = f"{told['seconds_to_success']:.1f}" if told["seconds_to_success"] is not None else ""
        offline = (found["offline"] or {}).get(who)
        error = f"{offline['error']:.3f} ({offline['episodes']} episodes)" if offline else ""
        spread = f"{offline['low']:.3f} to {offline['high']:.3f} (over {offline['interval_over']})" if offline and offline["low"] is not None else ""
        lines.append(f"| {who} | {told['model'].rsplit('/', 1)[-1][:12]} | {rate} | {interval} | {seconds} | {error} | {spread} |")
    return "\n".join(lines)


def groups_table(found: dict[str, Any]) -> str:
    lines = ["| | | candidate | champion |", "|---|---|---|---|"]
    for kind, groups in sorted(found["groups"].items()):
        lines += [
            f"| {kind} | {name or '(none)'} | {_within(found['candidate'], scenes)} | {_within(found['champion'], scenes)} |" for name, scenes in groups.items()
        ]
    return "\n".join(lines)


def _within(told: dict[str, Any] | None, scenes: list[str]) -> str:
    flags = [told["by_scene"][scene] for scene in scenes if scene in told["by_scene"]] if told else []
    return f"{sum(flags)} of {len(flags)}" if flags else ""


def joints_table(offline: dict[str, Any]) -> str:
    """Mean absolute error in the action's own unit, by dimension and horizon; below it the normalised error by horizon and by day."""
    steps = range(1, len(offline["by_horizon"]) + 1)
    lines = ["| horizon in steps | " + " | ".join(map(str, steps)) + " |", "|---" * (len(steps) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{value:.4g}" for value in values) + " |" for name, values in offline["joints"].items()]
    lines += [
        "| all, share of the spread | " + " | ".join(f"{value:.3f}" for value in offline["by_horizon"]) + " |",
        "",
        "| day | episodes | error |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {day} | {told['episodes']} | {told['error']:.3f} |" for day, told in offline["by_day"].items())])


def pictures(trials: list[Trial]) -> dict[str, Shown]:
    """A film strip: failures first, up to half of it, then successes."""
    filmed = [(trial, film(trial.recording).frames) for trial in trials if trial.recording is not None]
    lost = [each for each in filmed if not each[0].success][: FILM_ROWS // 2]
    chosen = lost + [each for each in filmed if each[0].success][: FILM_ROWS - len(lost)]
    clips = [(f"scene {trial.scene}: {'success' if trial.success else 'failure'}", np.asarray(frames)) for trial, frames in chosen]
    return {"rollouts": Shown(type="md", value=contact_sheet(clips, 1))} if clips else {}
