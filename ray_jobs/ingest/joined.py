"""Split recordings: the files that a recorder wrote one after the other, as one log; and which of them belong together."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from mcap.records import Channel, Message, Schema

from ray_jobs.ingest.log import Log, Record, Survey
from ray_jobs.ingest.reader import Recorded, Refused, Upload
from ray_jobs.ingest.recorder import episodes_of
from ray_jobs.seam.configs import IngestSettings
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Entry, Store

LONGEST_SEAM_NS = 2_000_000_000  # between the last message of a file and the first of the next, where a recorder splits


class JoinedLog:
    """Several logs, read one after the other. Channels of one topic, type and encoding are one channel."""

    def __init__(self, parts: Sequence[Log], surveys: Sequence[Survey]):
        self.parts = parts
        self._schemas: dict[tuple[str, str, bytes], Schema] = {}
        self._channels: dict[tuple[str, str, int], Channel] = {}
        self._maps: list[dict[int, int]] = []
        self._survey = Survey()
        for survey in surveys:
            places = {number: self._channel(channel, survey.schemas.get(channel.schema_id)) for number, channel in survey.channels.items()}
            self._maps.append(places)
            for number, count in survey.counts.items():
                if number in places:
                    self._survey.counts[places[number]] = self._survey.counts.get(places[number], 0) + count
            self._survey.metadata |= survey.metadata
            self._survey.notes += survey.notes
            if survey.start_ns is not None and survey.end_ns is not None:
                self._survey.span(survey.start_ns, survey.end_ns)
        self._survey.schemas = {schema.id: schema for schema in self._schemas.values()}
        self._survey.channels = {channel.id: channel for channel in self._channels.values()}

    def _channel(self, channel: Channel, schema: Schema | None) -> int:
        own = 0
        if schema is not None:
            kind = (schema.name, schema.encoding, schema.data)
            own = self._schemas.setdefault(kind, replace(schema, id=len(self._schemas) + 1)).id
        name = (channel.topic, channel.message_encoding, own)
        return self._channels.setdefault(name, replace(channel, id=len(self._channels) + 1, schema_id=own)).id

    def survey(self) -> Survey:
        return self._survey

    def records(self, losses: list[str]) -> Iterator[Record]:
        for part, places in zip(self.parts, self._maps, strict=True):
            for record in part.records(losses):
                if isinstance(record, Message) and record.channel_id in places:
                    record.channel_id = places[record.channel_id]
                    yield record


class OpensLog(Protocol):
    def __call__(self, path: Path, entry: Entry) -> Log:
        """The file at `path`, a local copy of the entry, as a log. Raises DataError where it is none."""


def bag_files(upload: Upload, *suffixes: str) -> list[Entry]:
    """The upload's files of these suffixes, in the order in which they were recorded: x_2 before x_10."""

    def order(entry: Entry) -> tuple[str, int, str]:
        stem, _, number = PurePosixPath(entry.key).name.split(".")[0].rpartition("_")
        return stem, int(number) if number.isdecimal() else 0, entry.key

    single = len(upload.files) == 1 and upload.files[0].key == upload.path
    return sorted((entry for entry in upload.files if single or entry.key.endswith(suffixes)), key=order)


def episodes_of_files(
    store: Store, upload: Upload, files: Sequence[Entry], opens: OpensLog, source: str, settings: IngestSettings, notes: Sequence[str] = ()
) -> Iterator[Recorded | Refused]:
    """Every episode of a recording that lies in one file or is split over several. A file that cannot be read costs itself."""
    with ExitStack() as stack:
        logs: list[tuple[str, Log]] = []
        for entry in files:
            name = PurePosixPath(entry.key).name
            try:
                if not entry.size:
                    raise DataError("an empty file (0 bytes)")
                logs.append((name, opens(stack.enter_context(store.local_copy(entry.key)), entry)))
            except DataError as error:
                yield Refused(str(error), name if len(files) > 1 else "")
        for names, log in joined(logs):
            part = "" if len(names) == len(files) else f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]
            if isinstance(log, DataError):
                yield Refused("; ".join([str(log), *notes]), part)
                continue
            told = [f"joined of {len(names)} files: {names[0]} to {names[-1]}"] if len(names) > 1 else []
            yield from episodes_of(log, upload, source, settings, part, [*notes, *told])


def joined(parts: Sequence[tuple[str, Log]]) -> Iterator[tuple[list[str], Log | DataError]]:
    """(names, log) of each recording that the files hold, in their order.

    A file continues the one before where it begins within LONGEST_SEAM_NS of its end, and not before its start: else it
    is a recording of its own. A file that cannot be read comes alone, with its error.
    """
    group: list[tuple[str, Log, Survey]] = []
    for name, log in parts:
        try:
            survey = log.survey()
        except DataError as error:
            if group:
                yield _one(group)
                group = []
            yield [name], error
            continue
        if group and not _continues(group[-1][2], survey):
            yield _one(group)
            group = []
        group.append((name, log, survey))
    if group:
        yield _one(group)


def _one(group: list[tuple[str, Log, Survey]]) -> tuple[list[str], Log]:
    names = [name for name, _, _ in group]
    return names, group[0][1] if len(group) == 1 else JoinedLog([log for _, log, _ in group], [survey for _, _, survey in group])


def _continues(before: Survey, after: Survey) -> bool:
    if None in (before.start_ns, before.end_ns) or after.start_ns is None:
        return True  # an empty part says nothing of time
    assert before.start_ns is not None and before.end_ns is not None
    return before.start_ns <= after.start_ns <= before.end_ns + LONGEST_SEAM_NS
