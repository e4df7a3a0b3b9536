"""`python -m fleet record --raw FOLDER --truth FOLDER --days 2026-01-05 2026-01-06`: let the simulated fleet record."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from fleet.record import ROBOTS, record_days, record_late


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fleet")
    verbs = parser.add_subparsers(dest="verb", required=True)
    record = verbs.add_parser("record", help="record whole days")
    record.add_argument("--days", nargs="+", required=True, help="YYYY-MM-DD, UTC")
    record.add_argument("--robots", nargs="+", default=list(ROBOTS))
    record.add_argument("--episodes", type=int, default=12, help="per robot and day")
    record.add_argument("--damaged", type=float, default=0.4, help="share of the episodes that are damaged")
    record.add_argument("--workers", type=int, default=2)
    late = verbs.add_parser("late", help="record one more file for a day that has passed")
    late.add_argument("--day", required=True)
    late.add_argument("--robot", default=ROBOTS[0])
    late.add_argument("--episodes", type=int, default=4)
    late.add_argument("--number", type=int, default=1, help="tells several late uploads of one robot and day apart")
    for verb in (record, late):
        verb.add_argument("--raw", type=Path, required=True, help="where the robots upload to")
        verb.add_argument("--truth", type=Path, required=True, help="where to note what was planted; never inside --raw")
        verb.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    try:
        if given.verb == "record":
            robots = tuple(given.robots)
            made = record_days(given.raw, given.truth, tuple(given.days), robots, given.episodes, given.seed, given.damaged, workers=given.workers)
        else:
            made = [record_late(given.raw, given.truth, given.day, given.robot, given.episodes, given.seed, number=given.number)]
    except (ValueError, OSError) as error:
        sys.exit(f"fleet {given.verb}: {error}")
    for summary in made:
        print(json.dumps(asdict(summary)))
    print(f"{time.monotonic() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
