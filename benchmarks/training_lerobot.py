"""Runs in the environment of tests/oracle: LeRobot's own dataset under torch's DataLoader, feeding a step of fixed service time.

With PyAV, as the oracle does: LeRobot's default, torchcodec, looks for FFmpeg's shared libraries, which no wheel brings.
Arguments: folder, batch, batches, workers, chunk, service seconds. Prints one line of JSON.
"""

import json
import sys
import time

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main(root: str, batch: int, count: int, workers: int, chunk: int, service: float) -> None:
    fps = LeRobotDataset("bench/day", root=root).fps
    dataset = LeRobotDataset("bench/day", root=root, video_backend="pyav", delta_timestamps={"action": [step / fps for step in range(chunk)]})
    began = time.monotonic()
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, num_workers=workers, drop_last=True, prefetch_factor=2)
    first, steps, started = None, 0, began
    while steps < count:
        for _ in loader:
            now = time.monotonic()
            if first is None:
                first, started = now - began, now
            else:
                steps += 1
            time.sleep(service)
            if steps == count:
                break
    print(json.dumps({"first_batch_s": first, "seconds": time.monotonic() - started, "batches": count + 1, "backend": dataset.video_backend}))


if __name__ == "__main__":
    folder, *numbers = sys.argv[1:]
    main(folder, *map(int, numbers[:4]), float(numbers[4]))
