"""Runs in the oracle's environment: reads each LeRobot folder with lerobot 0.4.4 and compares it with what the packer meant."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from board import number_in  # beside this script: the environment has a package "tests" of its own
from lerobot.datasets.lerobot_dataset import LeRobotDataset

PIXELS = 2 / 255  # two decoders may round YUV to RGB differently


def check_folder(root: str, episodes: list[dict[str, Any]]) -> list[tuple[str, Callable[[], None]]]:
    """Named checks of one LeRobot folder; each raises AssertionError where the reader sees something else."""
    dataset = LeRobotDataset(f"oracle/{Path(root).name}", root=root, video_backend="pyav")
    episodes = sorted(episodes, key=lambda episode: episode["facts"]["episode_index"])
    lengths = [len(episode["state"]) for episode in episodes]
    starts = np.cumsum([0, *lengths])
    items = [dataset[index] for index in range(len(dataset))]

    def totals() -> None:
        assert dataset.num_episodes == len(episodes), (dataset.num_episodes, len(episodes))
        assert dataset.num_frames == len(items) == sum(lengths), (dataset.num_frames, len(items), lengths)
        assert dataset.fps == episodes[0]["facts"]["fps"]
        for index, episode in enumerate(episodes):
            meta = dataset.meta.episodes[index]
            assert (meta["dataset_from_index"], meta["dataset_to_index"], meta["length"]) == (starts[index], starts[index + 1], lengths[index])
            assert meta["tasks"] == [episode["facts"]["task"]]

    def features() -> None:
        expected = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
        expected |= {f"observation.images.{name.removeprefix('frames/')}" for name in episodes[0] if name.startswith("frames/")}
        expected |= {"observation.state"} if episodes[0]["state"].shape[1] else set()
        expected |= {"action"} if episodes[0]["action"].shape[1] else set()
        expected |= {"synthetic"} if episodes[0]["facts"]["synthetic"] is not None else set()
        assert set(dataset.features) == expected, set(dataset.features) ^ expected
        assert set(dataset.meta.stats) == expected

    def values() -> None:
        for number, episode in enumerate(episodes):
            for step in range(lengths[number]):
                item = items[starts[number] + step]
                for key, column in (("observation.state", "state"), ("action", "action")):
                    if episode[column].shape[1]:
                        np.testing.assert_array_equal(np.atleast_1d(item[key].numpy()), episode[column][step])

    def synthetic() -> None:
        for number, episode in enumerate(episodes):
            if episode["facts"]["synthetic"] is not None:
                assert all(bool(items[starts[number] + step]["synthetic"]) == episode["facts"]["synthetic"] for step in range(lengths[number]))
                assert bool(dataset.meta.episodes[number]["synthetic"]) == episode["facts"]["synthetic"]

    def times() -> None:
        for number, episode in enumerate(episodes):
            for step in range(lengths[number]):
                item = items[starts[number] + step]
                assert abs(float(item["timestamp"]) - step / episode["facts"]["fps"]) < 1e-4
                assert (int(item["episode_index"]), int(item["frame_index"]), int(item["index"])) == (number, step, starts[number] + step)

    def tasks() -> None:
        for number, episode in enumerate(episodes):
            for step in range(lengths[number]):
                assert items[starts[number] + step]["task"] == episode["facts"]["task"]

    def pixels() -> None:
        for number, episode in enumerate(episodes):
            for name, frames in episode.items():
                if not name.startswith("frames/"):
                    continue
                camera = name.removeprefix("frames/")
                for step in range(lengths[number]):
                    seen = items[starts[number] + step][f"observation.images.{camera}"].numpy().transpose(1, 2, 0)
                    assert number_in(seen * 255) == episode[f"numbers/{camera}"][step], (number, name, step)
                    difference = float(np.abs(seen - frames[step] / 255.0).max())
                    assert difference <= PIXELS, (number, name, step, difference)

    def statistics() -> None:
        for key, column in (("observation.state", "state"), ("action", "action")):
            whole = np.concatenate([episode[column] for episode in episodes]).astype(np.float64)
            if whole.shape[1]:
                np.testing.assert_allclose(dataset.meta.stats[key]["mean"], whole.mean(0), atol=1e-6)
                np.testing.assert_allclose(dataset.meta.stats[key]["std"], whole.std(0), atol=1e-6)

    checks = [totals, features, values, synthetic, times, tasks, statistics]
    if any(name.startswith("frames/") for name in episodes[0]):
        checks.append(pixels)
    return [(f"{Path(root).name} {check.__name__}", check) for check in checks]


def main(folder: Path) -> int:
    by_root: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            episode: dict[str, Any] = {name: arrays[name] for name in arrays.files}
        episode["facts"] = json.loads(str(episode["facts"]))
        by_root.setdefault(episode["facts"]["root"], []).append(episode)
    passed = failed = 0
    for root, episodes in sorted(by_root.items()):
        for name, check in check_folder(root, episodes):
            try:
                check()
            except AssertionError as error:
                failed += 1
                print(f"FAILED {name}: {' '.join(str(error).split())[:300]}")
            else:
                passed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
