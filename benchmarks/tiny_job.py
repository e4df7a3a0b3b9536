"""A job that does nothing but say when its first line ran and when it was done: what is left is overhead."""

import time

FIRST_LINE = time.time()

from ray_jobs.driver import Execution, main  # noqa: E402  the clock comes first
from ray_jobs.seam.configs import JobConfig  # noqa: E402
from ray_jobs.seam.results import DayResult  # noqa: E402


class TinyConfig(JobConfig):
    """`until`: key of an object that ends the waiting; without it nothing is waited for."""

    until: str | None = None


def run(config: TinyConfig, execution: Execution) -> dict[str, DayResult]:
    while config.until and execution.store.find(config.until) is None:
        time.sleep(0.5)
    return {day: DayResult(counts={"answer": 42}, output={"first_line": FIRST_LINE, "done": time.time()}) for day in config.days}


if __name__ == "__main__":
    main("tiny", TinyConfig, run)
