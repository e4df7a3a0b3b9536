"""Trials that were carried out on real robots and written down, as an evaluator: it carries out nothing, it looks them up.

evaluation.trials names a folder. Every .csv (with a header) and .json (a list of objects) below it holds trials:

    policy      32 hex characters, the name of the model below models/ in the store
    trial       what pairs the trials of two policies: the same object at the same place, as far as people can do it
    success     true or false
    duration_s  seconds until success or the end
    task        optional; a policy must not have become worse on any one task
    condition   optional; likewise: a site, a light, an object
    seed        optional; where a trial was drawn from one
    video       optional; path below the folder, shown as a film strip
    by, notes   optional; for people

What is not understood is refused by file and line: a trial that is passed over would change the result.
"""

import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, ValidationError, field_validator

from ray_jobs.evaluation.evaluator import Evaluator, Recording, Scene, Trial
from ray_jobs.packing.video import decoded, scan
from ray_jobs.seam.configs import EvaluateSettings
from ray_jobs.seam.errors import DataError, UserError
from ray_jobs.seam.model import Strict, digest
from ray_jobs.seam.store import Store

if TYPE_CHECKING:
    from ray_jobs.training.policy import Policy

MOST_BYTES = 16 * 2**20  # of one table
FILM_PX = 96


class LoggedTrial(Strict):
    policy: str = Field(pattern=r"^[0-9a-f]{32}$")
    trial: str = Field(min_length=1, max_length=200)
    success: bool
    duration_s: float = Field(ge=0, le=86400, allow_inf_nan=False)
    task: str = ""
    condition: str = ""
    seed: int | None = None
    video: str | None = None
    by: str = ""
    notes: str = ""

    @field_validator("success", mode="before")
    @classmethod
    def _plainly(cls, value: Any) -> Any:
        told = {"true": True, "false": False, "1": True, "0": False}.get(str(value).strip().lower())
        if told is None:
            raise ValueError("must be true or false")
        return told

    @property
    def scene(self) -> Scene:
        return Scene(id=self.trial, seed=self.seed, task=self.task, condition=self.condition)


def read_trials(store: Store) -> dict[tuple[str, str], LoggedTrial]:
    """(policy, trial) -> what was logged, of the whole folder. Raises UserError, one line that names the file and the line."""
    found: dict[tuple[str, str], tuple[str, LoggedTrial]] = {}
    scenes: dict[str, tuple[str, Scene]] = {}
    for entry in sorted(store.list(), key=lambda entry: entry.key):
        suffix = entry.key.rsplit(".", 1)[-1].lower()
        if suffix not in ("csv", "json"):
            continue
        if entry.size > MOST_BYTES:
            raise UserError(f"{entry.key}: {entry.size / 2**20:.0f} MiB is too much for a table of trials, at most {MOST_BYTES / 2**20:.0f} are read: split it")
        for where, values in _rows(entry.key, suffix, store.get(entry.key)):
            trial = _understood(where, values)
            if (earlier := found.get((trial.policy, trial.trial))) is not None:
                raise UserError(f"{where}: trial {trial.trial!r} of policy {trial.policy[:8]} is logged already, at {earlier[0]}: remove one")
            place, scene = scenes.setdefault(trial.trial, (where, trial.scene))
            if scene != trial.scene:
                raise UserError(f"{where}: trial {trial.trial!r} has another task, condition or seed than at {place}: pairs must be of one scene")
            if trial.video is not None and not (_inside(trial.video) and store.exists(trial.video)):
                raise UserError(f"{where}: there is no video {trial.video!r} below the folder")
            found[trial.policy, trial.trial] = (where, trial)
    return {key: trial for key, (_, trial) in found.items()}


def _rows(key: str, suffix: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line, the values that are there). Raises UserError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{key} is not UTF-8 text (byte {error.start})") from None
    if suffix == "json":
        try:
            rows = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{key} is not JSON: {error}") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{key} is not a list of objects, one per trial")
        yield from ((f"{key} item {number}", row) for number, row in enumerate(rows, 1))
        return
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        if len(set(reader.fieldnames or ())) != len(reader.fieldnames or ()):
            raise UserError(f"{key} line 1: names a column twice")
        for row in reader:
            where = f"{key} line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{where}: has another number of columns than the header")
            yield where, {name.strip(): value.strip() for name, value in row.items() if value.strip()}
    except csv.Error as error:
        raise UserError(f"{key} line {reader.line_num}: is not CSV: {error}") from None


def _understood(where: str, values: dict[str, Any]) -> LoggedTrial:
    try:
        return LoggedTrial.model_validate(values)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'trial'}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()[:3])
        raise UserError(f"{where}: {told}") from None


def _inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/") and "\\" not in path


class LoggedTrials(Evaluator):
    """Looks up what people logged of a policy, by the model's hash. The scenes are all that any policy was tried on."""

    name = "logged_trials"
    version = "1"

    def __init__(self, settings: EvaluateSettings):
        super().__init__(settings)
        if settings.trials is None:
            raise UserError("evaluation.trials must name the folder of the logged trials (a url), since evaluation.evaluator is logged_trials")
        self._store = Store(settings.trials)
        self._trials = read_trials(self._store)
        self.content = digest([trial for _, trial in sorted(self._trials.items())])

    def scenes(self) -> tuple[Scene, ...]:
        return tuple(sorted({trial.scene.id: trial.scene for trial in self._trials.values()}.values(), key=lambda scene: scene.id))

    def trial(self, policy: "Policy", scene: Scene, record: bool) -> Trial | None:
        from ray_jobs.training.model import content_hash

        found = self._trials.get((content_hash(policy), scene.id))
        if found is None:
            return None
        film = self._film(found.video) if record and found.video else None
        return Trial(scene.id, found.success, found.duration_s, film)

    def _film(self, video: str) -> Recording | None:
        """A few small frames; None where the video cannot be read, which changes no result."""
        try:
            with self._store.local_copy(video) as path:
                wanted = set(np.linspace(0, len(scan(path).keyframes) - 1, 8).round().astype(int).tolist())
                seen = (frame for number, frame in enumerate(decoded(path)) if number in wanted)
                return Recording(np.stack([frame.to_ndarray(width=FILM_PX, height=FILM_PX, format="rgb24") for frame in seen]))
        except (DataError, ValueError):
            return None
