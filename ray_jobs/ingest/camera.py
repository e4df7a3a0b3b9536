"""One camera of a log: recorded packets kept, images encoded, depth kept without loss."""

from pathlib import Path
from typing import Any

from ray_jobs.episode import Clip
from ray_jobs.ingest import values
from ray_jobs.ingest.clips import DepthClip, ImageClip, PacketClip, checked_size, codec_of, is_keyframe
from ray_jobs.ingest.vectors import Samples
from ray_jobs.seam.configs import Limits

LARGEST_GOP = 64 << 20  # bytes kept of the packets since the last keyframe, for an episode that begins between two


class Camera:
    """The packets since the last keyframe, and the clip of the episode that is open."""

    def __init__(self, name: str, kind: str, limits: Limits):
        self.name, self.kind, self.limits = name, kind, limits
        self._codec = ""
        self._gop: list[bytes] = []
        self._gop_bytes = 0
        self.begin(None)

    def begin(self, folder: Path | None) -> None:
        """A new episode, whose clip goes into the folder; None between episodes."""
        self._folder = folder
        self._clip: PacketClip | ImageClip | DepthClip | None = None
        self.samples = Samples()
        self.dropped: dict[str, int] = {}

    @property
    def is_depth(self) -> bool:
        return isinstance(self._clip, DepthClip)

    def take(self, message: Any, t_ns: int, log_ns: int) -> None:
        """Raises one of UNDECODABLE, BROKEN_IMAGE or MEDIA_ERRORS where the message is not what its type promises."""
        label = str(getattr(message, "format", "") or getattr(message, "encoding", ""))
        codec = codec_of(label) if self.kind != "image" else None
        if self.kind == "video" and codec is None:
            raise ValueError(f"video format {label!r} is not h264, h265 or av1")
        if codec is None and self._folder is None:
            return
        data = values.payload(message)
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
        if self._folder is not None:
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
        assert self._folder is not None
        clip = PacketClip(self._folder / f"{self.name}.mp4", codec)
        if keyframe:
            self._clip = clip if self._starts(clip, data) else None
        elif self._gop and self._starts(clip, self._gop[0]):
            for number, packet in enumerate(self._gop):
                clip.add(packet, t_ns - (len(self._gop) - number) * 33_333_333, number == 0, lead_in=True)
            self._clip = clip

    def _starts(self, clip: PacketClip, packet: bytes) -> bool:
        if not clip.start(packet):
            return False
        checked_size(clip.width, clip.height, self.limits)
        return True

    def _image(self, message: Any, data: bytes, t_ns: int, log_ns: int) -> None:
        assert self._folder is not None
        deep = values.is_depth(self.kind, message)
        if self._clip is not None and deep != isinstance(self._clip, DepthClip):
            self._drop("images of another kind (depth or colour)")
            return
        if deep:
            found = values.depth(self.kind, message, data, self.limits)
            self._clip = self._clip or DepthClip(self._folder / f"{self.name}.mkv")
            assert isinstance(self._clip, DepthClip)
            kept = self._clip.add_depth(found, t_ns, data)
        else:
            pixels, layout = values.pixels(self.kind, message, data, self.limits)
            self._clip = self._clip or ImageClip(self._folder / f"{self.name}.mp4")
            assert isinstance(self._clip, ImageClip)
            kept = self._clip.add(pixels, layout, t_ns, data)
        if kept:
            self.samples.add(t_ns, log_ns)
        else:
            self._drop("images of another size")

    def _drop(self, why: str) -> None:
        self.dropped[why] = self.dropped.get(why, 0) + 1

    def end(self, notes: list[str]) -> tuple[Clip, Path, bytes] | None:
        """The finished clip with the digest of what was recorded, or None where this camera has no frame."""
        notes += [f"{count} {why} were not kept ({self.name})" for why, count in self.dropped.items()]
        if self._clip is None or not self.samples.t:
            notes.append(f"no frames of camera {self.name}")
            return None
        return self._clip.close(), self._clip.path, self._clip.digest.digest()
