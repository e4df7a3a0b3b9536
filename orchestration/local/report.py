"""The table that the loop ends with, read from what was published and from nowhere else."""

from collections import Counter
from typing import Any

from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes

ARMS = ("all", "random_drop", "curated")  # of the study


def day_row(store: Store, day: str, seconds: float) -> dict[str, Any]:
    """One day as the loop reports it. success: of what -> rate, Wilson bounds, rollouts; what was not rolled out is missing.

    `policy` is the one that the gate judged. The arms are the study's own policies, several per arm that differ in their
    training seed: theirs is the mean, and by_training_seed has each.
    """
    row: dict[str, Any] = {"day": day, "seconds": round(seconds, 1), "rejected_by_reason": {}, "success": {}, "champion": None}
    verdicts = read_pointer(store, "verdicts", day)
    if verdicts:
        row |= {name: verdicts.counts.get(name, 0) for name in ("uploaded", "kept", "rejected", "quarantined", "superseded")}
        rows = from_bytes(store.get(verdicts.output["verdicts"]))
        why: Counter[str] = Counter()
        for each in rows:
            if each["verdict"] in {"rejected", "quarantined"}:
                why[(each["reasons"] or ["unknown"])[0].split(":")[0]] += 1
        row["rejected_by_reason"] = dict(why.most_common())
        row["robot_minutes"] = round(sum(each["duration_s"] or 0.0 for each in rows) / 60, 2)
        row["episodes"] = [{key: each[key] for key in ("episode_id", "upload", "verdict", "reasons")} for each in rows]
    evaluated = read_pointer(store, "evaluation", day)
    if evaluated and evaluated.output.get("scores"):
        scores = evaluated.output["scores"]
        row["offline"] = scores.get("offline")
        if scores.get("candidate") and scores["candidate"].get("rollouts"):
            row["success"]["policy"] = _rate(scores["candidate"])
    effect = read_pointer(store, "curation_effect", day)
    if effect:
        row["not_trained"] = effect.output.get("failed", {})
        for arm, scores in effect.output["arms"].items():
            row["success"][arm] = {**_rate(scores), "by_training_seed": {seed: each["rate"] for seed, each in scores["training_seeds"].items()}}
    decided = read_pointer(store, "champion", day)
    if decided:
        row["champion"] = {"promoted": decided.output["promoted"], "model": decided.output["model"], "reasons": decided.output["reasons"]}
    dataset = read_pointer(store, "curated_dataset", day)
    if dataset:
        row["dataset"] = dataset.output.get("dataset")
        if dataset.counts.get("left_out") and "left_out" in dataset.shown:
            row["left_out"] = dataset.shown["left_out"].value
    return row


def _rate(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: scores[name] for name in ("rate", "low", "high", "rollouts")}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text of fixed columns, with the reasons below."""
    rated = [of for of in ("policy", *ARMS) if any(of in row["success"] for row in rows)]
    head = [
        "day",
        "uploaded",
        "kept",
        "rejected",
        "quarant.",
        "superseded",
        "robot min",
        *("policy success" if of == "policy" else f"study: {_name(of)}" for of in rated),
        "champion",
        "seconds",
    ]
    lines = [head]
    for row in rows:
        successes = [_percent(row["success"][of]) if of in row["success"] else "-" for of in rated]
        champion = "-" if not row["champion"] else "promoted" if row["champion"]["promoted"] else "refused"
        counts = [str(row.get(name, "-")) for name in ("uploaded", "kept", "rejected", "quarantined", "superseded", "robot_minutes")]
        lines.append([row["day"], *counts, *successes, champion, f"{row['seconds']:.0f}"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zip(line, widths, strict=True))) for line in lines
    ]
    for row in rows:
        if row["rejected_by_reason"]:
            text.append(f"{row['day']}  set aside: " + ", ".join(f"{reason} {count}" for reason, count in row["rejected_by_reason"].items()))
        if row.get("left_out"):
            text.append(f"{row['day']}  kept, but not packed: " + " ".join(row["left_out"].split()))
        studied = [f"{_name(arm)} {_seeds(row['success'][arm])}" for arm in ARMS if arm in row["success"]]
        studied += [f"{_name(arm)} could not be trained {reason}" for arm, reason in row.get("not_trained", {}).items()]
        if studied:
            text.append(f"{row['day']}  study, trained on, by training seed: " + "; ".join(studied))
        if row["champion"]:
            text.append(f"{row['day']}  champion {'promoted' if row['champion']['promoted'] else 'refused'}: " + "; ".join(row["champion"]["reasons"]))
    return "\n".join(text)


def _name(arm: str) -> str:
    return arm.replace("_", " ")


def _percent(rate: dict[str, Any]) -> str:
    return f"{rate['rate']:.0%} [{rate['low']:.0%}, {rate['high']:.0%}]"


def _seeds(rate: dict[str, Any]) -> str:
    return ", ".join(f"{each:.0%}" for each in rate["by_training_seed"].values())
