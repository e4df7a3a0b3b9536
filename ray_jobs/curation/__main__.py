"""python -m ray_jobs.curation: the job; with --episode ID, one episode in this process, under a debugger if you like.

--versions SETTINGS (MeasureSettings as JSON) prints stage -> version and measures nothing.
"""

import argparse
import hashlib
import json
import sys
from typing import Any

from ray_jobs.curation.job import run
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.curation.tagging.captions import planned
from ray_jobs.driver import main
from ray_jobs.seam.configs import MeasureConfig, MeasureSettings
from ray_jobs.seam.errors import FlywheelError
from ray_jobs.seam.store import Store, StoreConfig


def one_episode(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.curation", description="Measure one episode in this process and print its ledger rows.")
    parser.add_argument("--episode", required=True, help="the episode's id")
    parser.add_argument("--store", required=True, help="the store: a folder, a URL, or its config as JSON")
    parser.add_argument("--stage", action="append", help="only this stage; may be repeated")
    parser.add_argument("--settings", default="{}", help="MeasureSettings as JSON")
    given = parser.parse_args(arguments)
    try:
        if given.store.startswith("{"):
            config = StoreConfig.model_validate_json(given.store)
        else:
            config = StoreConfig(url=given.store) if "://" in given.store else StoreConfig.local(given.store)
        plan = Plan.of(MeasureSettings.model_validate_json(given.settings))
        if unknown := set(given.stage or ()) - set(plan.stages):
            print(f"no stage {sorted(unknown)}; there are {sorted(plan.stages)}", file=sys.stderr)
            return 2
        rows = measure_here(Store(config), given.episode, plan, given.stage)
    except (FlywheelError, ValueError) as error:
        print(str(error), file=sys.stderr)
        return 1
    for row in rows:
        print(json.dumps(_readable(row)))
    return 0


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """A ledger row as JSON: the picture becomes its size and hash."""
    picture = row["picture"]
    return {**row, "picture": f"{len(picture)} bytes of JPEG, SHA-256 {hashlib.sha256(picture).hexdigest()}" if picture else None}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--versions"]:
        print(json.dumps(planned(Plan.of(MeasureSettings.model_validate_json(sys.argv[2]))).versions))
        sys.exit(0)
    if "--episode" in sys.argv:
        sys.exit(one_episode(sys.argv[1:]))
    main("curation", MeasureConfig, run)
