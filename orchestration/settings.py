"""One settings document per deployment: YAML, over it the environment (FLYWHEEL_TRAINING__STEPS=600), frozen and strict."""

import difflib
import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from orchestration.curation.thresholds import Thresholds
from orchestration.evaluation.gate import GateSettings
from orchestration.launching.places import Embedded, Place
from orchestration.placement.requirements import PlacementSettings, Terms
from ray_jobs.seam.configs import AugmentSettings, CopySettings, EvaluateSettings, IngestSettings, MeasureSettings, TrainSettings, TuningSettings
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import StoreConfig

REPOSITORY = Path(__file__).resolve().parents[1]


EMBEDDED = "embedded"  # the target that every deployment has


class Triggers(Strict):
    """How often arrivals are looked for, and how far back the daily schedule looks for days that did not get through."""

    enabled: bool = True  # off where something else launches every run, as `make loop` does
    poll_s: int = 30
    recent_days: int = 14
    daily_at: str = "0 5 * * *"  # cron, UTC
    keep_days: int = Field(default=14, ge=1)  # after which attempts and code archives that nothing names are swept


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FLYWHEEL_", env_nested_delimiter="__", frozen=True, extra="forbid")

    deployment: str = "local"
    home: Path = Path(".flywheel")  # Dagster's instance and the local stores; below the repository unless absolute
    store: StoreConfig | None = None  # default: <home>/store
    raw: StoreConfig | None = None  # default: <home>/raw
    compute: StoreConfig | None = None  # the store near the training cluster; default: <home>/compute
    first_day: str = "2026-01-01"  # the first daily partition
    window_days: int = Field(30, ge=1)  # training reads this many days up to and with its own
    minimum_days: int = Field(1, ge=1)  # fewer days with data than this in the window, and training refuses
    ingest: IngestSettings = IngestSettings()
    measure: MeasureSettings = MeasureSettings()
    thresholds: Thresholds = Field(default_factory=Thresholds.load)
    augment: AugmentSettings | None = None  # synthetic copies of kept episodes in the packed days; None: none
    copying: CopySettings = CopySettings()
    training: TrainSettings = TrainSettings()
    tuning: TuningSettings | None = None  # policies take the settings that the job `tune` found last; None: those of `training`
    evaluation: EvaluateSettings = EvaluateSettings(evaluator=None)
    gate: GateSettings = GateSettings()
    triggers: Triggers = Triggers()
    targets: dict[str, Place] = {}  # name -> where Ray jobs can run; `embedded` is always there
    launch: dict[str, str] = {}  # asset -> target; "default" for all others, which is `embedded` where it is not named
    placement: PlacementSettings | None = None  # choose among the targets that have an `offer` where each day is trained

    @model_validator(mode="after")
    def _known_targets(self) -> "Settings":
        if self.targets and self.deployment == "local":
            raise ValueError("deployment: give it a name of its own before it shares clusters: each deployment removes the jobs of its name that nobody owns")
        for asset, name in self.launch.items():
            if name != EMBEDDED and name not in self.targets:
                raise ValueError(f"launch.{asset} names the target {name!r}, known are {', '.join(sorted({EMBEDDED, *self.targets}))}")
        return self

    @model_validator(mode="after")
    def _known_offers(self) -> "Settings":
        terms = self.offers
        if self.placement is None:
            if terms:
                raise ValueError(f"targets.{min(terms)}.offer: nothing chooses among offers without `placement`")
            return self
        if not terms:
            raise ValueError("placement: no target has an `offer` to choose from")
        for target, offer in terms.items():
            if offer.region not in self.placement.stores:
                raise ValueError(f"placement.stores: name the store near {offer.region}, the region of the target {target}")
            for asset, name in offer.launch.items():
                if name != EMBEDDED and name not in self.targets:
                    raise ValueError(f"targets.{target}.offer.launch.{asset} names the target {name!r}, which is not there")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (env_settings, init_settings)

    @property
    def home_path(self) -> Path:
        return self.home if self.home.is_absolute() else REPOSITORY / self.home

    def target_of(self, asset: str) -> str:
        """The name of the launch target of an asset."""
        return self.launch.get(asset) or self.launch.get("default") or EMBEDDED

    @property
    def offers(self) -> dict[str, Terms]:
        """The terms of every target that placement may choose."""
        return {name: place.offer for name, place in self.targets.items() if place.offer is not None}

    def place(self, target: str) -> Place:
        return self.targets.get(target) or Embedded()

    def store_config(self) -> StoreConfig:
        return self.store or StoreConfig.local(self.home_path / "store")

    def raw_config(self) -> StoreConfig:
        return self.raw or StoreConfig.local(self.home_path / "raw")

    def compute_config(self) -> StoreConfig:
        return self.compute or StoreConfig.local(self.home_path / "compute")


def document_path() -> Path:
    """FLYWHEEL_SETTINGS, or flywheel.yaml of the repository, which is the demo's."""
    return Path(os.environ.get("FLYWHEEL_SETTINGS") or REPOSITORY / "flywheel.yaml")


def load(path: Path | None = None) -> Settings:
    """Read and check the document. Raises UserError with one line that names the key and the nearest right one."""
    path = path or document_path()
    try:
        document = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise UserError(f"cannot read the settings {path}: {error.strerror}; set FLYWHEEL_SETTINGS to a YAML document") from error
    except yaml.YAMLError as error:
        raise UserError(f"the settings {path} are not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise UserError(f"the settings {path} are not a mapping of keys to values")
    try:
        return Settings(**document)
    except ValidationError as error:
        raise UserError(f"the settings {path}: " + "; ".join(_explain(item) for item in error.errors())) from None


@cache
def current() -> Settings:
    """This process's settings, read once: a run does not change under its own feet."""
    return load()


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg']}"
    names = _known_keys(item["loc"][:-1])
    near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
    return f"unknown key {where!r}" + (f", did you mean {near[0]!r}?" if near else f"; known here: {', '.join(sorted(names))}")


def _known_keys(path: tuple[Any, ...]) -> list[str]:
    model: Any = Settings
    for part in path:
        if isinstance(part, int):
            continue  # an item of a list: its keys are those of the list's model
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = field.annotation
        if not hasattr(model, "model_fields"):
            model = next((arm for arm in getattr(model, "__args__", ()) if hasattr(arm, "model_fields")), model)
    return list(getattr(model, "model_fields", {}))
