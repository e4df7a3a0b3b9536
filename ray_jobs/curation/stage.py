"""What a measuring stage is. Bring your own: subclass Stage, add it to `ray_jobs.curation.stages.measuring`.

The unit of work is a segment, so that a three-hour recording fans out like a hundred short ones. A stage turns a segment
into a small partial (per-frame numbers, never frames), partials are merged in any grouping, and scores come last. Samples of states and actions
are no partial: the store has them, and scores read them a few axes at a time.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ray_jobs.curation.rows import Rows
from ray_jobs.episode import EpisodeMeta, Stream
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.model import Strict, digest

Partial = dict[str, np.ndarray]  # every array has samples (or segments) along axis 0


class Resources(Strict):
    """What one worker of a stage takes. Stages that ask for the same share one operator: frames are not copied.

    `pool` fixes how many workers there are; None has them sized by what they cost and what the cluster has. `batch`: segments at once.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int = 512 * 1024 * 1024  # bytes
    pool: int | None = None
    batch: int = 1


class Picks(NamedTuple):
    """Some frames instead of all: at most `fps` a second of recording, shorter side `px` (never enlarged)."""

    px: int
    fps: float


@dataclass(frozen=True)
class View:
    """One camera's part of a segment: frames [n, h, w, 3] u8 RGB (n = 0 where no stage wants frames), their times [n]
    in ns, `first` the index of the first frame in the episode, `previous` the frame before it [0 or 1, h, w, 3; 0 for picks]."""

    t_ns: np.ndarray
    log_ns: np.ndarray
    first: int
    frames: np.ndarray
    previous: np.ndarray


@dataclass(frozen=True)
class Segment:
    """Consecutive rows of every stream: the same share of each (a clock that jumped cannot make a segment endless)."""

    meta: EpisodeMeta
    index: int
    count: int
    streams: dict[str, Stream]
    views: dict[str, View] = field(default_factory=dict)  # by camera
    picked: dict[Picks, dict[str, View]] = field(default_factory=dict)  # for the stages that want some frames only

    def shown_to(self, stage: "Stage") -> "Segment":
        """The segment as the stage sees it: its picks are its views."""
        return replace(self, views=self.picked.get(stage.picks, {}), picked={}) if stage.picks else self


@dataclass(frozen=True)
class Measured:
    """What a stage found out about one episode. A score that could not be determined is absent, never NaN."""

    scores: dict[str, float]
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    picture: bytes | None = None
    tags: dict[str, str] = field(default_factory=dict)


class Stage:
    """A kind of measurement.

    name, version   the ledger's key; raise `version` when the numbers change: this stage alone is measured again
    reads           upstream stages; "decode" gives frames, and a stage without it costs no decoding
    picks           some frames, in their own size, instead of every frame at MeasureSettings.frame_px; decoded in the same pass
    writes          prefixes of the scores and vectors it makes
    settings        names of the MeasureSettings that change its numbers
    resources       what one worker takes

    A stage is pickled on its way to a worker: keep in __init__ what is small, and load a model in `setup`.
    """

    name: str
    version: str
    reads: tuple[str, ...] = ()
    picks: Picks | None = None
    writes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    resources: Resources = Resources()
    _ready = False

    def setup(self) -> None:
        """Load what is kept between segments. A stage that has this runs in actors: once per actor, before its first segment."""

    @property
    def keeps(self) -> bool:
        """Whether it has something to keep: then it runs in actors rather than tasks."""
        return type(self).setup is not Stage.setup

    def ready(self) -> "Stage":
        """The stage, set up."""
        if not self._ready:
            self.setup()
            self._ready = True
        return self

    def measure(self, segment: Segment) -> Partial:
        """Small facts of one segment. Content that cannot be measured raises DataError or ValueError."""
        raise NotImplementedError

    def measure_batch(self, segments: list[Segment]) -> list[Partial]:
        """Up to resources.batch segments at once, of any episodes. Where it raises for content, they are measured one by one, so that an
        error stays with its episode; a segment's numbers must not depend on its company."""
        return [self.measure(segment) for segment in segments]

    def merge(self, partials: list[Partial]) -> Partial:
        """Join neighbours, given in recorded order. Associative: merging merges gives the same."""
        return {name: np.concatenate([part[name] for part in partials]) for name in partials[0]}

    def scores(self, merged: Partial, meta: EpisodeMeta, rows: Rows) -> Measured:
        """The whole episode's numbers from its merged partials, and from its samples, which `rows` gives some at a time."""
        raise NotImplementedError


def effective_versions(stages: list[Stage], settings: MeasureSettings) -> dict[str, str]:
    """Stage -> version for the ledger: its own, its upstream's and the settings that matter, as one short text.

    A bumped stage changes its own version and those of the stages that read it, and no other.
    """
    versions: dict[str, str] = {}
    for stage in stages:
        relevant = {name: getattr(settings, name) for name in stage.settings}
        if stage.picks:
            relevant["picks"] = list(stage.picks)
        upstream = {name: versions[name] for name in stage.reads}
        versions[stage.name] = f"{stage.version}-{digest(stage.version, relevant, upstream)[:8]}"
    return versions


def ledger_row(stage: Stage, version: str, episode_id: str, measured: Measured, seconds: float, now_ns: int) -> dict[str, Any]:
    """A LEDGER row. Infinite or undefined scores are dropped: absent means unknown."""
    return {
        "episode_id": episode_id,
        "stage": stage.name,
        "version": version,
        "scores": {name: float(value) for name, value in sorted(measured.scores.items()) if np.isfinite(value)},
        "vectors": {name: np.asarray(value, np.float32).ravel().tolist() for name, value in sorted(measured.vectors.items())},
        "tags": dict(sorted(measured.tags.items())),
        "picture": measured.picture,
        "error": None,
        "seconds": seconds,
        "measured_ns": now_ns,
    }


def error_row(stage: Stage, version: str, episode_id: str, error: str, seconds: float, now_ns: int) -> dict[str, Any]:
    """A LEDGER row that says why the content cannot be measured."""
    empty = ledger_row(stage, version, episode_id, Measured({}), seconds, now_ns)
    return {**empty, "error": error}
