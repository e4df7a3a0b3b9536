"""Where a model comes from, and where an episode went: `flywheel explain MODEL`, `flywheel where EPISODE`. Reads what was published, starts nothing."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestration.curation.overrides import find as find_episode
from orchestration.evaluation import history
from orchestration.placement.decision import ASSET, decision_in
from ray_jobs.seam.errors import DataError, NotFound, UserError
from ray_jobs.seam.layout import attempt_prefix, generations, pointer
from ray_jobs.seam.results import Pointer, read_pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import from_bytes

SHORTEST = 8  # characters of a model's hash
ROLES = {"trained_on": "learned from it", "held_out": "held it out"}
HOUR_NS = 3_600 * 1_000_000_000
WRITTEN = ("select", "mixture")  # settings that the selection tells in words
NEEDED = {"datasets", "settings", "steps", "resumed_from_step", "seconds", "versions", "metrics"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What the jobs behind one publication took, retries and all. seconds: None where the attempts are swept."""

    attempts: int
    seconds: float | None
    code: str | None


def find_model(store: Store, name: str) -> str:
    """The prefix of the one whole model of that name. Raises UserError where there is none, or several."""
    wanted = name.strip().removeprefix("models/").rstrip("/")
    if len(wanted) < SHORTEST:
        raise UserError(f"{name!r} is too short for a model: give at least {SHORTEST} characters of its hash")
    if store.exists(f"models/{wanted}/lineage.json"):
        return f"models/{wanted}"
    found = sorted({"/".join(entry.key.split("/")[:2]) for entry in store.list("models/") if entry.key.endswith("/lineage.json")})
    found = [prefix for prefix in found if prefix.startswith(f"models/{wanted}")]
    if len(found) != 1:
        raise UserError(f"{len(found)} models begin with {wanted!r}" + (f": {', '.join(found)}" if found else ": look at the policies in the UI for its hash"))
    return found[0]


def read_lineage(store: Store, prefix: str) -> Row:
    """The document that training wrote beside the model. Raises DataError where it is not one of this version."""
    try:
        found = json.loads(store.get(f"{prefix}/lineage.json"))
    except ValueError as error:
        raise DataError(f"{prefix}/lineage.json is not JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict) or (missing := sorted(NEEDED - found.keys())):
        raise DataError(f"{prefix}/lineage.json is not a lineage of this version" + (f": {missing[0]} is missing" if isinstance(found, dict) else ""))
    return found


def explain(store: Store, name: str) -> str:
    """Everything that made a model, as text. Raises UserError where there is no such model, or several."""
    prefix = find_model(store, name)
    lineage = read_lineage(store, prefix)
    day = max((dataset["day"] for dataset in lineage["datasets"]), default="")  # a policy is that of the last day of its view
    made, judged = _published(store, "policy", day, prefix), _published(store, "evaluation", day, prefix)
    lines = [prefix, *_made(store, prefix, lineage, made), "", *_data(store, lineage), "", *_evaluated(store, judged), "", *_reign(store, prefix)]
    return "\n".join(lines)


def _published(store: Store, asset: str, day: str, prefix: str) -> list[Pointer]:
    """The newest publication of the day whose model it is; none where there is no such."""
    for generation in reversed(generations(store, asset, day) if day else []):
        found = Pointer.model_validate_json(store.get(pointer(asset, day, generation)))
        if found.output.get("model") == prefix:
            return [found]
    return []


def _made(store: Store, prefix: str, lineage: Row, made: list[Pointer]) -> list[str]:
    config, settings = json.loads(store.get(f"{prefix}/config.json")), lineage["settings"]
    jobs = [_job(store, each) for each in made]
    code = lineage.get("code") or next((job.code for job in jobs if job.code), None)
    lines = [
        f"  policy      {config['policy']}, sees {', '.join(config['cameras']) or 'no camera'}",
        f"  trained     {lineage['steps']} steps of {settings.get('batch')} in {lineage['seconds']:.0f} s, resumed from step {lineage['resumed_from_step']}",
        f"  for         {', '.join(each.day for each in made) or 'no day that is published'}",
        f"  code        {code or 'unknown: its attempts are swept'}",
        f"  versions    {', '.join(f'{name} {version}' for name, version in sorted(lineage['versions'].items()))}",
        f"  seeds       training {settings.get('seed')}",
        *_selection(lineage.get("selection"), settings),
        *_started(store, lineage),
        *_tuned(lineage.get("tuned")),
        f"  settings    {', '.join(f'{name} {value}' for name, value in sorted(settings.items()) if name not in WRITTEN)}",
        f"  metrics     {', '.join(f'{name} {value:.4g}' for name, value in sorted(lineage['metrics'].items()))}",
    ]
    return [*lines, *(f"  cost        {_cost(store, each, job, settings)}" for each, job in zip(made, jobs, strict=True))]


def _selection(came_to: Row | None, settings: Row) -> list[str]:
    """What was asked for, what each condition came to, and how many episodes were left out for which reason."""
    every = settings.get("holdout")
    asked = "what meets all conditions" if settings.get("select") else "everything kept that has the commonest shape"
    lines = [asked + (f"; one episode in {every} held out, by its id" if every else "")]
    if came_to:
        lines.append(f"{came_to['trained_on']} of {came_to['episodes']} episodes learned from, {came_to['held_out']} held out")
        lines += [f"{each['text']}: {each['episodes']} episodes" for each in came_to["conditions"]]
        lines += [f"{each['weight']:g} times an epoch: {each['text']}, {each['episodes']} episodes" for each in came_to["mixture"]]
        lines += [f"left out: {why}, {count} episodes" for why, count in came_to["left_out"].items()]
    return [f"  {'selection' if not number else '':<11} {line}" for number, line in enumerate(lines)]


def _started(store: Store, lineage: Row) -> list[str]:
    """The models that it went on from, the nearest first."""
    chain = ancestors(lambda older: read_lineage(store, older) if store.exists(f"{older}/lineage.json") else None, lineage)
    if not chain:
        return ["  started     from fresh weights"]
    told = [f"{prefix}, trained {older['steps']} steps on {_days(older)}" if older else f"{prefix}, which is not there any more" for prefix, older in chain]
    return [f"  {'started' if not number else '':<11} from {line}" for number, line in enumerate(told)]


def _tuned(search: Row | None) -> list[str]:
    if search is None:
        return []
    as_set = f", against {search['error_as_set']:.3f} of the settings as they stand" if search["error_as_set"] is not None else ""
    return [f"  tuned       the best of {search['trials']} trials of {search['day']}: action error {search['error']:.3f}{as_set} ({search['evidence']})"]


def _days(lineage: Row) -> str:
    days = sorted(dataset["day"] for dataset in lineage["datasets"])
    return f"{days[0]} to {days[-1]}" if len(days) > 1 else "".join(days) or "no day"


def ancestors(read: Callable[[str], Row | None], lineage: Row) -> list[tuple[str, Row | None]]:
    """(prefix, lineage) of what a model went on from, and that from, and so on; None for one that was removed, where the walk ends."""
    found: dict[str, Row | None] = {}
    following: Row | None = lineage
    while following and (prefix := following.get("started_from")) and prefix not in found:
        following = found[prefix] = read(prefix)
    return list(found.items())


def _job(store: Store, published: Pointer) -> Job:
    """From the attempts of its base, as the store knows them."""
    base, _, number = (published.attempt or "").rpartition("-a")
    if not base:
        return Job(0, None, None)
    launched = _document(store, f"{attempt_prefix(base, int(number))}/attempt.json")
    seconds, count = 0.0, 0
    for attempt in range(1, int(number) + 1):
        begun, ended = (_document(store, f"{attempt_prefix(base, attempt)}/{name}.json") for name in ("submitted", "ended"))
        if begun and ended:
            seconds, count = seconds + ended["at"] - begun["at"], count + 1
    return Job(int(number), seconds if count else None, (launched or {}).get("code"))


def _document(store: Store, key: str) -> Row | None:
    data = store.find(key)
    return json.loads(data) if data else None


def _cost(store: Store, published: Pointer, job: Job, settings: Row) -> str:
    """Of the job that published the model; of its placement where it was placed."""
    if job.seconds is None:
        return f"of the run of {published.day}: unknown, its attempts are swept"
    workers = settings.get("workers") or 1
    text = f"of the run of {published.day}: {job.seconds:.0f} s in {job.attempts} attempts, at most {job.seconds * workers:.0f} worker seconds"
    if placed := published.output.get(ASSET):
        found = _decision(store, published.day, placed["id"])
        if found is not None:
            text += f"; on {found.target} ({found.region}) about {job.seconds / 3600 * found.price + found.copy_cost + found.spent:.2f} USD with its copies"
    return text


def _decision(store: Store, day: str, generation: str) -> Any:
    data = store.find(pointer(ASSET, day, generation))
    return decision_in(Pointer.model_validate_json(data)) if data else None


def _data(store: Store, lineage: Row) -> list[str]:
    """Robot-hours that it learned from by day, robot and task; and the datasets by name."""
    hours: dict[str, dict[str, float]] = {"day": defaultdict(float), "robot": defaultdict(float), "task": defaultdict(float)}
    counts: dict[str, dict[str, int]] = {kind: defaultdict(int) for kind in hours}
    lines = ["learned from"]
    unknown = 0
    for dataset in lineage["datasets"]:
        rows = episode_rows(store, dataset["day"], set(dataset["trained_on"]))
        unknown += len(dataset["trained_on"]) - len(rows)
        for row in rows.values():
            length = max(0, (row["end_ns"] or 0) - (row["start_ns"] or 0)) / HOUR_NS
            for kind, value in (("day", dataset["day"]), ("robot", row["robot"] or "unknown"), ("task", row["task"] or "none told")):
                hours[kind][value] += length
                counts[kind][value] += 1
        lines.append(
            f"  {dataset['day']}  {dataset['prefix']}  {len(dataset['trained_on'])} episodes, {len(dataset['held_out'])} held out, "
            f"{len(dataset['uploads'])} uploads, manifest {dataset['manifest_sha256'][:12]}"
        )
    for kind, found in hours.items():
        lines.append(f"by {kind}")
        lines += [f"  {value:<40} {counts[kind][value]:>7} episodes {length:>10.3f} robot-hours" for value, length in sorted(found.items())]
    if unknown:
        lines.append(f"{unknown} episodes are in no table of their day (synthetic copies, or a day ingested anew since): their hours are not counted")
    return lines


def episode_rows(store: Store, day: str, wanted: set[str]) -> dict[str, Row]:
    """Rows of EPISODES by id, from the newest table of the day that holds them."""
    found: dict[str, Row] = {}
    for generation in reversed(generations(store, "episodes", day)):
        if not wanted - found.keys():
            break
        table = Pointer.model_validate_json(store.get(pointer("episodes", day, generation))).output.get("episodes")
        try:
            rows = from_bytes(store.get(table)) if table else []
        except NotFound:
            continue
        for row in rows:
            if row["status"] == "ok" and row["episode_id"] in wanted:
                found.setdefault(row["episode_id"], row)
    return found


def _evaluated(store: Store, judged: list[Pointer]) -> list[str]:
    if not judged:
        return ["never evaluated"]
    lines = ["evaluated"]
    for each in judged:
        scores, job = each.output["scores"], _job(store, each)
        told = scores["candidate"]
        success = f"{told['successes']} of {told['rollouts']} [{told['low']:.0%}, {told['high']:.0%}]" if told["rollouts"] else "not rolled out"
        offline = (scores.get("offline") or {}).get("candidate")
        error = f", offline error {offline['error']:.3f}" if offline and offline["error"] is not None else ""
        against = (scores.get("champion") or {}).get("model") or "nobody"
        lines.append(f"  {each.day}  {success}{error}, against {against}" + (f", {job.seconds:.0f} s" if job.seconds is not None else ""))
        lines.append(f"              scenes {_scenes(store, scores.get('manifest'))}")
        if scores.get("failures"):
            lines.append(f"              failures {scores['failures']['prefix']}")
        lines += [f"              {'promoted' if each.output['promote'] else 'refused'}: {'; '.join(each.output['reasons'])}"]
    return lines


def _scenes(store: Store, key: str | None) -> str:
    """What the manifest says, in a line."""
    found = _document(store, key) if key else None
    if found is None:
        return key or "none"
    seeds = [scene["seed"] for scene in found["scenes"] if scene["seed"] is not None]
    drawn = f", seeds {min(seeds)} to {max(seeds)}" if seeds else ""
    groups = [f", {kind}s {', '.join(names)}" for kind in ("task", "condition") if (names := sorted({scene[kind] for scene in found["scenes"] if scene[kind]}))]
    return f"{len(found['scenes'])} of {found['evaluator']}{drawn}{''.join(groups)} ({key})"


def _reign(store: Store, prefix: str) -> list[str]:
    spans = reigns(history.read_moves(store)).get(prefix)
    return ["champion", *(f"  {span}" for span in spans)] if spans else ["never the champion"]


def reigns(chain: list[history.Move]) -> dict[str, list[str]]:
    """Model -> from when to when it was the champion, and by whom."""
    found: dict[str, list[str]] = {}
    for number, move in enumerate(chain):
        until = _moment(chain[number + 1]) if number + 1 < len(chain) else "now"
        by = f"the gate, on {move.day}" if move.how == "gate" else "; ".join(move.reasons)
        found.setdefault(move.model, []).append(f"from {_moment(move)} to {until}, by {by}")
    return found


def _moment(move: history.Move) -> str:
    return f"{move.when:%Y-%m-%d %H:%M}" if move.when else move.generation


def where(store: Store, start: str, day: str | None = None) -> str:
    """Every model that an episode reached, as text. `start`: its id, or the first characters. Raises UserError."""
    day, episode = find_episode(store, start, day)
    judged = read_pointer(store, "verdicts", day)
    assert judged is not None  # it was found in them
    lines = [f"{episode} of {day}"]
    for row in from_bytes(store.get(judged.output["verdicts"])):
        if row["episode_id"] == episode:
            lines.append(f"  {row['verdict']:<11} {row['robot']}, {row['task'] or 'no task'}, {row['duration_s'] or 0:.1f} s, {row['upload']}")
            lines += [f"              {reason}" for reason in row["reasons"]]
    crowned = reigns(history.read_moves(store))
    prefixes = sorted({"/".join(entry.key.split("/")[:2]) for entry in store.list("models/") if entry.key.endswith("/lineage.json")})
    lineages = {prefix: read_lineage(store, prefix) for prefix in prefixes}
    reached = []
    for prefix in prefixes:
        if roles := _roles(lineages, prefix, episode):
            reached += [f"  {prefix}  {role}" for role in roles]
            reached += [f"              champion {span}" for span in crowned.get(prefix, ())]
    return "\n".join([*lines, "models", *(reached or ["  none"])])


def _roles(lineages: dict[str, Row], prefix: str, episode: str) -> list[str]:
    """What a model did with an episode; and which it went on from that learned from it, where it did not itself."""
    own = _uses(lineages[prefix], episode)
    if any(name == "trained_on" for name, _ in own):
        older = []
    else:
        older = [(before, where) for before, told in ancestors(lineages.get, lineages[prefix]) for name, where in _uses(told, episode) if name == "trained_on"]
    return [f"{ROLES[name]}, in {where}" for name, where in own] + [f"went on from {before}, which learned from it, in {where}" for before, where in older[:1]]


def _uses(lineage: Row | None, episode: str) -> list[tuple[str, str]]:
    return [(name, dataset["prefix"]) for dataset in (lineage or {"datasets": ()})["datasets"] for name in ROLES if episode in dataset[name]]
