"""A small real job on a cluster: what it does is told by its config, every start leaves a mark in the store, and so does every task."""

import os
import time

from ray_jobs.driver import Execution, connect, main
from ray_jobs.seam.configs import JobConfig
from ray_jobs.seam.results import DayResult


class ProbeConfig(JobConfig):
    """`marks`: prefix in the store; `<marks>/go` ends the waiting. `tasks`, each of `task_s` seconds, run on the workers in turn.

    A task that is marked in the store is not done again.
    """

    marks: str
    mode: str = "ok"
    waits: bool = False
    tasks: int = 0
    task_s: float = 1.0
    mebibytes: int = 64 * 1024  # that a hog takes
    num_gpus: float = 0.0  # that each task asks for


def task(number: int, seconds: float) -> str:
    import ray

    time.sleep(seconds)
    return f"{number} {ray.util.get_node_ip_address()}"


def hog(mebibytes: int, pause_s: float = 0.01) -> int:
    """Use memory, 16 MiB at a time, until somebody minds."""
    held = []
    for _ in range(mebibytes // 16):
        held.append(bytearray(os.urandom(1)) * (16 * 2**20))
        time.sleep(pause_s)
    return len(held)


def run(config: ProbeConfig, execution: Execution) -> dict[str, DayResult]:
    store, name = execution.store, execution.prefix.rsplit("/", 1)[1]
    print(f"probe {name} starts", flush=True)
    store.put(f"{config.marks}/starts/{name}", os.uname().nodename.encode())
    execution.progress(config.days[0], "waiting", 0, 1)
    if config.mode == "exception":
        raise ZeroDivisionError("nobody foresaw this")
    if config.mode == "driver out of memory":
        hog(config.mebibytes)
    if config.mode == "worker out of memory":
        import ray

        connect()
        # Slowly enough for Ray, which looks four times a second, to come before the kernel, of whose doing a worker's end says nothing
        ray.get(ray.remote(num_cpus=1, max_retries=0)(hog).remote(config.mebibytes, 0.1))
    if config.tasks:
        import ray

        connect()
        remote = ray.remote(num_cpus=1, num_gpus=config.num_gpus, max_retries=-1)(task)
        done = {entry.key.rsplit("/", 1)[1] for entry in store.list(f"{config.marks}/tasks/")}
        for number in range(config.tasks):
            if f"{number:03d}" not in done:
                store.put(f"{config.marks}/tasks/{number:03d}", f"{name} {ray.get(remote.remote(number, config.task_s))}".encode())
                print(f"task {number} done", flush=True)
    deadline = time.monotonic() + 600
    while config.waits and store.find(f"{config.marks}/go") is None and time.monotonic() < deadline:
        time.sleep(0.2)
    execution.progress(config.days[0], "done", 1, 1)
    return {day: DayResult(counts={"episodes": 1}, output={"by": name}, output_digest=day) for day in config.days}


if __name__ == "__main__":
    main("probe", ProbeConfig, run)
