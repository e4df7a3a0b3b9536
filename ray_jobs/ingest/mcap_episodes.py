"""From messages to episodes: cut by markers, streams in compact arrays, video packets kept, images encoded."""

import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from mcap.records import Message

from ray_jobs.episode import Clip, Episode, EpisodeMeta, Stream
from ray_jobs.ingest import mcap_messages as messages
from ray_jobs.ingest.clips import MEDIA_ERRORS, ImageClip, PacketClip, codec_of, is_keyframe
from ray_jobs.ingest.mcap_file import Survey
from ray_jobs.ingest.reader import Recorded, Refused, Upload, content_id, frame_notes, nominal_rate

LARGEST_GOP = 64 << 20  # bytes kept of the packets since the last keyframe, for an episode that begins between two


@dataclass
class Chosen:
    """What is read of a file: channel id -> kind of message. refusal: why nothing is, or None."""

    state: dict[int, str] = field(default_factory=dict)
    action: dict[int, str] = field(default_factory=dict)
    cameras: dict[str, tuple[int, str]] = field(default_factory=dict)
    markers: dict[int, str] = field(default_factory=dict)
    decoders: dict[int, Callable[[bytes], Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refusal: str | None = None


class Samples:
    """A growing stream in compact arrays: times in ns and, of one width, values."""

    def __init__(self, names: tuple[str, ...] = (), width: int = 0):
        self.names, self.width = names, width
        self.t, self.log, self.values = array("q"), array("q"), array("f")

    def add(self, t_ns: int, log_ns: int) -> None:
        self.t.append(t_ns)
        self.log.append(log_ns)

    def stream(self) -> Stream:
        values = np.frombuffer(self.values, np.float32).reshape(len(self.t), self.width) if self.width else np.zeros((len(self.t), 0), np.float32)
        return Stream(np.frombuffer(self.t, np.int64), np.frombuffer(self.log, np.int64), values)


class Vectors:
    """A state or action stream. Joints that come in several sets (arm and gripper apart) are kept apart: the fullest counts.

    Within a set the order of the file's first message holds, so joints that change places keep their columns.
    """

    def __init__(self, orders: dict[tuple[str, ...], tuple[str, ...]]):
        self._orders = orders
        self._sets: dict[tuple[int, tuple[str, ...]], Samples] = {}
        self._seen: dict[tuple[int, tuple[str, ...]], tuple[Samples, list[int] | None]] = {}

    def add(self, names: tuple[str, ...], values: list[float], t_ns: int, log_ns: int) -> None:
        known = self._seen.get((len(values), names))
        if known is None:
            order = self._orders.setdefault(tuple(sorted(names)), names)
            samples = self._sets.setdefault((len(values), order), Samples(order, len(values)))
            known = self._seen[(len(values), names)] = (samples, None if order == names else [names.index(name) for name in order])
        samples, places = known
        samples.add(t_ns, log_ns)
        samples.values.extend(values if places is None else [values[place] for place in places])

    def fullest(self, what: str, notes: list[str]) -> Samples | None:
        ranked = sorted(self._sets.values(), key=lambda samples: (-len(samples.values), samples.names))
        notes += [f"{len(other.t)} messages with another set of {other.width} {what} values were not kept" for other in ranked[1:]]
        return ranked[0] if ranked else None


class Camera:
    """One camera of the file: the packets since its last keyframe, and the clip of the episode that is open."""

    def __init__(self, name: str, kind: str):
        self.name, self.kind = name, kind
        self._codec = ""
        self._gop: list[bytes] = []
        self._gop_bytes = 0
        self.begin(None)

    def begin(self, folder: Path | None) -> None:
        """A new episode, whose clip goes into the folder; None between episodes."""
        self._path = folder / f"{self.name}.mp4" if folder is not None else None
        self._clip: PacketClip | ImageClip | None = None
        self.samples = Samples()
        self.dropped: dict[str, int] = {}

    def take(self, message: Any, t_ns: int, log_ns: int) -> None:
        """Raises one of UNDECODABLE or BROKEN_IMAGE where the message is not what its type promises."""
        label = str(getattr(message, "format", ""))
        codec = codec_of(label) if self.kind != "image" else None
        if self.kind == "video" and codec is None:
            raise ValueError(f"video format {label!r} is not h264, h265 or av1")
        if codec is None and self._path is None:
            return
        data = messages.payload(message)
        if codec is None:
            self._image(message, data, t_ns, log_ns)
        else:
            self._packet(codec, data, t_ns, log_ns)

    def _packet(self, codec: str, data: bytes, t_ns: int, log_ns: int) -> None:
        if not data:
            raise ValueError("an empty video packet")
        if self._codec and codec != self._codec:
            raise ValueError(f"the codec changes from {self._codec} to {codec}")
        self._codec = codec
        keyframe = is_keyframe(codec, data)
        if self._path is not None:
            if self._clip is None:
                self._begin_clip(codec, data, keyframe, t_ns)
            if isinstance(self._clip, PacketClip):
                self._clip.add(data, t_ns, keyframe)
                self.samples.add(t_ns, log_ns)
            else:
                self._drop("frames before the first keyframe")
        if keyframe or self._gop_bytes > LARGEST_GOP:
            self._gop, self._gop_bytes = [], 0
        if keyframe or self._gop:
            self._gop.append(data)
            self._gop_bytes += len(data)

    def _begin_clip(self, codec: str, data: bytes, keyframe: bool, t_ns: int) -> None:
        assert self._path is not None
        clip = PacketClip(self._path, codec)
        if keyframe:
            self._clip = clip if clip.start(data) else None
        elif self._gop and clip.start(self._gop[0]):
            for number, packet in enumerate(self._gop):
                clip.add(packet, t_ns - (len(self._gop) - number) * 33_333_333, number == 0, lead_in=True)
            self._clip = clip

    def _image(self, message: Any, data: bytes, t_ns: int, log_ns: int) -> None:
        pixels, layout = messages.pixels(self.kind, message, data)
        if self._clip is None:
            assert self._path is not None
            self._clip = ImageClip(self._path)
        assert isinstance(self._clip, ImageClip)
        if self._clip.add(pixels, layout, t_ns, data):
            self.samples.add(t_ns, log_ns)
        else:
            self._drop("images of another size")

    def _drop(self, why: str) -> None:
        self.dropped[why] = self.dropped.get(why, 0) + 1

    def end(self, notes: list[str]) -> tuple[Clip, Path, bytes] | None:
        """The finished clip with the digest of what was recorded, or None where this camera has no frame."""
        notes += [f"{count} {why} were not kept ({self.name})" for why, count in self.dropped.items()]
        if self._clip is None or self._path is None or not self.samples.t:
            notes.append(f"no frames of camera {self.name}")
            return None
        return self._clip.close(), self._path, self._clip.digest.digest()


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
    failed: dict[str, tuple[int, str]] = field(default_factory=dict)


class Recorder:
    """Takes the file's messages in order and hands out episodes. A file without markers is one episode."""

    def __init__(self, upload: Upload, survey: Survey, chosen: Chosen, losses: list[str]):
        self.upload, self.survey, self.chosen, self.losses = upload, survey, chosen, losses
        self.recording = survey.metadata.get("recording", {})
        self._cameras = {number: Camera(name, kind) for name, (number, kind) in chosen.cameras.items()}
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._told = 0  # how many of the losses an episode has named
        self._count = 0
        self._open: _Open | None = None
        self._marked = any(survey.counts.get(number) for number in chosen.markers)
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
        vectors = Vectors(self._orders), Vectors(self._orders)
        self._open = _Open(folder, label, task, success if isinstance(success, bool) else None, *vectors, list(self.chosen.notes))
        for camera in self._cameras.values():
            camera.begin(Path(folder.name))

    def mark(self, record: Message) -> Iterator[Recorded | Refused]:
        """An episode marker: {"event": "start" | "end", "task": …, "success": …}, or one of the two words."""
        try:
            fields = messages.text(self.chosen.decoders[record.channel_id](record.data))
        except messages.UNDECODABLE as error:
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

    def take(self, record: Message) -> None:
        number, current = record.channel_id, self._open
        camera = self._cameras.get(number)
        state, action = number in self.chosen.state, number in self.chosen.action
        if camera is None and (current is None or not (state or action)):
            return
        try:
            message = self.chosen.decoders[number](record.data)
            t_ns = messages.stamp_ns(message, record.publish_time)
            if camera is not None:
                camera.take(message, t_ns, record.log_time)
                return
            assert current is not None
            kind = self.chosen.state[number] if state else self.chosen.action[number]
            found = messages.vector(kind, message)
            if found is None:
                raise ValueError("it carries no positions")
            (current.state if state else current.action).add(*found, t_ns, record.log_time)
        except (*messages.UNDECODABLE, *messages.BROKEN_IMAGE, *MEDIA_ERRORS) as error:
            if current is not None:
                topic = self.survey.channels[number].topic
                count, first = current.failed.get(topic, (0, f"{type(error).__name__}: {error}"))
                current.failed[topic] = (count + 1, first)

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
        found = {"state": current.state.fullest("state", notes), "action": current.action.fullest("action", notes)}
        streams = {name: samples.stream() for name, samples in found.items() if samples is not None}
        clips: dict[str, Clip] = {}
        paths: dict[str, Path] = {}
        media: dict[str, bytes] = {}
        for camera in self._cameras.values():
            try:
                ended = camera.end(notes)
            except MEDIA_ERRORS as error:
                notes.append(f"the clip of camera {camera.name} could not be written: {error}")
                continue
            if ended is not None:
                name = f"camera:{camera.name}"
                clips[camera.name], paths[camera.name], media[name] = ended
                streams[name] = camera.samples.stream()
        notes += [f"no {name}" for name in ("state", "action") if name not in streams]
        if "state" not in streams and not clips:
            return Refused("; ".join(["no joint states and no frames", *notes]), current.label)
        rates = [nominal_rate(streams[name].t_ns) for name in [*sorted(media), "state"] if name in streams]
        meta = EpisodeMeta(
            episode_id=content_id(streams, media),
            robot=self.recording.get("robot") or self.upload.robot,
            task=current.task,
            fps=next((rate for rate in rates if rate > 0), 0.0),
            state_names=_names("state", found["state"]),
            action_names=_names("action", found["action"]),
            cameras=clips,
            source="mcap",
            upload=self.upload.path,
            success=current.success,
            notes=tuple(notes + frame_notes(streams)),
        )
        logged = [stream.log_ns for stream in streams.values()]
        return Recorded(Episode(meta, streams), paths, min(int(log.min()) for log in logged), max(int(log.max()) for log in logged))


def _names(what: str, samples: Samples | None) -> tuple[str, ...]:
    if samples is None:
        return ()
    return samples.names or tuple(f"{what}_{number}" for number in range(samples.width))
