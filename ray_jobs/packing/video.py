"""Video of a dataset: recorded packets are kept wherever they can be; otherwise one deterministic H.264 encoding.

Every frame k of an episode lies at PTS k / fps in the packed file, so a grid step is found by its time alone.
"""

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import numpy as np

from ray_jobs.seam.errors import DataError, StoreError

KEPT_CODECS = ("h264", "hevc", "av1")
PIXELS = "yuv420p"
# A constant quantizer and no look-ahead: with crf, 7 of 300 encodings on a busy machine differed by a byte in one packet.
ADAPTS_NOTHING = "aq-mode=0:mbtree=0:rc-lookahead=0:weightp=0"
ENCODING = {"qp": "18", "preset": "veryfast", "bf": "0", "sc_threshold": "0", "threads": "1", "x264-params": ADAPTS_NOTHING}
GROUP_OF_PICTURES = 2
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


class CorruptVideo(DataError):
    """The recorded video does not hold what its episode says."""


@dataclass(frozen=True)
class Parameters:
    """What must agree within one file, for one decoder to read through it."""

    codec: str
    width: int
    height: int
    pixels: str
    extradata: bytes


@dataclass(frozen=True)
class Scan:
    """A clip's packets as demuxed, nothing decoded. keyframes: bool [n]; ordered: presented as stored (no B-frames)."""

    parameters: Parameters
    keyframes: np.ndarray
    ordered: bool
    size: int


@dataclass(frozen=True)
class Segment:
    """One episode's packets, [first, first + count) of the file at `path`, ready to be appended."""

    path: Path
    first: int
    count: int
    parameters: Parameters
    size: int
    transcoded: bool


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """FFmpeg's errors become ours: a full disk is the store's fault, anything else the recording's."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        if error.errno in _FULL:
            raise StoreError(f"cannot write {path.name}: {error.strerror}; free or enlarge the temporary folder (TMPDIR)") from error
        raise CorruptVideo(f"{path.name}: {(error.strerror or str(error)).splitlines()[0]}") from error
    except ValueError as error:  # PyAV's, for streams that FFmpeg opens and cannot describe
        raise CorruptVideo(f"{path.name}: {(str(error) or 'unreadable video').splitlines()[0]}") from error


def scan(path: Path) -> Scan:
    """Read the packets' sizes and flags. Raises CorruptVideo where there is no readable video."""
    with _told(path), av.open(path) as container:
        stream = _video(container, path)
        packets = [(packet.pts, packet.is_keyframe, packet.size) for packet in container.demux(stream) if packet.size]
        times = [pts for pts, _, _ in packets]
        context = stream.codec_context
        parameters = Parameters(context.codec.canonical_name, context.width, context.height, context.pix_fmt or "", bytes(context.extradata or b""))
    ordered = None not in times and all(a < b for a, b in pairwise(times))
    return Scan(parameters, np.array([key for _, key, _ in packets], bool), ordered, sum(size for _, _, size in packets))


def can_keep(seen: Scan, lead_in: int, frames: np.ndarray) -> bool:
    """Whether the packets of these frames can be kept: one packet per grid step, in order, starting where a decoder can.

    frames: int [n], index into the clip's rows (the lead-in not counted).
    """
    parameters, count = seen.parameters, len(frames)
    return (
        lead_in == 0
        and seen.ordered
        and parameters.codec in KEPT_CODECS
        and parameters.pixels == PIXELS
        and parameters.width % 2 == 0
        and parameters.height % 2 == 0
        and count > 0
        and bool(np.array_equal(frames, np.arange(frames[0], frames[0] + count)))
        and frames[0] >= 0
        and frames[-1] < len(seen.keyframes)
        and bool(seen.keyframes[frames[0]])
    )


def decoded(path: Path, first: int = 0, count: int | None = None) -> Iterator[Any]:
    """Decode packets [first, first + count) alone, as a reader of the packed file will. Yields av.VideoFrame.

    Raises CorruptVideo at the first frame that the decoder had to guess.
    """
    with _told(path), av.open(path) as container:
        stream = _video(container, path)
        packets = (packet for packet in container.demux(stream) if packet.size)
        yield from _decode(stream, islice(packets, first, None if count is None else first + count), path)


def decoded_from(file: Path | BinaryIO, seconds: float, count: int, later: float = 0.0) -> Iterator[Any]:
    """Decode `count` frames of a packed file, `later` seconds after the keyframe at `seconds` on, without reading what lies far before."""
    path = Path(file.name)
    with _told(path), av.open(file, "r") as container:
        stream = _video(container, path)
        start, wanted = (round(at / stream.time_base) for at in (seconds, seconds + later))
        container.seek(wanted, stream=stream)  # to the keyframe before
        packets = (packet for packet in container.demux(stream) if packet.size and packet.pts >= start)
        frames = _decode(stream, islice(packets, count) if wanted == start else packets, path)
        yield from islice((frame for frame in frames if frame.pts >= wanted), count)


def _decode(stream: Any, packets: Iterable[Any], path: Path) -> Iterator[Any]:
    stream.codec_context.thread_count = 1
    number = 0
    for packet in chain(packets, (None,)):
        for frame in stream.codec_context.decode(packet):
            if frame.is_corrupt:
                raise CorruptVideo(f"{path.name}: frame {number} cannot be decoded")
            yield frame
            number += 1


def transcode(source: Path, lead_in: int, frames: np.ndarray, fps: int, target: Path, change: Callable[[np.ndarray], np.ndarray] | None = None) -> Segment:
    """Encode the chosen frames (int [n], not decreasing, repeats allowed) as H.264. Same input, same bytes.

    `change` is applied to each picture, uint8 [h, w, 3] RGB.

    Raises CorruptVideo where the clip has fewer frames than are asked for, or they run backwards.
    """
    wanted = frames.astype(np.int64) + lead_in
    if len(wanted) == 0 or wanted[0] < lead_in or np.any(np.diff(wanted) < 0):
        raise CorruptVideo(f"{source.name}: the camera's frames do not follow the clock")
    seen = scan(source).parameters
    width, height = seen.width & ~1, seen.height & ~1
    done = 0
    with _told(target), av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as output:
        stream: Any = output.add_stream("libx264", rate=fps, options=ENCODING)
        stream.width, stream.height, stream.pix_fmt = width, height, PIXELS
        stream.gop_size, stream.codec_context.thread_count = GROUP_OF_PICTURES, 1
        for index, frame in enumerate(decoded(source)):
            if done < len(wanted) and wanted[done] == index and change is not None:
                frame = av.VideoFrame.from_ndarray(change(frame.to_ndarray(format="rgb24")), format="rgb24")
            while done < len(wanted) and wanted[done] == index:
                # Without a target range FFmpeg relabels full-range pictures (JPEG) as limited, and they come out too contrasty.
                picture = frame.reformat(width=width, height=height, format=PIXELS, dst_color_range="MPEG")
                picture.pts, picture.time_base = done, Fraction(1, fps)
                picture.pict_type = 0
                output.mux(stream.encode(picture))
                done += 1
            if done == len(wanted):
                break
        output.mux(stream.encode(None))
    if done < len(wanted):
        raise CorruptVideo(f"{source.name}: has no frame {int(wanted[done])}, which the recording says it has")
    made = scan(target)
    return Segment(target, 0, len(wanted), made.parameters, made.size, True)


class VideoFile:
    """One mp4 that grows by whole episodes of the same parameters; no clock and no encoder's name goes into it."""

    def __init__(self, path: Path, template: Segment, fps: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.fps, self.frames, self.size = path, fps, 0, 0
        with _told(path):
            self._output: Any = av.open(path, "w", format="mp4", options={"fflags": "+bitexact"})
            with av.open(template.path) as source:
                self._stream: Any = self._output.add_stream_from_template(_video(source, template.path), opaque=True)
            self._stream.time_base = Fraction(1, fps)

    def append(self, segment: Segment) -> int:
        """Copy the segment's packets; returns the number of its first frame in this file."""
        start = self.frames
        with _told(self.path), av.open(segment.path) as source:
            stream = _video(source, segment.path)
            packets = (packet for packet in source.demux(stream) if packet.size)
            for index, packet in enumerate(packets):
                if index < segment.first:
                    continue
                if index >= segment.first + segment.count:
                    break
                packet.stream, packet.time_base = self._stream, Fraction(1, self.fps)
                packet.pts = packet.dts = self.frames
                packet.duration = 1
                self._output.mux(packet)
                self.frames += 1
        self.size += segment.size
        return start

    def close(self) -> np.ndarray:
        """Finish the file and read back its real presentation times: float64 [frames], seconds."""
        with _told(self.path):
            self._output.close()
            with av.open(self.path) as container:
                stream = _video(container, self.path)
                times = [float(packet.pts * stream.time_base) for packet in container.demux(stream) if packet.size]
        if len(times) != self.frames:
            raise CorruptVideo(f"{self.path.name}: {self.frames} frames were written and {len(times)} are there")
        return np.array(times)


def _video(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise CorruptVideo(f"{path.name}: has no video stream")
    return container.streams.video[0]
