"""From messages to episodes: cut by markers, gaps or stillness, streams in compact arrays, video packets kept, images encoded."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mcap.records import Message

from ray_jobs.episode import Clip, Episode, EpisodeMeta
from ray_jobs.ingest import values
from ray_jobs.ingest.camera import Camera
from ray_jobs.ingest.clips import MEDIA_ERRORS
from ray_jobs.ingest.cuts import Cut, Cutter
from ray_jobs.ingest.decoders import UNDECODABLE
from ray_jobs.ingest.log import LATEST_NS, Log, Survey
from ray_jobs.ingest.reader import Recorded, Refused, Upload, content_id, frame_notes, nominal_rate
from ray_jobs.ingest.topics import Chosen, choose
from ray_jobs.ingest.vectors import Vectors
from ray_jobs.seam.configs import IngestSettings
from ray_jobs.seam.errors import DataError


def episodes_of(log: Log, upload: Upload, source: str, settings: IngestSettings, part: str = "", notes: Sequence[str] = ()) -> Iterator[Recorded | Refused]:
    """Every episode of a log. `source`: the format, as episodes name it. part: which files of the upload, where not all."""
    try:
        survey = log.survey()
    except DataError as error:
        yield Refused(str(error), part)
        return
    chosen = choose(survey, settings)
    if chosen.refusal:
        yield Refused("; ".join([chosen.refusal, *notes]), part, survey.start_ns)
        return
    chosen.notes += notes
    losses: list[str] = []
    late = 0
    with Recorder(upload, source, survey, chosen, losses, settings) as recorder:
        for record in log.records(losses):
            if not isinstance(record, Message):
                continue
            if max(record.log_time, record.publish_time) >= LATEST_NS:
                late += 1
                continue
            if record.channel_id in chosen.markers:
                yield from recorder.mark(record)
            else:
                yield from recorder.take(record)
        if late:
            losses.append(f"{late} messages with times beyond the year 2116 were skipped")
        yield from recorder.finish()


@dataclass
class _Open:
    """The episode that is being recorded."""

    folder: tempfile.TemporaryDirectory[str]
    label: str
    task: str
    success: bool | None
    state: Vectors
    action: Vectors
    notes: list[str]
    numbers: int = 0  # bytes of its states and actions
    failed: dict[str, tuple[int, str]] = field(default_factory=dict)


class Recorder:
    """Takes a log's messages in order and hands out episodes. A log without markers is one, unless it pauses or stands still."""

    def __init__(self, upload: Upload, source: str, survey: Survey, chosen: Chosen, losses: list[str], settings: IngestSettings):
        self.upload, self.source, self.survey, self.chosen, self.losses = upload, source, survey, chosen, losses
        self.limits = settings.limits
        self.recording = survey.metadata.get("recording", {})
        self._cameras = {number: Camera(name, kind, self.limits) for name, (number, kind) in chosen.cameras.items()}
        self._orders: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
        self._told = 0  # how many of the losses an episode has named
        self._count = 0
        self._open: _Open | None = None
        self._marked = any(survey.counts.get(number) for number in chosen.markers)
        self._cutter = Cutter(settings.cuts, survey, self._marked)
        if not self._marked:
            self._begin({}, "the whole file")

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._open is not None:
            self._open.folder.cleanup()

    def _begin(self, fields: dict[str, Any], label: str) -> None:
        task = str(fields.get("task") or self.recording.get("task") or "")
        success = fields.get("success")
        folder = tempfile.TemporaryDirectory(prefix="ingest-")
        vectors = Vectors(self._orders, self.chosen.rank), Vectors(self._orders, self.chosen.rank)
        self._open = _Open(folder, label, task, success if isinstance(success, bool) else None, *vectors, list(self.chosen.notes))
        for camera in self._cameras.values():
            camera.begin(Path(folder.name))

    def mark(self, record: Message) -> Iterator[Recorded | Refused]:
        """An episode marker: {"event": "start" | "end", "task": …, "success": …}, or one of the two words."""
        try:
            fields = values.text(self.chosen.decoders[record.channel_id](record.data))
        except UNDECODABLE as error:
            self.losses.append(f"a marker could not be decoded: {error}")
            return
        event = str(fields.get("event") or "").lower()
        if event in ("start", "begin"):
            if self._open is not None:
                yield from self._end("no end marker: the next episode began")
            self._count += 1
            self._begin(fields, f"episode {self._count}")
        elif event in ("end", "stop"):
            if self._open is None:
                self._count += 1
                yield Refused("its start marker is missing, so it is not known where it began", f"episode {self._count}", record.log_time)
                return
            if isinstance(fields.get("success"), bool):
                self._open.success = fields["success"]
            yield from self._end(None)

    def take(self, record: Message) -> Iterator[Recorded | Refused]:
        """One message of any topic; an episode that it ends."""
        number = record.channel_id
        camera = self._cameras.get(number)
        state = number in self.chosen.state
        if camera is None and not (state or number in self.chosen.action):
            return
        yield from self._cut(self._cutter.passed(record.log_time))
        if camera is None and self._open is None and not self._cutter.waits:
            return
        try:
            self._check(record)
            message = self.chosen.decoders[number](record.data)
            t_ns = values.stamp_ns(message, record.publish_time)
            if camera is not None:
                camera.take(message, t_ns, record.log_time)
                return
            found = values.vector(self.chosen.state[number] if state else self.chosen.action[number], message)
            if found is None:
                raise ValueError("it carries no positions")
            if len(found[1]) > self.limits.values:
                raise ValueError(f"{len(found[1])} values, more than limits.values ({self.limits.values})")
        except (*UNDECODABLE, *values.BROKEN_IMAGE, *MEDIA_ERRORS) as error:
            if self._open is not None:
                count, first = self._open.failed.get(self.chosen.topics[number], (0, f"{type(error).__name__}: {error}"))
                self._open.failed[self.chosen.topics[number]] = (count + 1, first)
            return
        if state:
            yield from self._cut(self._cutter.moved(number, found[1], record.log_time))
        if self._open is None:
            return
        (self._open.state if state else self._open.action).add(self.chosen.topics[number], *found, t_ns, record.log_time)
        self._open.numbers += 16 + 4 * len(found[1])
        if self._open.numbers > self.limits.episode_mb << 20:
            yield from self._cut(Cut(f"cut where its numbers filled limits.episode_mb ({self.limits.episode_mb})", begin=True))

    def _check(self, record: Message) -> None:
        if len(record.data) > self.limits.message_mb << 20:
            raise ValueError(f"a message of {len(record.data)} bytes, more than limits.message_mb ({self.limits.message_mb})")

    def _cut(self, found: Cut | None) -> Iterator[Recorded | Refused]:
        """An episode ends, or the next begins, by the rule that `found` names."""
        if found is None:
            return
        if self._open is not None:
            yield from self._end(found.rule)
        if found.begin:
            self._count += 1
            self._begin({}, f"part {self._count + 1}")
            assert self._open is not None
            self._open.notes.append(found.rule)

    def finish(self) -> Iterator[Recorded | Refused]:
        if self._open is not None:
            yield from self._end("no end marker: the recording stops within the episode" if self._marked else None)
        lost = [loss for loss in self.losses[self._told :] if not loss.endswith("without its footer")]
        if lost:
            yield Refused("; ".join(lost), "what followed the last episode", self.survey.end_ns)

    def _end(self, note: str | None) -> Iterator[Recorded | Refused]:
        current, self._open = self._open, None
        assert current is not None
        notes = current.notes + ([note] if note else []) + self.losses[self._told :]
        self._told = len(self.losses)
        with current.folder:
            recorded = self._recorded(current, notes)
            for camera in self._cameras.values():
                camera.begin(None)
            yield recorded

    def _recorded(self, current: _Open, notes: list[str]) -> Recorded | Refused:
        notes += [f"{count} messages of {topic} could not be read, the first: {error}" for topic, (count, error) in sorted(current.failed.items())]
        found = {"state": current.state.joined("state", False, notes), "action": current.action.joined("action", True, notes)}
        streams = {name: joined[0] for name, joined in found.items() if joined is not None}
        names = {name: joined[1] for name, joined in found.items() if joined is not None}
        clips: dict[str, Clip] = {}
        depths: dict[str, Clip] = {}
        paths: dict[str, Path] = {}
        media: dict[str, bytes] = {}
        for camera in self._cameras.values():
            try:
                ended = camera.end(notes)
            except MEDIA_ERRORS as error:
                notes.append(f"the clip of camera {camera.name} could not be written: {error}")
                continue
            if ended is not None:
                name = f"depth:{camera.name}" if camera.is_depth else f"camera:{camera.name}"
                clip, paths[camera.name], media[name] = ended
                (depths if camera.is_depth else clips)[camera.name] = clip
                streams[name] = camera.samples.stream()
        notes += [f"no {name}" for name in ("state", "action") if name not in streams]
        if "state" not in streams and not clips and not depths:
            return Refused("; ".join(["no joint states and no frames", *notes]), current.label)
        rates = [nominal_rate(streams[name].t_ns) for name in [*sorted(media), "state"] if name in streams]
        meta = EpisodeMeta(
            episode_id=content_id(streams, media),
            robot=self.recording.get("robot") or self.upload.robot,
            task=current.task,
            fps=next((rate for rate in rates if rate > 0), 0.0),
            state_names=names.get("state", ()),
            action_names=names.get("action", ()),
            cameras=clips,
            depth=depths,
            source=self.source,
            upload=self.upload.path,
            success=current.success,
            notes=tuple(notes + frame_notes(streams)),
        )
        logged = [stream.log_ns for stream in streams.values()]
        return Recorded(Episode(meta, streams), paths, min(int(log.min()) for log in logged), max(int(log.max()) for log in logged))
