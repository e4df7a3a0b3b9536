"""Which runs to ask for: pure functions of what is published, what is active, and what was asked before."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

GIVE_UP_AFTER = 5  # requests for one content of one day; after that a person has to look


@dataclass(frozen=True)
class Request:
    day: str
    run_key: str


@dataclass(frozen=True)
class Decision:
    requests: tuple[Request, ...]
    cursor: str
    given_up: tuple[str, ...]


def changed_days(index: Mapping[str, str], published: Mapping[str, str | None], active: frozenset[str], cursor: str | None) -> Decision:
    """The days whose uploads are not what their verdicts were made of, and that no run is working on.

    index: day -> digest of its uploads. published: day -> digest that the published verdicts came from. The run key is
    day + digest + request number: a failed or cancelled run consumes its key, so the number rises while the published
    digest still differs and nothing is active.
    """
    asked: dict[str, list[str | int]] = json.loads(cursor or "{}")
    requests, given_up, kept = [], [], {}
    for day, digest in sorted(index.items()):
        before, count = asked.get(day, ["", 0])
        count = int(count) if before == digest else 0
        if published.get(day) == digest:
            continue
        if day not in active:
            if count >= GIVE_UP_AFTER:
                given_up.append(day)
            else:
                count += 1
                requests.append(Request(day, f"{day}:{digest}:{count}"))
        kept[day] = [digest, count]
    return Decision(tuple(requests), json.dumps(kept, sort_keys=True), tuple(given_up))


def days_behind(judged: Mapping[str, str], packed_from: Mapping[str, str | None], through: frozenset[str], active: frozenset[str]) -> tuple[str, ...]:
    """The judged days that did not get through with their current verdicts, oldest first.

    judged: day -> digest of the current verdicts. packed_from: day -> digest that the packed dataset names.
    through: days whose champion decision stands on what is packed.
    """
    return tuple(day for day in sorted(judged) if day not in active and (packed_from.get(day) != judged[day] or day not in through))
