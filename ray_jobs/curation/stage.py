"""What a measuring stage is. Bring your own: subclass Stage, add it to `ray_jobs.curation.stages.measuring`.

The unit of work is a segment, so that a three-hour recording fans out like a hundred short ones. A stage turns a segment
into a small partial (per-frame numbers, never frames), partials are merged in any grouping, and scores come last.
"""

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ray_jobs.episode import EpisodeMeta, Stream
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.model import Strict, digest

Partial = dict[str, np.ndarray]  # every array has samples (or segments) along axis 0


class Resources(Strict):
    """What one running task of a stage takes. Neighbours that ask for the same share one operator: frames are not copied.

    `pool` caps the stage's concurrent tasks; None leaves it to the cluster's CPUs.
    """

    num_cpus: float = 1.0
    memory: int = 512 * 1024 * 1024  # bytes
    pool: int | None = None


@dataclass(frozen=True)
class View:
    """One camera's part of a segment: frames [n, h, w, 3] u8 RGB (n = 0 where no stage wants frames), their times [n]
    in ns, `first` the index of the first frame in the episode, `previous` the frame before it [0 or 1, h, w, 3]."""

    t_ns: np.ndarray
    log_ns: np.ndarray
    first: int
    frames: np.ndarray
    previous: np.ndarray
    joints: np.ndarray  # [n, d] the state at the frames' times; d is 0 where there is none


@dataclass(frozen=True)
class Segment:
    """Consecutive rows of every stream: the same share of each (a clock that jumped cannot make a segment endless)."""

    meta: EpisodeMeta
    index: int
    count: int
    streams: dict[str, Stream]
    views: dict[str, View] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a stage found out about one episode. A score that could not be determined is absent, never NaN."""

    scores: dict[str, float]
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    picture: bytes | None = None


class Stage:
    """A kind of measurement.

    name, version   the ledger's key; raise `version` when the numbers change: this stage alone is measured again
    reads           upstream stages; "decode" gives frames, and a stage without it costs no decoding
    writes          prefixes of the scores and vectors it makes
    settings        names of the MeasureSettings that change its numbers
    resources       what one task takes
    """

    name: str
    version: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    resources: Resources = Resources()

    def measure(self, segment: Segment) -> Partial:
        """Small facts of one segment. Content that cannot be measured raises DataError or ValueError."""
        raise NotImplementedError

    def merge(self, partials: list[Partial]) -> Partial:
        """Join neighbours, given in recorded order. Associative: merging merges gives the same."""
        return {name: np.concatenate([part[name] for part in partials]) for name in partials[0]}

    def scores(self, merged: Partial, meta: EpisodeMeta) -> Measured:
        """The whole episode's numbers from its merged partials."""
        raise NotImplementedError


def effective_versions(stages: list[Stage], settings: MeasureSettings) -> dict[str, str]:
    """Stage -> version for the ledger: its own, its upstream's and the settings that matter, as one short text.

    A bumped stage changes its own version and those of the stages that read it, and no other.
    """
    versions: dict[str, str] = {}
    for stage in stages:
        relevant = {name: getattr(settings, name) for name in stage.settings}
        upstream = {name: versions[name] for name in stage.reads}
        versions[stage.name] = f"{stage.version}-{digest(stage.version, relevant, upstream)[:8]}"
    return versions


def pack_arrays(arrays: Partial) -> bytes:
    """Arrays as bytes for the way between tasks; nothing that could run code when read."""
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **{name.replace("/", "|"): value for name, value in arrays.items()})
    return sink.getvalue()


def unpack_arrays(data: bytes) -> Partial:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name.replace("|", "/"): archive[name] for name in archive.files}


def ledger_row(stage: Stage, version: str, episode_id: str, measured: Measured, seconds: float, now_ns: int) -> dict[str, Any]:
    """A LEDGER row. Infinite or undefined scores are dropped: absent means unknown."""
    return {
        "episode_id": episode_id,
        "stage": stage.name,
        "version": version,
        "scores": {name: float(value) for name, value in sorted(measured.scores.items()) if np.isfinite(value)},
        "vectors": {name: np.asarray(value, np.float32).ravel().tolist() for name, value in sorted(measured.vectors.items())},
        "picture": measured.picture,
        "error": None,
        "seconds": seconds,
        "measured_ns": now_ns,
    }


def error_row(stage: Stage, version: str, episode_id: str, error: str, seconds: float, now_ns: int) -> dict[str, Any]:
    """A LEDGER row that says why the content cannot be measured."""
    empty = ledger_row(stage, version, episode_id, Measured({}), seconds, now_ns)
    return {**empty, "error": error}
