"""Train on a Ray of two nodes with one CPU each, and say so where one of them is drained: `python -m tests.training.two_nodes CONFIG`.

A process of its own, with its own Ray: a drained node takes no work any more. The elastic group goes on with the one worker that has room.
"""

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from ray_jobs.driver import Execution
from ray_jobs.seam.configs import TrainConfig
from ray_jobs.seam.store import Store
from ray_jobs.training import checkpoint
from ray_jobs.training.job import run
from tests.training.faulty import faults

EXECUTION = "attempts/two-nodes/a1/first"


def main() -> None:
    config = TrainConfig.model_validate_json(Path(sys.argv[1]).read_text())
    store = Store(config.store)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
    ray.init(address=cluster.address, log_to_driver=False)
    happen = faults()  # on the node that stays
    ray.get(happen.plan.remote(pace_s=1.0))
    goes = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)

    def drain() -> None:
        while not checkpoint.steps(store, EXECUTION):
            time.sleep(0.05)
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, why = GcsClient(address=cluster.address).drain_node(goes.node_id, reason, "a test", int((time.time() + 60) * 1000))
        assert accepted, why
        print(json.dumps({"drained_at": time.time()}), flush=True)
        while checkpoint.steps(store, EXECUTION) == [20]:
            time.sleep(0.05)
        ray.get(happen.plan.remote())
        time.sleep(5.0)  # the workers have left it
        cluster.remove_node(goes)  # a drained node stays until it is taken away

    threading.Thread(target=drain, daemon=True).start()
    try:
        run(config, Execution(store, EXECUTION, report=lambda message: None))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
