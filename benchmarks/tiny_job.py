"""A job that does nothing but say when its first line ran and when it was done: what is left is overhead."""

import time

FIRST_LINE = time.time()

from ray_jobs.driver import Execution, main  # noqa: E402  the clock comes first
from ray_jobs.seam.configs import JobConfig  # noqa: E402
from ray_jobs.seam.results import DayResult  # noqa: E402


def run(config: JobConfig, execution: Execution) -> dict[str, DayResult]:
    return {day: DayResult(output={"first_line": FIRST_LINE, "done": time.time()}) for day in config.days}


if __name__ == "__main__":
    main("tiny", JobConfig, run)
