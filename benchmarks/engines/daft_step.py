"""Daft: a class of one method per episode, in processes of its own (threads of one process would share an interpreter lock)."""

import json
import os
import sys

import daft

from benchmarks.curation_step import by_hand, opened


@daft.cls(use_process=True, max_concurrency=int(os.environ["CORES"]))
class Checks:
    def __init__(self) -> None:
        opened(os.environ["STORE"])

    @daft.method(return_dtype=daft.DataType.string())
    def measure(self, episode_id: str) -> str:
        return json.dumps(by_hand(episode_id))


if __name__ == "__main__":
    for line in sys.stdin:
        order = json.loads(line)
        frame = daft.from_pydict({"episode_id": order["names"]}).into_batches(4)
        frame.with_column("scores", Checks().measure(daft.col("episode_id"))).write_parquet(order["target"])
        print(f"measured {daft.read_parquet(order['target']).count_rows()}", flush=True)
