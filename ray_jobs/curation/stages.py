"""Which stages run: the one place to add your own."""

from ray_jobs.curation.embedding import Layout
from ray_jobs.curation.images import Images
from ray_jobs.curation.pick_place import PickPlace
from ray_jobs.curation.segments import Decode
from ray_jobs.curation.signals import Signal
from ray_jobs.curation.stage import Stage
from ray_jobs.curation.tagging.heuristic import Tags
from ray_jobs.curation.value import Value
from ray_jobs.curation.vision import Vision
from ray_jobs.seam.configs import MeasureSettings

DECODE = Decode()
TASKS: dict[str, type[Stage]] = {"pick_place": PickPlace}


def measuring(settings: MeasureSettings) -> list[Stage]:
    """The stages whose rows enter the ledger, in order. Upstream first."""
    task = [TASKS[settings.task]()] if settings.task in TASKS else []
    embedding = Vision(settings.embedding) if settings.embedding else Layout()
    return [Signal(), Images(), embedding, Value(), *task, Tags()]
