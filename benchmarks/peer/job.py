"""The tiny job without any of our code: for dagster-ray (Pipes), and bare.

`python job.py WHERE SECONDS [--pipes]`: works for so many seconds, and tells its marks WHERE (a path or a URL).
"""

import time

FIRST_LINE = time.time()

import json  # noqa: E402  the clock comes first
import sys  # noqa: E402
import urllib.request  # noqa: E402
from pathlib import Path  # noqa: E402


def tell(where: str, marks: dict[str, float]) -> None:
    if where.startswith("http"):
        urllib.request.urlopen(urllib.request.Request(where, json.dumps(marks).encode(), method="PUT"), timeout=30).close()
    else:
        Path(where).write_text(json.dumps(marks))


def main() -> None:
    where, seconds = sys.argv[1], float(sys.argv[2])
    if "--pipes" in sys.argv:
        from dagster_pipes import open_dagster_pipes

        with open_dagster_pipes() as pipes:
            time.sleep(seconds)
            tell(where, {"first_line": FIRST_LINE, "done": time.time()})
            pipes.report_asset_materialization(metadata={"answer": 42})
    else:
        time.sleep(seconds)
        tell(where, {"first_line": FIRST_LINE, "done": time.time()})


if __name__ == "__main__":
    main()
