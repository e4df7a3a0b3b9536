"""What curation is worth to the robot: the same training on everything, on what was kept, on a random drop, and on the clean truth.

`python -m benchmarks.curation_effect [--seeds N] [--scenes N] [--days N]`. A fleet records days with planted damage; each arm trains policies with
equal steps and several seeds, and rolls them out on the same scenes. Then each group of checks is taken away in turn and the days are judged again.
Once more with mild damage alone, and with a policy that sees pixels. The planted truth decides who is in the arm "clean" and nothing else.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.fleet_days import FleetDays, record, verdict_of
from benchmarks.results import RESULTS, figure, write
from fleet.defects import DEFECTS
from orchestration.curation import checks, judge
from ray_jobs.effect.arms import Shape, extract, pooled, run_arm
from ray_jobs.seam.configs import EvaluateSettings, TrainSettings
from ray_jobs.seam.proportions import wilson
from ray_jobs.training.samples import Moments

WORKERS = 2
FIRST_SEED = 3001  # of a recorded day; thresholds were tuned below 100, detection is measured on 1001 to 1010
ROBOTS, PER_ROBOT = 3, 12
KINDS = tuple(name for name, defect in DEFECTS.items() if defect.cameras == 1)
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "curation-effect.png"
STUDIES = {  # name -> share of strong damage, training
    "strong": (1.0, TrainSettings()),
    "mild": (0.0, TrainSettings()),
    "pixels": (1.0, TrainSettings(policy="cnn", batch=64, steps=1500)),
}
REMOVED = ("recording", "motion", "commands", "pictures", "habits", "outcome", "duplicates")
TITLES = {
    "all": "everything recorded",
    "random_drop": "a random drop of the same size",
    "curated": "curated",
    "clean": "the clean truth",
    **{
        f"without_{name}": f"curated without the checks of {name}"
        for name in ("recording", "motion", "commands", "pictures", "habits", "outcome", "duplicates")
    },
}
Arms = dict[str, list[list[str]]]  # arm -> training seed -> episodes

_samples: dict[str, Moments] = {}  # of a worker's process


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--studies", nargs="*", default=list(STUDIES), choices=list(STUDIES))
    asked = parser.parse_args()
    size = {"seeds": asked.seeds, "scenes": asked.scenes, "days": asked.days}
    path = RESULTS / "curation_effect.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    studies = before["arms"] if size.items() <= before.items() else {}  # other studies of this size are kept
    for name in asked.studies:
        studies[name] = study(name, asked.seeds, asked.scenes, asked.days)
        studies = {each: studies[each] for each in STUDIES if each in studies}
        picture(studies, PICTURE)  # after each: the last one takes half an hour
        write("curation_effect", [each for study_name, told in studies.items() for each in figures(study_name, told)], **size, arms=studies)


def study(name: str, seeds: int, scenes: int, days: int) -> dict[str, Any]:
    """Arm -> what `pooled` says of it, or why it could not be trained."""
    strong, training = STUDIES[name]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="effect-") as folder:
        fleet = record(Path(folder), tuple(range(FIRST_SEED, FIRST_SEED + days)), PER_ROBOT, KINDS, strong)
        samples, shape = readable(fleet, training.policy)
        chosen = arms(fleet, sorted(samples), seeds, groups=name == "strong")
        print(f"{name}: {len(samples)} episodes in {time.monotonic() - started:.0f} s;", {arm: len(each[0]) for arm, each in chosen.items()}, flush=True)
        orders, places = [], []
        for arm, drawn in chosen.items():
            for seed, episodes in enumerate(drawn):
                order = (episodes, shape, training.model_copy(update={"seed": seed}), EvaluateSettings(rollouts=scenes))
                places.append((arm, seed, orders.index(order) if order in orders else len(orders)))
                orders += [order] if order not in orders else []  # two arms of the same episodes are one training
        with multiprocessing.get_context("spawn").Pool(WORKERS, _hold, (samples,)) as pool:
            told = pool.map(_train, orders, chunksize=1)
    results: dict[str, dict[int, Any]] = defaultdict(dict)
    for arm, seed, place in places:
        results[arm][seed] = told[place]
    found = {arm: pooled(each) for arm, each in results.items()}
    for arm, each in found.items():
        print(f"{name:8} {TITLES[arm]:45} {each if isinstance(each, str) else _line(each)}", flush=True)
    return found


def _line(told: dict[str, Any]) -> str:
    rates = ", ".join(f"{each['rate']:.0%}" for each in told["training_seeds"].values())
    return f"{told['episodes']:4} episodes {told['rate']:6.1%} ({rates})"


def _hold(samples: dict[str, Moments]) -> None:
    _samples.update(samples)


def _train(order: tuple[list[str], Shape, TrainSettings, EvaluateSettings]) -> dict[str, Any] | str:
    episodes, shape, training, evaluation = order
    return run_arm(_samples, episodes, shape, training, evaluation)


def readable(fleet: FleetDays, policy: str) -> tuple[dict[str, Moments], Shape]:
    """What a training could read, whatever was planted."""
    ids = sorted({row["episode_id"] for row in fleet.judged() if row["verdict"] != "superseded"})
    read = extract(fleet.store.config, ids, policy)
    told = {episode: each for episode, each in read.items() if not isinstance(each, str)}
    shape = next(iter(told.values()))[0]
    return {episode: rows for episode, (other, rows) in told.items() if other == shape}, shape


def arms(fleet: FleetDays, usable: list[str], seeds: int, groups: bool) -> Arms:
    """The random drop is as many as curation kept, drawn anew for each seed without looking at them."""
    verdicts = fleet.judged()
    kept, clean = _kept(verdicts, usable), _clean(fleet, verdicts, usable)
    made: Arms = {
        "all": [usable] * seeds,
        "random_drop": [sorted(random.Random(seed).sample(usable, len(kept))) for seed in range(seeds)],
        "curated": [kept] * seeds,
        "clean": [clean] * seeds,
    }
    for name, without in GROUPS.items() if groups else ():
        with without():
            made[f"without_{name}"] = [_kept(fleet.judged(), usable)] * seeds
    return made


def _kept(verdicts: list[dict[str, Any]], usable: list[str]) -> list[str]:
    return sorted({row["episode_id"] for row in verdicts if row["verdict"] == "kept"} & set(usable))


def _clean(fleet: FleetDays, verdicts: list[dict[str, Any]], usable: list[str]) -> list[str]:
    by_file: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in verdicts:
        by_file[row["upload"]].append(row)
    rows = [verdict_of(row, by_file) for row in fleet.truth if row.defect is None and row.success]
    return sorted({row["episode_id"] for row in rows if row is not None} & set(usable))


def _without_checks(chosen: Callable[[Any], bool]) -> Callable[[], Any]:
    return lambda: patch.object(checks, "CHECKS", tuple(check for check in checks.CHECKS if not chosen(check)))


@contextmanager
def _without_duplicates() -> Iterator[None]:
    with ExitStack() as patches:
        for name in ("reject_duplicates", "reject_copies"):
            patches.enter_context(patch.object(judge, name, lambda *arguments: None))
        yield


def _module(name: str) -> Callable[[], Any]:
    return _without_checks(lambda check: check.__module__.endswith(f".{name}") and check is not checks.task_outcome)


GROUPS: dict[str, Callable[[], Any]] = {
    **{name: _module(name) for name in ("recording", "motion", "commands", "pictures", "habits")},
    "outcome": _without_checks(lambda check: check is checks.task_outcome),
    "duplicates": _without_duplicates,
}


def permutation_p(one: list[float], other: list[float]) -> float:
    """One-sided exact permutation test over training seeds: the chance that a split of all rates favours the first by as much or more."""
    together, count = one + other, len(one)
    splits = [sum(together[place] for place in chosen) for chosen in combinations(range(len(together)), count)]
    return sum(total >= sum(one) - 1e-12 for total in splits) / len(splits)


def figures(name: str, told: dict[str, Any]) -> list[dict[str, Any]]:
    rates = {arm: each["rate"] for arm, each in told.items() if not isinstance(each, str)}
    by_seed = {arm: [seed["rate"] for seed in each["training_seeds"].values()] for arm, each in told.items() if not isinstance(each, str)}
    goals = name == "strong"

    def goal(text: str) -> str:
        return text if goals else "reported"

    curated = rates["curated"]
    found = [figure(f"{name}.{arm}", rate, f"success, {len(by_seed[arm])} seeds", None, None, "reported", True) for arm, rate in rates.items()]
    for arm, least, text in (("clean", -0.03, ">= -0.03"), ("all", 0.2, ">= 0.2"), ("random_drop", 0.0, ">= 0")):
        if arm in rates:
            gain = curated - rates[arm]
            found.append(figure(f"{name}.curated_minus_{arm}", gain, "of success", (TITLES[arm], rates[arm]), None, goal(text), not goals or gain >= least))
    if "random_drop" in rates:
        p = permutation_p(by_seed["curated"], by_seed["random_drop"])
        found.append(figure(f"{name}.p_above_random_drop", p, "one-sided exact permutation over seeds", None, None, goal("< 0.01"), not goals or p < 0.01))
    return found


def picture(studies: dict[str, dict[str, Any]], path: Path) -> None:
    """One panel per study: success per arm with the Wilson interval of all its rollouts, and a point per training seed."""
    from matplotlib.figure import Figure

    counts = [sum(not isinstance(each, str) for each in told.values()) for told in studies.values()]
    drawn = Figure(figsize=(8, 1.2 + 0.34 * sum(counts)), dpi=100, layout="constrained")
    panels = drawn.subplots(len(studies), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    titles = {"strong": "strong damage, keypoint policy", "mild": "mild damage, keypoint policy", "pixels": "strong damage, policy from pixels"}
    for panel, (name, told) in zip(panels, studies.items(), strict=True):
        shown = {arm: each for arm, each in told.items() if not isinstance(each, str)}
        for place, (arm, each) in enumerate(shown.items()):
            low, high = wilson(each["successes"], each["rollouts"])
            colour = {"curated": "tab:green", "clean": "tab:blue"}.get(arm, "tab:gray" if not arm.startswith("without") else "tab:olive")
            panel.barh(place, each["rate"], xerr=[[each["rate"] - low], [high - each["rate"]]], color=colour, alpha=0.6, capsize=3)
            seeds = [seed["rate"] for seed in each["training_seeds"].values()]
            panel.plot(seeds, [place] * len(seeds), ".", color="black", markersize=5)
        panel.set_yticks(range(len(shown)), [f"{TITLES[arm]} ({each['episodes']})" for arm, each in shown.items()], fontsize=8)
        panel.invert_yaxis()
        panel.set_title(titles[name], fontsize=9, loc="left")
        panel.set_xlim(0, 1)
    panels[-1].set_xlabel("success in closed loop (points: training seeds; whiskers: 95 % interval)", fontsize=8)
    drawn.savefig(path)


if __name__ == "__main__":
    main()
