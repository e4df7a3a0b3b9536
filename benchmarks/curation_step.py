"""The step that every engine of `benchmarks.curation` is given: all checks of one episode, one after the other. No Ray, no ledger."""

from ray_jobs.curation.rows import Rows
from ray_jobs.curation.segments import read_segment, with_frames
from ray_jobs.curation.stages import measuring
from ray_jobs.episode import read_meta
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.store import Store, StoreConfig

SETTINGS = MeasureSettings(task="pick_place")
STAGES = measuring(SETTINGS)
PICKS = sorted({stage.picks for stage in STAGES if stage.picks})
_STORE: list[Store] = []


def opened(config: str) -> None:
    """Once per process: the store, as JSON."""
    if not _STORE:
        _STORE[:] = [Store(StoreConfig.model_validate_json(config))]


def by_hand(episode_id: str) -> dict[str, float]:
    store = _STORE[0]
    meta = read_meta(store, episode_id)
    segment = with_frames(read_segment(store, meta, 0, 1), store, SETTINGS.frame_px, PICKS)
    scores: dict[str, float] = {}
    rows = Rows.of(segment.streams)
    for stage in STAGES:
        scores.update(stage.scores(stage.merge([stage.measure(segment.shown_to(stage))]), meta, rows).scores)
    return scores
