"""What each job is told: one frozen document per job. Keys name objects in `store`; nothing here is a secret."""

import math
import re
from datetime import date
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import StoreConfig


class JobConfig(Strict):
    """`days` are the partitions (YYYY-MM-DD) that this one job is to produce, in order."""

    store: StoreConfig
    days: tuple[str, ...]
    deadline_s: float = 3600.0


class Topics(Strict):
    """Which topics of a bag or MCAP file mean what. An empty choice is made by message type and usual names."""

    state: str | None = None
    action: str | None = None
    cameras: dict[str, str] = {}  # camera name -> topic
    markers: str = "/episode"


class Cuts(Strict):
    """Where a recording without markers becomes several episodes. The defaults leave every ordinary episode whole."""

    gap_s: float = 60.0  # no message of any kind for so long: the recorder was paused
    long_s: float = 1800.0  # only recordings longer than this are cut by stillness
    still_s: float = 10.0  # no joint moved for so long: one episode ends, the next begins with the next movement


class Limits(Strict):
    """What ingest refuses to open, so that no upload takes all memory or disk. An error names the limit that was met."""

    chunk_mb: int = 1024  # one chunk of a bag, unpacked
    message_mb: int = 256  # one message of a bag
    definition_kb: int = 1024  # one message definition
    picture_mpx: int = 64  # one picture, in million pixels
    values: int = 4096  # numbers in one sample of a state or action
    episode_mb: int = 4096  # numbers of one episode's streams, held in memory
    document_mb: int = 256  # a metadata document or a table of one
    unpacked_mb: int = 65536  # a file of a compressed bag, unpacked to disk
    read_s: float = 1800.0  # reading one upload in a job


class IngestSettings(Strict):
    topics: Topics = Topics()
    cuts: Cuts = Cuts()
    limits: Limits = Limits()
    hdf5_fps: float | None = None  # Hz, of HDF5 episodes that name no rate; None: 50 for ALOHA, 20 for robosuite, as these record
    day_starts_at_hour: int = 0  # UTC hour at which a robot's day begins
    earliest_day: str = "2015-01-01"  # a clock before this, or after the upload itself, is absurd
    quiet_s: float = 0.0  # an upload younger than this may still be growing, and waits


class UploadsConfig(Strict):
    """`previous` is the key of the last index, or None for the first."""

    store: StoreConfig
    raw: StoreConfig
    previous: str | None = None
    settings: IngestSettings = IngestSettings()


class IngestConfig(JobConfig):
    """`uploads` is the key of the index table; each day reads the uploads that name it."""

    raw: StoreConfig
    uploads: str
    settings: IngestSettings = IngestSettings()


class CaptionSettings(Strict):
    """A vision-language model that captions and tags each episode beside the heuristic. Which one must be said: no model is a default."""

    backend: Literal["vllm", "http"]
    model: str  # vllm: a Hugging Face id or a folder, of the Qwen-VL family; http: any that the server knows by this name
    revision: str | None = None  # of a Hugging Face model, so that the captions stay those of one model
    frames: int = Field(4, ge=1, le=16)  # of the first camera, evenly spaced
    frame_px: int = Field(224, ge=28)  # their shorter side
    max_tokens: int = Field(256, ge=16)  # of the answer
    workers: int = Field(1, ge=1)  # vllm: engines; http: requests at once
    profile: Literal["gpu", "cpu"] = "gpu"  # vllm
    engine: dict[str, Any] = {}  # vllm: further engine arguments, such as tensor_parallel_size
    url: str | None = None  # http: up to and with /v1
    credentials: str | None = None  # http: the environment variable that holds the server's key

    @model_validator(mode="after")
    def _server_is_named(self) -> "CaptionSettings":
        if (self.backend == "http") != (self.url is not None):
            raise ValueError("the backend http needs a url, and vllm has none")
        return self


class EmbeddingSettings(Strict):
    """A Hugging Face vision model that embeds frames instead of the built-in layout of light, colour and edges."""

    model: str  # a Hugging Face id, or a folder with config.json, preprocessor_config.json and model.safetensors
    revision: str | None = None  # a commit, so that the numbers stay those of one model
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch: int = Field(32, ge=1)  # frames of one forward pass
    frame_px: int = Field(224, ge=16)  # their shorter side
    fps: float = Field(2.0, gt=0)  # frames a second of recording
    gpus: float = Field(0.0, ge=0)  # of one worker; without, it runs on the CPU
    cpus: float = Field(1.0, ge=0)  # of one worker
    memory_mb: int = Field(4096, ge=1)  # of one worker
    workers: int | None = None  # None: as many as the cluster has room for and the others keep busy


class MeasureSettings(Strict):
    """How episodes are measured. `task` switches on the checks that know a task; foreign data has none."""

    task: str | None = None
    segment_s: float = 20.0
    frame_px: int = 96  # shorter side of the frames that image checks see
    embedding: EmbeddingSettings | None = None  # None: the built-in layout
    caption: CaptionSettings | None = None  # None: the heuristic tagger alone


class MeasureConfig(JobConfig):
    """`episodes`: day -> key of the day's EPISODES table."""

    episodes: dict[str, str]
    settings: MeasureSettings = MeasureSettings()


class AugmentSettings(Strict):
    """Synthetic copies of each kept episode, packed beside it and marked. Each number is the most that is drawn."""

    copies: int = Field(1, ge=1, le=16)  # of each episode
    seed: int = 0
    brightness: float = Field(0.2, ge=0, lt=1)  # share by which values are raised or lowered
    contrast: float = Field(0.2, ge=0, lt=1)  # share of their distance from middle grey
    colour: float = Field(0.2, ge=0, lt=1)  # share of their distance from the pixel's own grey
    blur_px: float = Field(1.0, ge=0)  # standard deviation of a Gaussian
    crop: float = Field(0.05, ge=0, lt=0.5)  # share of each side that is cut away, anywhere; the rest is stretched to full size


class PackConfig(JobConfig):
    """`episodes` and `verdicts`: day -> key of that table. `keep` names the verdicts that are packed. `augment`: None makes nothing up."""

    episodes: dict[str, str]
    verdicts: dict[str, str]
    keep: tuple[str, ...] = ("kept",)
    augment: AugmentSettings | None = None


class DayDataset(Strict):
    """A packed day: folder below the store, and the SHA-256 of its manifest.json."""

    day: str
    prefix: str
    manifest_sha256: str
    episodes: int
    frames: int


class CopySettings(Strict):
    """How datasets are copied. The limits are of one whole job, over all its nodes; a GB is 10^9 bytes."""

    workers: int = Field(default=16, ge=1)  # objects at a time, on each node
    bytes_per_s: float | None = Field(default=None, gt=0)
    requests_per_s: float | None = Field(default=None, gt=0)  # reads and writes of object data
    egress_usd_per_gb: float = Field(default=0.0, ge=0)  # what the source's cloud asks for each GB that leaves it
    egress_cap_usd: float | None = Field(default=None, ge=0)  # the job stops before it costs more


class CopyConfig(JobConfig):
    """Copy each day's dataset from `store` to `destination`, under the same prefix."""

    destination: StoreConfig
    datasets: dict[str, DayDataset]  # day -> dataset; a day without one has no data
    settings: CopySettings = CopySettings()


Bound = float | str  # a number, or what the view's recorded episodes say: `median`, or `p25` for a quarter of the way up


class Condition(Strict):
    """What must hold of an episode, for example {field: "score:value.rank", at_least: median}.

    field: task, robot, day, seconds, tag:NAME or score:NAME. Words are `one_of` some; numbers lie between `at_least` and `at_most`; days
    (YYYY-MM-DD) may be both. An episode that does not have it does not meet it.
    """

    field: str
    one_of: tuple[str, ...] = ()
    at_least: Bound | None = None
    at_most: Bound | None = None

    @field_validator("one_of", "at_least", "at_most", mode="before")
    @classmethod
    def _days_as_text(cls, value: Any) -> Any:
        """YAML reads 2026-01-05 without quotes as a date."""
        if isinstance(value, list | tuple):
            return tuple(each.isoformat() if isinstance(each, date) else each for each in value)
        return value.isoformat() if isinstance(value, date) else value

    @model_validator(mode="after")
    def _makes_sense(self) -> "Condition":
        kind, _, name = self.field.partition(":")
        if not (name if kind in ("tag", "score") else self.field in ("task", "robot", "day", "seconds")):
            raise ValueError(f"unknown field {self.field!r}: use task, robot, day, seconds, tag:NAME or score:NAME")
        bounds = [bound for bound in (self.at_least, self.at_most) if bound is not None]
        if kind in ("seconds", "score"):
            wrong = [bound for bound in bounds if (quantile(bound) is None if isinstance(bound, str) else not math.isfinite(bound))]
            if self.one_of or not bounds:
                raise ValueError(f"{self.field} is a number: give it at_least, at_most, or both")
            if wrong:
                raise ValueError(f"{self.field} cannot be at least or at most {wrong[0]!r}: use a number, median, or p1 to p99")
        elif kind == "day":
            if not (self.one_of or bounds) or not all(isinstance(day, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", day) for day in (*self.one_of, *bounds)):
                raise ValueError("day: give days as YYYY-MM-DD, with one_of, at_least or at_most")
        elif bounds or not self.one_of:
            raise ValueError(f"{self.field} is a word: give it one_of")
        return self


def quantile(bound: str) -> float | None:
    """The share of the view's episodes that lie below a bound in words, or None where it is no such word."""
    if bound == "median":
        return 0.5
    return int(bound[1:]) / 100 if re.fullmatch(r"p[1-9]\d?", bound) else None


class Part(Strict):
    """How often an epoch passes over the episodes of which all of `where` holds; 0 leaves them out."""

    where: tuple[Condition, ...]
    weight: float = Field(ge=0, le=100, allow_inf_nan=False)


class SelectionSettings(Strict):
    """Which episodes of the view are learned from, how often, and which are held out."""

    holdout: int = 10  # every n-th episode (by hash of its id) is held out of training
    select: tuple[Condition, ...] = ()  # all must hold
    mixture: tuple[Part, ...] = ()  # the first whose conditions hold counts; an episode that none fits has weight 1


class TrainSettings(SelectionSettings):
    start: Literal["fresh", "champion"] = "fresh"  # champion: go on from the weights, and the statistics, of the one before the day
    policy: str = "keypoints"
    steps: int = 1200
    batch: int = 128
    learning_rate: float = 2e-3
    workers: int = 2
    min_workers: int | None = Field(default=None, ge=1)  # go on with so many where there is room for no more; None: with all or not at all
    gpus: float = Field(default=0.0, ge=0)  # of one worker; with any, it trains on CUDA and its group adds up through NCCL
    hang_s: float = Field(default=300.0, gt=0)  # without a finished step; then the workers begin again from the last checkpoint
    seed: int = 0
    checkpoint_every: int = 200
    resident_mb: int = Field(default=1024, ge=0)  # a decoded view up to this size stays in Ray's object store; a larger one is decoded again each epoch

    @property
    def selection(self) -> SelectionSettings:
        return SelectionSettings(holdout=self.holdout, select=self.select, mixture=self.mixture)

    @property
    def lanes(self) -> int:
        """Parts that a batch is made of, however many workers are left to share them."""
        return max(1, self.workers)

    @property
    def micro_batch(self) -> int:
        return max(1, self.batch // self.lanes)


class Tuned(Strict):
    """What a search found: the settings that it changes, and the evidence, a document in the store."""

    day: str
    evidence: str  # key
    learning_rate: float
    batch: int
    policy: str
    trials: int
    error: float  # of the best trial, on held-out episodes
    error_as_set: float | None  # of the trial with the settings as they stand; None where it was stopped before its last step

    def apply(self, settings: TrainSettings) -> TrainSettings:
        return settings.model_copy(update={"learning_rate": self.learning_rate, "batch": self.batch, "policy": self.policy})


class TrainConfig(JobConfig):
    """The view: day datasets in `data` (the store near the compute). One model, for the last of `days`. `start`: the model to go on from, in `store`."""

    data: StoreConfig
    view: tuple[DayDataset, ...]
    start: str | None = None
    tuned: Tuned | None = None  # where `settings` come from a search
    settings: TrainSettings = TrainSettings()


class TuningSettings(Strict):
    """Small scale first: short trainings on some of the episodes, the poorer ones stopped early; the big one takes the best one's settings."""

    learning_rate: tuple[float, float] = (5e-4, 1e-2)  # drawn between, evenly by order of magnitude
    batch: tuple[int, ...] = (64, 128, 256)
    policy: tuple[str, ...] = ()  # none: the training's own
    trials: int = Field(default=9, ge=2)  # the first has the training's own settings
    episodes: float = Field(default=0.5, gt=0, le=1)  # share of the training episodes, chosen by their ids
    steps: int = Field(default=270, ge=1)  # of a trial that is never stopped
    rungs: int = Field(default=2, ge=1)  # moments at which a trial may be stopped: steps / reduction, steps / reduction ** 2, …
    reduction: int = Field(default=3, ge=2)  # of the trials that reach a rung about one in so many goes on
    workers: int = Field(default=2, ge=1)  # trials at a time
    seed: int = 0

    @model_validator(mode="after")
    def _rungs_are_steps(self) -> "TuningSettings":
        if self.steps < self.reduction**self.rungs:
            raise ValueError(f"{self.steps} steps have no {self.rungs} rungs {self.reduction} times apart: raise steps, or lower rungs")
        if not 0 < self.learning_rate[0] <= self.learning_rate[1]:
            raise ValueError("learning_rate: give two numbers above 0, the lower one first")
        if not self.batch:
            raise ValueError("batch: give at least one")
        return self


class TuningConfig(JobConfig):
    """A search over the view of the last of `days`, as TrainConfig has it. `training`: what is searched around."""

    data: StoreConfig
    view: tuple[DayDataset, ...]
    training: TrainSettings = TrainSettings()
    settings: TuningSettings = TuningSettings()


class EvaluateSettings(Strict):
    evaluator: str | None = "simulated_arm"  # None: offline action error only
    rollouts: int = 50  # seeds that every policy faces, on each level
    levels: tuple[str, ...] = ("none",)  # of domain randomisation, as the simulator names them: each is a condition
    first_seed: int = 1_000_000  # never used for training or recording
    actors: int = 2
    trials: StoreConfig | None = None  # the folder of logged trials, for the evaluator `logged_trials`
    failures: int = Field(default=4, ge=0)  # failed rollouts of the candidate that are kept as episodes


class EvaluateConfig(JobConfig):
    """`candidate` and `champion` are model prefixes in `store`; both face the same seeds, and are asked about the same held-out episodes."""

    data: StoreConfig
    view: tuple[DayDataset, ...]
    candidate: str
    champion: str | None = None
    selection: SelectionSettings = SelectionSettings()  # the policy's, whose held-out episodes are asked about
    settings: EvaluateSettings = EvaluateSettings()


class EffectConfig(JobConfig):
    """What curation is worth: train at equal steps on everything uploaded, on what was kept, and on as much drawn at random.

    `seeds` policies are trained per arm, from training.seed upwards; more than the default are for a study by hand.
    """

    episodes: dict[str, str]
    verdicts: dict[str, str]
    training: TrainSettings = TrainSettings()
    evaluation: EvaluateSettings = EvaluateSettings()
    seeds: int = Field(default=3, ge=1)
