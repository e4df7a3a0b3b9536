"""LeRobot's own reader opens what the packer writes: `python -m tests.oracle.run`.

Packs small synthetic days here, then reads them in an environment of its own (.venv-oracle, made on first use from
requirements.lock; some 8 GB on disk) with lerobot 0.4.4, and compares everything that it returns. Exits 1 on any difference.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ray_jobs.alignment import Aligned, align
from ray_jobs.driver import Execution
from ray_jobs.episode import read_episode
from ray_jobs.packing.job import run
from ray_jobs.packing.view import episodes_of, iter_episodes
from ray_jobs.seam.configs import AugmentSettings
from ray_jobs.seam.model import canonical
from ray_jobs.seam.store import Store, StoreConfig
from tests.environments import environment
from tests.packing.made import DAY, START_NS, add_episode, pack_config, packed

HERE = Path(__file__).parent


def make_datasets(folder: Path) -> list[str]:
    """Pack one flat day, one of several shapes and one with synthetic copies, and write what a reader of each LeRobot folder must see in it."""
    store = Store(StoreConfig.local(folder))
    clips = folder / "clips"
    clips.mkdir()
    flat = [
        add_episode(store, clips, "a", count=25),
        add_episode(store, clips, "b", count=12, lead_in=3),  # encoded again
        add_episode(store, clips, "c", count=30, dropped=(4, 5), task="push"),
        add_episode(store, clips, "d", count=9),
        add_episode(store, clips, "e", count=14, bf="2"),
    ]
    shapes = [
        add_episode(store, clips, "f", fps=30, state=7, cameras=("front", "wrist")),
        add_episode(store, clips, "g", fps=30, state=7, cameras=("front", "wrist"), count=33),
        add_episode(store, clips, "h", action=0),
        add_episode(store, clips, "i", cameras=()),
        add_episode(store, clips, "j", state=1, action=1, size=64),
        add_episode(store, clips, "k", fps=20, codec="libsvtav1", g="4", preset="12"),
    ]
    copied = [add_episode(store, clips, "l", count=21), add_episode(store, clips, "m", count=8)]
    made = []
    for rows, augment in ((flat, None), (shapes, None), (copied, AugmentSettings(copies=2))):
        result = run(pack_config(store, rows).model_copy(update={"augment": augment}), Execution(store, "attempts/oracle/a1/x", report=lambda message: None))[
            DAY
        ]
        if result.status != "ok" or result.counts["left_out"]:
            sys.exit(f"the packer left something out: {canonical(result.shown)}")
        dataset = packed(result)
        for index, (episode, arrays) in enumerate(zip(episodes_of(store, dataset), iter_episodes(store, dataset), strict=True)):
            target = folder / "expected" / f"{len(made):02d}-{index:02d}.npz"
            target.parent.mkdir(exist_ok=True)
            aligned = align(read_episode(store, episode.source_episode_id), episode.fps)
            facts = {"root": str(folder / episode.dataset), "episode_index": episode.episode_index, "task": episode.task, "fps": episode.fps}
            facts |= {"synthetic": episode.synthetic if augment else None}
            pictures = {f"frames/{camera}": values for camera, values in arrays.frames.items()}
            pictures |= {f"numbers/{camera}": numbers(store, episode.source_episode_id, camera, aligned) for camera in arrays.frames}
            action = arrays.action if aligned.action is None else aligned.action
            np.savez(target, allow_pickle=False, state=aligned.state, action=action, facts=np.array(canonical(facts)), **pictures)
        made.append(dataset.prefix)
    return made


def numbers(store: Store, episode_id: str, camera: str, aligned: Aligned) -> np.ndarray:
    """Which numbered picture each step must show: int [n], from the recorded times alone."""
    episode = read_episode(store, episode_id)
    steps = (episode.streams[f"camera:{camera}"].t_ns - START_NS) * episode.meta.fps / 1e9
    shown: np.ndarray = np.round(steps[aligned.frame_index[camera]]).astype(np.int64)
    return shown


def main() -> None:
    python = environment("oracle", HERE / "requirements.lock")
    os.environ["SVT_LOG"] = "0"  # the AV1 encoder's greetings
    with tempfile.TemporaryDirectory(prefix="oracle-") as name:
        make_datasets(Path(name))
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{name}/hf", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
        ended = subprocess.run([str(python), str(HERE / "compare.py"), f"{name}/expected"], env={**os.environ, **quiet})
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
