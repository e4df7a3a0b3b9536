"""The `flywheel` command behind the Makefile's verbs."""

import argparse
import getpass
import json
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.seam.errors import FlywheelError

if TYPE_CHECKING:
    from orchestration.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flywheel", description="The daily robot-learning loop, run by Dagster on Ray.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    loop = verbs.add_parser("loop", help="three days of a simulated fleet, or your own recordings, through the whole loop")
    loop.add_argument("--data", type=Path, help="a folder of your own recordings (MCAP files, LeRobot folders)")
    loop.add_argument("--days", type=int, default=3, help="days of the simulated fleet")
    ui = verbs.add_parser("ui", help="Dagster's UI over the runs that the loop made")
    ui.add_argument("--data", type=Path, help="the folder whose loop is to be shown")
    ui.add_argument("--port", type=int, default=3000)
    override = verbs.add_parser("override", help="decide about an episode yourself; it survives every re-judging")
    override.add_argument("episode", help="the episode's id, or its first characters")
    override.add_argument("verdict", choices=["keep", "reject", "withdraw"])
    override.add_argument("--reason", default="", help="why; it stands on the verdict")
    override.add_argument("--day", help="the episode's day, where its id is in several")
    review = verbs.add_parser("review", help="a page of a day's episodes: clips, reasons, and the signal around the moment of each")
    review.add_argument("day", help="YYYY-MM-DD")
    preview = verbs.add_parser("preview", help="what other thresholds, or newer stages, would change: counts by reason, before any compute")
    preview.add_argument("--thresholds", type=Path, help="a YAML document of the thresholds that change; without it, those of the settings")
    preview.add_argument("--days", default="", help="FIRST..LAST, or one day; without it, all that are judged")
    explain = verbs.add_parser("explain", help="what made a model: its days, episodes, robot-hours, selection, code, seeds, cost, and how it was judged")
    explain.add_argument("model", help="the model's hash, or its first characters")
    where = verbs.add_parser("where", help="where an episode went: every model that learned from it or held it out")
    where.add_argument("episode", help="the episode's id, or its first characters")
    where.add_argument("--day", help="the episode's day, where its id is in several")
    verify = verbs.add_parser("verify", help="read a dataset back, every byte, and compare it with its manifest")
    verify.add_argument("manifest", help="URL or file of a manifest.json, or its key in the compute store")
    for verb in (override, review, preview, explain, where, verify):
        verb.add_argument("--data", type=Path, help="the folder of own recordings whose loop is meant; else FLYWHEEL_SETTINGS, else the demo")
    verbs.add_parser("clean", help="remove what the loops made")
    chosen = parser.parse_args(arguments)
    for asked in (signal.SIGINT, signal.SIGTERM):  # asked to end is asked to end, by key or by signal; a background shell had SIGINT ignored
        signal.signal(asked, signal.default_int_handler)
    try:
        carry_out = {
            "loop": _loop,
            "ui": _ui,
            "override": _override,
            "review": _review,
            "preview": _preview,
            "explain": _explain,
            "where": _where,
            "verify": _verify,
            "clean": _clean,
        }
        return carry_out[chosen.verb](chosen)
    except FlywheelError as error:
        print(f"flywheel: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("flywheel: stopped; run it again to continue", file=sys.stderr)
        return 130


def _loop(chosen: argparse.Namespace) -> int:
    from orchestration.local import loop, report
    from orchestration.settings import REPOSITORY, load

    started = time.monotonic()
    target = load(REPOSITORY / "flywheel.yaml").home_path / "loop.json"
    rows = loop.own(chosen.data) if chosen.data else loop.demo(chosen.days)
    seconds = time.monotonic() - started
    target.write_text(json.dumps({"seconds": round(seconds, 1), "data": str(chosen.data) if chosen.data else "simulated fleet", "days": rows}, indent=1))
    if rows:
        print("\n" + report.table(rows))
    if chosen.data:
        for row in rows:
            for episode in row.get("episodes", []):
                print(f"{row['day']}  {episode['verdict']:<11} {episode['upload']}  {episode['episode_id'][:8]}  {'; '.join(episode['reasons'])}")
    ui = f"make ui DATA={chosen.data}" if chosen.data else "make ui"
    print(f"\n{seconds:.0f} s in all; the same as JSON in {target}; `{ui}` shows runs, lineage and pictures")
    return 0


def _ui(chosen: argparse.Namespace) -> int:
    from orchestration.local import dagster_dev, loop
    from orchestration.settings import REPOSITORY, load

    document = loop.own_document(loop.own_home(chosen.data), chosen.data) if chosen.data else REPOSITORY / "flywheel.yaml"
    with dagster_dev.dagster_dev(load(document), document, chosen.port) as dagster:
        print(f"Dagster's UI: {dagster.url}  (Ctrl-C ends it)", flush=True)
        signal.pause()
    return 0


def _settings(chosen: argparse.Namespace) -> "Settings":
    from orchestration.local import loop
    from orchestration.settings import load

    return load(loop.own_document(loop.own_home(chosen.data), chosen.data)) if chosen.data else load()


def _override(chosen: argparse.Namespace) -> int:
    from orchestration.curation import overrides
    from ray_jobs.seam.store import Store

    store = Store(_settings(chosen).store_config())
    day, episode = overrides.find(store, chosen.episode, chosen.day)
    key = overrides.key_of(day, episode)
    if chosen.verdict == "withdraw":
        store.delete(key)
        print(f"{key} is gone: the machine's verdict counts again")
    else:
        print(overrides.write(store, day, overrides.decided(episode, chosen.verdict, chosen.reason, getpass.getuser())))
    print(f"it counts once {day} is judged again: by the sensor `changed`, or materialize `verdicts` of that day (`make loop` does)")
    return 0


def _review(chosen: argparse.Namespace) -> int:
    from orchestration.curation.review.build import build
    from ray_jobs.seam.store import Store

    settings = _settings(chosen)
    print(build(Store(settings.store_config()), chosen.day, settings.home_path, f" --data {shlex.quote(str(chosen.data))}" if chosen.data else ""))
    return 0


def _preview(chosen: argparse.Namespace) -> int:
    from orchestration.curation import preview
    from ray_jobs.seam.store import Store

    settings = _settings(chosen)
    store = Store(settings.store_config())
    thresholds = preview.thresholds_of(chosen.thresholds, settings.thresholds) if chosen.thresholds else settings.thresholds
    first, _, last = chosen.days.partition("..")
    days = preview.judged_days(store, first or None, last or first or None)
    print(preview.told(preview.rejudged(store, days, thresholds), preview.measured_again(store, days, preview.versions_here(settings))))
    return 0


def _explain(chosen: argparse.Namespace) -> int:
    from orchestration.evaluation import lineage
    from ray_jobs.seam.store import Store

    print(lineage.explain(Store(_settings(chosen).store_config()), chosen.model))
    return 0


def _where(chosen: argparse.Namespace) -> int:
    from orchestration.evaluation import lineage
    from ray_jobs.seam.store import Store

    print(lineage.where(Store(_settings(chosen).store_config()), chosen.episode, chosen.day))
    return 0


def _verify(chosen: argparse.Namespace) -> int:
    from orchestration.dataset.verify import verify

    return verify(_settings(chosen), chosen.manifest)


def _clean(_: argparse.Namespace) -> int:
    from orchestration.settings import REPOSITORY, load

    shutil.rmtree(load(REPOSITORY / "flywheel.yaml").home_path, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
