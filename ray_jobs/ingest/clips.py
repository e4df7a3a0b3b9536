"""Video into mp4: recorded packets are kept, recorded images are encoded. One frame per recorded sample, in constant memory."""

import errno
import hashlib
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ray_jobs.episode import Clip
from ray_jobs.seam.configs import Limits
from ray_jobs.seam.errors import StoreError

TICKS = 90_000  # per second, the time base of what we write
MEDIA_ERRORS = (av.error.FFmpegError, ValueError, IndexError, StopIteration, EOFError)
STORE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS)
DEMUXERS = {"h264": "h264", "h265": "hevc", "av1": "obu"}
FFV1 = {"level": "3", "slices": "4", "slicecrc": "1", "threads": "1"}
# Deterministic: one thread, no encoder clock, and nothing that adapts (see ray_jobs/packing/video.py). 18 is visually lossless.
X264 = {"qp": "18", "preset": "veryfast", "g": "10", "bf": "0", "threads": "1", "x264-params": "aq-mode=0:mbtree=0:rc-lookahead=0:weightp=0"}


def checked_size(width: int, height: int, limits: Limits) -> None:
    """Raises ValueError for pictures larger than the limits allow."""
    if width * height > limits.picture_mpx * 1_000_000:
        raise ValueError(f"pictures of {width} x {height}, more than limits.picture_mpx ({limits.picture_mpx})")


def codec_of(label: str) -> str | None:
    """h264, h265 or av1 where a message's format field names one of them."""
    text = label.lower().replace(".", "")
    for codec, names in {"h264": ("h264", "avc"), "h265": ("h265", "hevc"), "av1": ("av1",)}.items():
        if any(name in text for name in names):
            return codec
    return None


def is_keyframe(codec: str, data: bytes) -> bool:
    """Whether decoding can start at this packet (H.264 7.4.1.2.4: IDR; H.265 7.4.2.2: IRAP; AV1: a sequence header)."""
    if codec == "av1":
        return 1 in _obu_types(data)
    at = data.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(data):
        kind = data[at + 3] & 0x1F if codec == "h264" else (data[at + 3] >> 1) & 0x3F
        if 1 <= kind <= 5 if codec == "h264" else kind <= 31:  # the first slice tells, and what follows may be long
            return kind == 5 if codec == "h264" else 16 <= kind <= 23
        at = data.find(b"\0\0\1", at + 3)
    return False


def _obu_types(data: bytes) -> list[int]:
    """Types of the open bitstream units of a temporal unit (AV1 5.3.2), as far as it parses."""
    kinds, at = [], 0
    while at < len(data):
        head = data[at]
        kinds.append((head >> 3) & 0xF)
        at += 2 if head & 4 else 1
        if not head & 2:
            break
        size, shift = 0, 0
        while at < len(data) and shift < 56:
            byte = data[at]
            size |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not byte & 0x80:
                break
        at += size
    return kinds


def _raise_if_store(error: Exception, path: Path) -> None:
    """A full disk is not a fact about the content."""
    if getattr(error, "errno", None) in STORE_ERRNOS:
        raise StoreError(f"cannot write the temporary clip {path}: {error}; free some space or set TMPDIR") from error


def _create(path: Path, container: str = "mp4") -> Any:
    """A file whose bytes follow from its packets alone: no version strings, no clock."""
    try:
        return av.open(str(path), "w", format=container, options={"fflags": "+bitexact"})
    except MEDIA_ERRORS as error:
        _raise_if_store(error, path)
        raise


class _Pacing:
    """Presentation times that follow the recorded clock and always rise, whatever that clock does."""

    def __init__(self) -> None:
        self.pts, self._last = -1, 0

    def next(self, t_ns: int) -> int:
        step = (t_ns - self._last) * TICKS // 1_000_000_000
        self.pts = 0 if self.pts < 0 else self.pts + min(max(step, 1), TICKS)
        self._last = t_ns
        return self.pts


class _Muxer:
    """Writes packets one late, because each lasts until the next: without that, players drop the last one."""

    def __init__(self, path: Path, container: str = "mp4"):
        self.path, self.output = path, _create(path, container)
        self._held: Any = None
        self._lasts = TICKS // 30

    def add(self, packet: Any) -> None:
        if self._held is not None:
            self._lasts = packet.pts - self._held.pts
        self._write(packet)

    def _write(self, packet: Any) -> None:
        held, self._held = self._held, packet
        if held is None:
            return
        held.duration = self._lasts
        try:
            self.output.mux_one(held)
        except MEDIA_ERRORS as error:
            _raise_if_store(error, self.path)
            raise

    def close(self) -> None:
        self._write(None)
        try:
            self.output.close()
        except MEDIA_ERRORS as error:
            _raise_if_store(error, self.path)
            raise


class PacketClip:
    """Packets as recorded (Annex B or OBU, one frame each) into an mp4."""

    def __init__(self, path: Path, codec: str):
        self.path, self.codec = path, codec
        self.frames = self.lead_in = 0
        self.digest = hashlib.sha256()
        self._muxer: Any = None
        self._pacing = _Pacing()
        self.width = self.height = 0

    def start(self, packet: bytes) -> bool:
        """Open the file at this keyframe; False where no picture size can be read from it."""
        try:
            with av.open(io.BytesIO(packet), format=DEMUXERS[self.codec]) as source:
                template = source.streams.video[0]
                self.width, self.height = template.codec_context.width, template.codec_context.height
                if not self.width or not self.height:
                    return False
                self._muxer = _Muxer(self.path)
                self._stream = self._muxer.output.add_stream_from_template(template, opaque=True)
                self._stream.time_base = Fraction(1, TICKS)
        except MEDIA_ERRORS as error:
            _raise_if_store(error, self.path)
            return False
        return True

    def add(self, data: bytes, t_ns: int, keyframe: bool, lead_in: bool = False) -> None:
        packet = av.Packet(data)
        packet.stream = self._stream
        packet.time_base = Fraction(1, TICKS)
        packet.pts = packet.dts = self._pacing.next(t_ns)
        packet.is_keyframe = keyframe
        self._muxer.add(packet)
        if lead_in:
            self.lead_in += 1
            return
        self.frames += 1
        self.digest.update(len(data).to_bytes(8, "little"))
        self.digest.update(data)

    def close(self) -> Clip:
        self._muxer.close()
        return Clip(codec=self.codec, width=self.width, height=self.height, frames=self.frames, lead_in=self.lead_in)


class ImageClip:
    """Images encoded to H.264. Odd sizes lose their last row or column, because yuv420p has none."""

    codec, encoder, options, pix_fmt, container, unit = "h264", "libx264", X264, "yuv420p", "mp4", 2

    def __init__(self, path: Path):
        self.path = path
        self.frames = 0
        self.digest = hashlib.sha256()
        self._muxer: Any = None
        self._pacing = _Pacing()
        self._shape: tuple[int, ...] = ()

    def add(self, pixels: np.ndarray, layout: str, t_ns: int, recorded: bytes) -> bool:
        """pixels: [h, w, c] or [h, w] u8 in FFmpeg's `layout`. recorded: the message's bytes, for the episode's id.

        False where the size differs from the first image's.
        """
        if self._muxer is None:
            self._shape = pixels.shape
            self.height, self.width = (size // self.unit * self.unit for size in pixels.shape[:2])
            if not self.width or not self.height:
                return False
            self._muxer = _Muxer(self.path, self.container)
            self._stream = self._muxer.output.add_stream(self.encoder, rate=30, options=self.options)
            self._stream.width, self._stream.height, self._stream.pix_fmt = self.width, self.height, self.pix_fmt
            self._stream.codec_context.time_base = self._stream.time_base = Fraction(1, TICKS)
        if pixels.shape != self._shape:
            return False
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[: self.height, : self.width]), format=layout)
        frame.pts, frame.time_base = self._pacing.next(t_ns), Fraction(1, TICKS)
        self._encode(frame)
        self.frames += 1
        self.digest.update(len(recorded).to_bytes(8, "little"))
        self.digest.update(recorded)
        return True

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._muxer.add(packet)

    def close(self) -> Clip:
        self._encode(None)
        self._muxer.close()
        return Clip(codec=self.codec, width=self.width, height=self.height, frames=self.frames)


class DepthClip(ImageClip):
    """Depth pictures, [h, w] u16 in millimetres, kept without loss as 16-bit grey FFV1 in Matroska (RFC 9043)."""

    codec, encoder, options, pix_fmt, container, unit = "ffv1", "ffv1", FFV1, "gray16le", "matroska", 1

    def add_depth(self, found: np.ndarray, t_ns: int, recorded: bytes) -> bool:
        return self.add(found, "gray16le", t_ns, recorded)


class Cut:
    """A stretch of an mp4 as an mp4 of its own, packets kept from the last keyframe before it.

    times_ns: [frames] presentation times from the stretch's start. digest: over the packets of its frames.
    """

    def __init__(self, clip: Clip, times_ns: np.ndarray, digest: bytes, notes: list[str]):
        self.clip, self.times_ns, self.digest, self.notes = clip, times_ns, digest, notes


def cut(source: Path, target: Path, limits: Limits, start_s: float = 0.0, end_s: float | None = None) -> Cut | None:
    """Frames with start_s <= time < end_s (half a frame's tolerance); None where there are none.

    Packets that later frames share by reordering (B-frames across the cut) cannot be kept: such a stretch is re-encoded.
    Raises one of MEDIA_ERRORS where the source is damaged.
    """
    with av.open(str(source)) as container:
        video: Any = container.streams.video[0]
        checked_size(video.codec_context.width, video.codec_context.height, limits)
        base = video.time_base
        half = float(1 / (2 * (video.average_rate or 30)) / base)
        low, high = start_s / base - half, (float("inf") if end_s is None else end_s / base - half)
        rows = _plan(container, video, low, high)
        if not rows:
            return None
        wanted = sorted(pts for pts, kept in rows if kept)
        if not wanted:
            return None
        times_ns = np.array([round((pts - wanted[0]) * base * 1_000_000_000) for pts in wanted], np.int64)
        if any(pts >= high for pts, _ in rows):
            return _encoded(source, target, low, high, times_ns)
        origin, ends = min(pts for pts, _ in rows), len(rows)
        digest = hashlib.sha256()
        _seek(container, video, low)
        with _create(target) as output:
            stream = output.add_stream_from_template(video, opaque=True)
            for number, packet in enumerate(_packets(container, video)):
                if number == ends:
                    break
                if packet.pts >= low:
                    data = bytes(packet)
                    digest.update(len(data).to_bytes(8, "little"))
                    digest.update(data)
                packet.pts, packet.dts = packet.pts - origin, packet.dts - origin
                packet.stream = stream
                output.mux_one(packet)
        size = video.codec_context
        codec = codec_of(video.codec.canonical_name) or video.codec.canonical_name
        clip = Clip(codec=codec, width=size.width, height=size.height, frames=len(wanted), lead_in=len(rows) - len(wanted))
        return Cut(clip, times_ns, digest.digest(), [])


def _seek(container: Any, video: Any, low: float) -> None:
    """To the last keyframe from which the first frame at or after `low` can be decoded; that frame itself may be one."""
    frame = 1 / ((video.average_rate or 30) * video.time_base)
    container.seek(max(0, int(low + frame)), stream=video, backward=True)


def _packets(container: Any, video: Any) -> Iterator[Any]:
    return (packet for packet in container.demux(video) if packet.dts is not None and packet.pts is not None)


def _plan(container: Any, video: Any, low: float, high: float) -> list[tuple[int, bool]]:
    """(pts, wanted) of each packet in decoding order, from the keyframe before `low` to the last that is wanted."""
    rows: list[tuple[int, bool]] = []
    _seek(container, video, low)
    for packet in _packets(container, video):
        if packet.dts >= high:
            break
        rows.append((packet.pts, low <= packet.pts < high))
    while rows and not rows[-1][1]:
        rows.pop()
    return rows


def _encoded(source: Path, target: Path, low: float, high: float, times_ns: np.ndarray) -> Cut:
    clip = ImageClip(target)
    with av.open(str(source)) as container:
        video = container.streams.video[0]
        _seek(container, video, low)
        for frame in container.decode(video):
            if frame.pts is None or frame.pts < low:
                continue
            if frame.pts >= high:
                break
            pixels = frame.to_ndarray(format="rgb24")
            clip.add(pixels, "rgb24", int(times_ns[min(clip.frames, len(times_ns) - 1)]), pixels.tobytes())
    notes = ["re-encoded: the cut would have crossed B-frames"]
    return Cut(clip.close(), times_ns[: clip.frames], clip.digest.digest(), notes)
