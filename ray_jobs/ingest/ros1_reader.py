"""ROS 1 bags. What their topics mean: topics.py; where episodes begin and end: recorder.py."""

from collections.abc import Iterator
from pathlib import Path

from ray_jobs.ingest.joined import bag_files, episodes_of_files
from ray_jobs.ingest.log import Record, Survey
from ray_jobs.ingest.mcap_file import ranged
from ray_jobs.ingest.reader import Recorded, Refused, Upload, UploadFacts, spanned
from ray_jobs.ingest.ros1_file import MAGIC, peeked, records, surveyed
from ray_jobs.seam.configs import IngestSettings, Limits
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store


class Ros1Log:
    """One ROS 1 bag as a Log."""

    def __init__(self, path: Path, limits: Limits):
        self.path, self.limits = path, limits

    def survey(self) -> Survey:
        with open(self.path, "rb") as source:
            return surveyed(source, self.limits)

    def records(self, losses: list[str]) -> Iterator[Record]:
        with open(self.path, "rb") as source:
            yield from records(source, losses, self.limits)


class Ros1Reader:
    name = "ros1"
    folder_marker: str | None = None

    def recognises(self, upload: Upload, head: bytes) -> bool:
        return head.startswith(MAGIC[:7])

    def peek(self, store: Store, upload: Upload) -> UploadFacts:
        facts = []
        for entry in bag_files(upload, ".bag"):
            try:
                survey = peeked(ranged(store, entry.key, entry.size), entry.modified_ns, Limits())
            except DataError as error:
                facts.append(UploadFacts(reason=str(error)))
            else:
                facts.append(UploadFacts(start_ns=survey.start_ns, end_ns=survey.end_ns))
        return spanned(facts)

    def read(self, store: Store, upload: Upload, settings: IngestSettings) -> Iterator[Recorded | Refused]:
        files = bag_files(upload, ".bag")
        yield from episodes_of_files(store, upload, files, lambda path, entry: Ros1Log(path, settings.limits), self.name, settings)
