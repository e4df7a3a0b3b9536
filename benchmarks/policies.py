"""How often each built-in policy succeeds, and what that costs: `python -m benchmarks.policies [NAME …] [--scenes N]`.

All learn from the same clean demonstrations, packed (H.264) and decoded as training does, and face the same scenes on each level of domain randomisation.
Times are CPU time of this process with one thread, so that another load on the machine counts little.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import RESULTS, figure, write
from fleet.arm import Arm
from fleet.levels import LEVELS
from fleet.rollout import rollout
from ray_jobs.packing.view import episodes_of
from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.proportions import wilson
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training.features import find_extractor
from ray_jobs.training.ingest import Part, read_parts
from ray_jobs.training.loop import learn
from ray_jobs.training.policy import Policy
from tests.training.recorded import demo_day

FIRST = 1_000_000  # seed of the first scene
DEMONSTRATIONS = 200
SETTINGS = {
    "keypoints": TrainSettings(steps=1200, batch=128, learning_rate=2e-3),
    "cnn": TrainSettings(steps=1500, batch=64, learning_rate=2e-3),
    "act": TrainSettings(steps=2500, batch=64, learning_rate=1e-3),
}


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("names", nargs="*", default=list(SETTINGS))
    asked.add_argument("--scenes", type=int, default=50)
    asked.add_argument("--seed", type=int, default=0)
    chosen = asked.parse_args([] if __name__ != "__main__" else None)
    torch.set_num_threads(1)
    path = RESULTS / "policies.json"
    before = json.loads(path.read_text())["policies"] if path.exists() else {}
    folder = Path(tempfile.mkdtemp(prefix="fw-"))
    try:
        store = Store(StoreConfig.local(folder / "store"))
        day = episodes_of(store, demo_day(store, folder, DEMONSTRATIONS))
        for name in chosen.names:
            before[name] = measured(store, day, name, SETTINGS[name].model_copy(update={"seed": chosen.seed}), chosen.scenes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write("policies", [each for name in SETTINGS if name in before for each in figures(name, before[name])], policies=before)


def measured(store: Store, day: list[Any], name: str, settings: TrainSettings, scenes: int) -> dict[str, Any]:
    extractor = find_extractor(name)
    began = time.process_time()
    episodes = [read_parts(store, [Part.whole(episode)], extractor, extractor.chosen(("front",))) for episode in day]
    read = time.process_time() - began
    began = time.process_time()
    policy, state = learn(name, episodes, settings, 5, ("front",))
    trained = time.process_time() - began
    spent, calls = 0.0, 0

    def act(frame: Any, state: Any) -> Any:
        nonlocal spent, calls
        started = time.process_time()
        action = policy.act({"front": frame}, state)
        spent, calls = spent + time.process_time() - started, calls + 1
        return action

    won = {level: faced(policy, act, level, scenes) for level in LEVELS}
    return {
        "settings": settings.model_dump(include={"steps", "batch", "learning_rate", "seed"}),
        "demonstrations": len(day),
        "scenes": scenes,
        "won": won,
        "weights": len(state.weights),
        "read_cpu_s": round(read, 2),
        "train_cpu_s": round(trained, 1),
        "act_ms": round(1000 * spent / calls, 3),
    }


def faced(policy: Policy, act: Any, level: str, scenes: int) -> int:
    arm, won = Arm(), 0
    for number in range(scenes):
        policy.reset()
        won += rollout(act, FIRST + number, arm=arm, level=level).success
    return won


def figures(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    made = []
    for level, won in found["won"].items():
        low, high = wilson(won, found["scenes"])
        text = f"share of {found['scenes']} scenes, 95 % interval {low:.0%} to {high:.0%}"
        made.append(figure(f"success.{name}.{level}", won / found["scenes"], text, None, None, "reported", True))
    made.append(figure(f"training.{name}", found["train_cpu_s"], "s of CPU time", None, None, "reported", True))
    made.append(figure(f"act.{name}", found["act_ms"], "ms of CPU time", None, None, "reported", True))
    return made


if __name__ == "__main__":
    main()
