"""MCAP files. What their topics mean: topics.py; where episodes begin and end: recorder.py."""

from collections.abc import Iterator
from pathlib import Path

from ray_jobs.ingest.joined import bag_files, episodes_of_files
from ray_jobs.ingest.log import Record, Survey
from ray_jobs.ingest.mcap_file import MAGIC, peeked, ranged, records, surveyed
from ray_jobs.ingest.reader import Recorded, Refused, Upload, UploadFacts, spanned
from ray_jobs.seam.configs import IngestSettings, Limits
from ray_jobs.seam.store import Store


class McapLog:
    """One MCAP file as a Log."""

    def __init__(self, path: Path, limits: Limits):
        self.path, self.limits = path, limits

    def survey(self) -> Survey:
        with open(self.path, "rb") as source:
            return surveyed(source, self.limits)

    def records(self, losses: list[str]) -> Iterator[Record]:
        with open(self.path, "rb") as source:
            yield from records(source, losses, self.limits)


class McapReader:
    name = "mcap"
    folder_marker: str | None = None

    def recognises(self, upload: Upload, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def peek(self, store: Store, upload: Upload) -> UploadFacts:
        facts = []
        for entry in bag_files(upload, ".mcap"):
            survey = peeked(ranged(store, entry.key, entry.size), entry.modified_ns)
            facts.append(UploadFacts(survey.metadata.get("recording", {}).get("robot"), survey.start_ns, survey.end_ns))
        return spanned(facts)

    def read(self, store: Store, upload: Upload, settings: IngestSettings) -> Iterator[Recorded | Refused]:
        files = bag_files(upload, ".mcap")
        yield from episodes_of_files(store, upload, files, lambda path, entry: McapLog(path, settings.limits), self.name, settings)
