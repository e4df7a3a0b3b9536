"""Overrides: what a person decided about an episode. They outlive every re-judging, and the machine's verdict stays beside them.

overrides/<day>/<episode id>.yaml in the store, written by `flywheel override` or by hand. One file per episode: two people cannot
overwrite each other's, and a day reads its own only.

    episode: 0f3a…          # all 32 characters
    verdict: keep           # or reject
    reason: the block is on the target, the camera only sees it late
    who: ada
    when: 2026-11-24T18:02:11Z
"""

import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow.parquet as pq
import yaml
from pydantic import AwareDatetime, Field, ValidationError

from ray_jobs.seam.errors import UserError
from ray_jobs.seam.model import Strict, digest
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store

Row = dict[str, Any]
PREFIX = "overrides/"
BECOMES = {"keep": "kept", "reject": "rejected"}
SHORTEST = 8  # characters of an id, as the tables show it


class Override(Strict):
    episode: str = Field(pattern=r"^[0-9a-f]{32}$")
    verdict: Literal["keep", "reject"]
    reason: str = Field(min_length=1, max_length=500)
    who: str = Field(min_length=1, max_length=100)
    when: AwareDatetime

    def told(self) -> str:
        """As a verdict's reason."""
        return f"override: {self.verdict} by {self.who} on {self.when.astimezone(UTC):%Y-%m-%d}: {' '.join(self.reason.split())}"


def key_of(day: str, episode_id: str) -> str:
    return f"{PREFIX}{day}/{episode_id}.yaml"


def state(store: Store, day: str = "") -> dict[str, str]:
    """Day -> digest of its overrides' names, sizes and etags: cheap to ask for often. Days without any are missing."""
    found: dict[str, list[list[Any]]] = {}
    for entry in store.list(f"{PREFIX}{day}"):
        found.setdefault(entry.key.split("/")[1], []).append([entry.key, entry.size, entry.etag])
    return {each: digest(sorted(files)) for each, files in found.items()}


def read(store: Store, day: str) -> dict[str, Override]:
    """Episode -> override. Raises UserError, one line that names the file: an override that is not understood is not passed over."""
    found = {}
    for entry in sorted(store.list(f"{PREFIX}{day}"), key=lambda entry: entry.key):
        override = parse(entry.key, store.get(entry.key))
        found[override.episode] = override
    return found


def parse(key: str, data: bytes) -> Override:
    """One file. Raises UserError."""
    try:
        override = Override.model_validate(yaml.safe_load(data))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{key} is not YAML: {' '.join(str(error).split())}; correct or remove it") from error
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'document'}: {item['msg']}" for item in error.errors())
        raise UserError(f"{key}: {told}; correct or remove it") from None
    if key.rsplit("/", 1)[-1] != f"{override.episode}.yaml":
        raise UserError(f"{key} is about the episode {override.episode}; the file must have its name")
    return override


def write(store: Store, day: str, override: Override) -> str:
    """Store it in place of an earlier one; returns the key."""
    key = key_of(day, override.episode)
    store.put(key, yaml.safe_dump(override.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode())
    return key


def apply(rows: list[Row], overrides: Mapping[str, Override], readable: Iterable[str]) -> list[Row]:
    """VERDICTS rows with `machine_verdict` and `override` filled in, and the person's verdict in force.

    `readable`: the episodes that could be packed at all. Of several rows of one content one can be kept: the machine's choice, else the first.
    """
    possible = set(readable)
    place: dict[str, int] = {}  # of the row that a person may have kept
    for index, row in enumerate(rows):
        if row["episode_id"] in possible and (row["episode_id"] not in place or row["verdict"] == "kept" != rows[place[row["episode_id"]]]["verdict"]):
            place[row["episode_id"]] = index
    made = []
    for index, row in enumerate(rows):
        override = overrides.get(row["episode_id"])
        verdict, reasons = row["verdict"], row["reasons"]
        if override is not None:
            reasons = [override.told(), *reasons]
            if override.verdict == "reject" or place.get(row["episode_id"]) == index:
                verdict = BECOMES[override.verdict]
            else:
                reasons[0] += " (without effect: its content is kept elsewhere, or cannot be packed)"
        made.append({**row, "verdict": verdict, "reasons": reasons, "machine_verdict": row["verdict"], "override": override.told() if override else None})
    return made


def find(store: Store, start: str, day: str | None = None) -> tuple[str, str]:
    """(day, episode id) of the one judged episode whose id starts so. Raises UserError where there is none, or more than one."""
    if len(start) < SHORTEST or set(start) - set("0123456789abcdef"):
        raise UserError(f"{start!r} is no episode id: give at least its first {SHORTEST} characters, as the tables show them")
    days = {entry.key.split("/")[2] for entry in store.list("partitions/verdicts/")} if day is None else {day}
    found = set()
    for each in sorted(days):
        pointer = read_pointer(store, "verdicts", each)
        if pointer is not None:
            ids = pq.read_table(io.BytesIO(store.get(pointer.output["verdicts"])), columns=["episode_id"])["episode_id"].to_pylist()
            found |= {(each, episode_id) for episode_id in ids if episode_id.startswith(start)}
    if not found:
        raise UserError(f"no judged episode{f' of {day}' if day else ''} starts with {start}")
    if len(found) > 1:
        listed = ", ".join(f"{episode_id} of {each}" for each, episode_id in sorted(found)[:5])
        raise UserError(f"{start} is {len(found)} episodes: {listed}; give more of the id, or --day")
    return found.pop()


def decided(episode_id: str, verdict: Literal["keep", "reject"], reason: str, who: str) -> Override:
    """An override of this moment. Raises UserError naming what is wrong with it."""
    try:
        return Override(episode=episode_id, verdict=verdict, reason=reason, who=who, when=datetime.now(UTC).replace(microsecond=0))
    except ValidationError as error:
        raise UserError("; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())) from None
