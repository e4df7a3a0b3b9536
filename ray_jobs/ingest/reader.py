"""The one interface behind which every format is read, and what a reader hands over."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ray_jobs.episode import Episode, Stream
from ray_jobs.seam.configs import IngestSettings
from ray_jobs.seam.model import digest
from ray_jobs.seam.store import Entry, Store


@dataclass(frozen=True)
class Upload:
    """One upload: a file, or the folder of a set ("." where that is the raw store itself). Files are sorted by key."""

    path: str
    files: tuple[Entry, ...]
    robot: str = "unknown"

    @property
    def first(self) -> Entry:
        """The file by whose first bytes its format is known: the one that names the upload, or the first of a folder."""
        return next((entry for entry in self.files if entry.key == self.path), self.files[0])

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)

    @property
    def modified_ns(self) -> int:
        return max((entry.modified_ns for entry in self.files), default=0)

    @property
    def digest(self) -> str:
        """Another content, another digest. The etag stands for the content, so nothing is opened."""
        return digest([(entry.key, entry.size, entry.etag) for entry in self.files])

    def key(self, name: str) -> str:
        """The store key of a file inside a folder upload."""
        return name if self.path == "." else f"{self.path}/{name}"


@dataclass(frozen=True)
class UploadFacts:
    """What the index says of an upload. Times are the logger's, ns since 1970, None where the recording has no clock.

    reason: why nothing of this upload can be read, or None.
    """

    robot: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    reason: str | None = None


def spanned(facts: Sequence[UploadFacts]) -> UploadFacts:
    """The facts of an upload from those of its files; unreadable only where every file is."""
    starts, ends = [f.start_ns for f in facts if f.start_ns is not None], [f.end_ns for f in facts if f.end_ns is not None]
    robot = next((f.robot for f in facts if f.robot), None)
    reason = facts[0].reason if facts and all(f.reason for f in facts) else None
    return UploadFacts(robot, min(starts, default=None), max(ends, default=None), reason)


@dataclass(frozen=True)
class Recorded:
    """One recorded episode. The clips lie in temporary files that live until the next one is asked for.

    start_ns, end_ns: by the logger's clock, or counted from 0 where meta.synthetic_clock is set.
    """

    episode: Episode
    clips: dict[str, Path]
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Refused:
    """An upload, or the `part` of it that holds one episode, that cannot be read, and why. It becomes a quarantined row."""

    reason: str
    part: str = ""
    start_ns: int | None = None


class Reader(Protocol):
    """A format. Everything that is wrong with the content is a Refused or a note; a StoreError always passes through.

    name: the `format` column. folder_marker: a file that makes its folder one upload, or None where each file is one.
    """

    name: str
    folder_marker: str | None

    def recognises(self, upload: Upload, head: bytes) -> bool:
        """Whether this upload is of this format. head: the first bytes of upload.first; the name alone proves nothing."""

    def peek(self, store: Store, upload: Upload) -> UploadFacts:
        """Robot and times from summaries, heads and tails: a bounded number of bytes, however long the recording."""

    def read(self, store: Store, upload: Upload, settings: IngestSettings) -> Iterator[Recorded | Refused]:
        """Every episode in turn, in recorded order. Memory holds one episode's numbers and never its video."""


def content_id(streams: dict[str, Stream], media: dict[str, bytes]) -> str:
    """sha256[:32] over what was recorded: publish times, values, and the digest of each camera's packets or images.

    Not over containers, chunks, paths or log times, so the same episode keeps its id when a file is renamed or re-chunked.
    """
    total = hashlib.sha256()
    for name in sorted(streams):
        stream = streams[name]
        total.update(f"{name}:{stream.values.shape}".encode())
        total.update(np.ascontiguousarray(stream.t_ns, "<i8").data)
        total.update(np.ascontiguousarray(stream.values, "<f4").data)
        total.update(media.get(name, b""))
    return total.hexdigest()[:32]


def nominal_rate(t_ns: np.ndarray) -> float:
    """Hz from the median interval, the nearest whole number where that is within 3 %; 0 where it cannot be known."""
    steps = np.diff(t_ns)
    steps = steps[steps > 0]
    if not len(steps):
        return 0.0
    rate = 1e9 / float(np.median(steps))
    whole = round(rate)
    return float(whole) if whole and abs(rate - whole) <= 0.03 * whole else round(rate, 3)


def frame_notes(streams: dict[str, Stream]) -> list[str]:
    """Cameras that recorded at the state's rate and yet have fewer frames than there are states."""
    state = streams.get("state")
    notes = []
    for name, stream in streams.items():
        if state is None or not name.startswith("camera:") or len(stream.t_ns) >= len(state.t_ns):
            continue
        if nominal_rate(stream.t_ns) >= 0.95 * nominal_rate(state.t_ns):
            notes.append(f"fewer frames than states: {len(stream.t_ns)} of {len(state.t_ns)} ({name.removeprefix('camera:')})")
    return notes
