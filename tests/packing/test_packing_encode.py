"""Video that cannot be kept as it is: what is encoded looks like what was recorded, and twice the same."""

from pathlib import Path

import av
import numpy as np
import pytest

from ray_jobs.packing.manifest import file_sha256
from ray_jobs.packing.video import CorruptVideo, can_keep, decoded, scan, transcode
from tests.oracle.board import number_in
from tests.packing.made import write_clip


@pytest.mark.parametrize(
    ("codec", "pixels", "size", "name"),
    [
        ("mjpeg", "yuvj420p", 96, "clip.mp4"),  # full range: must become limited range, not be relabelled
        ("mjpeg", "yuvj444p", 97, "clip.mkv"),  # an odd size, which 4:2:0 cannot hold
        ("libx264", "yuv444p", 96, "clip.mp4"),
        ("ffv1", "bgr0", 96, "clip.mkv"),
    ],
)
def test_foreign_pixels_are_encoded_alike(tmp_path: Path, codec: str, pixels: str, size: int, name: str) -> None:
    clip = tmp_path / name
    write_clip(clip, list(range(20)), 10, size, codec, pixels)
    frames = np.arange(3, 18)
    seen = scan(clip)
    assert not can_keep(seen, 0, frames)
    made = transcode(clip, 0, frames, 10, tmp_path / "made.mp4")
    assert (made.parameters.width, made.parameters.height, made.parameters.pixels) == (size & ~1, size & ~1, "yuv420p")
    pictures = [frame.to_ndarray(format="rgb24") for frame in decoded(made.path)]
    assert [number_in(picture) for picture in pictures] == frames.tolist()
    with av.open(clip) as container:
        recorded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][3:18]
    edge = size & ~1
    error = np.abs(np.stack(pictures).astype(int) - np.stack(recorded)[:, :edge, :edge].astype(int)).mean()
    assert error < 4, f"{error:.1f} levels on average"
    again = transcode(clip, 0, frames, 10, tmp_path / "again.mp4")
    assert file_sha256(made.path) == file_sha256(again.path)


@pytest.mark.parametrize("frames", [[], [3, 2], [-1, 0], [18, 19, 20]])
def test_frames_that_are_not_there(tmp_path: Path, frames: list[int]) -> None:
    write_clip(tmp_path / "clip.mp4", list(range(20)))
    with pytest.raises(CorruptVideo):
        transcode(tmp_path / "clip.mp4", 0, np.array(frames, int), 10, tmp_path / "made.mp4")


def test_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("hello " * 1000)
    with av.open(tmp_path / "sound.mp4", "w") as output:
        stream = output.add_stream("aac", rate=16000)
        output.mux(stream.encode(None))
    for name in ("empty", "text", "sound"):
        with pytest.raises(CorruptVideo, match=f"{name}.mp4"):
            scan(tmp_path / f"{name}.mp4")


def test_no_clock_and_no_version_goes_into_the_file(tmp_path: Path) -> None:
    """Kept or encoded: no muxer or encoder name outside the bitstream, and creation times are zero."""
    write_clip(tmp_path / "clip.mp4", list(range(20)))
    made = transcode(tmp_path / "clip.mp4", 0, np.arange(20), 10, tmp_path / "made.mp4")
    data = made.path.read_bytes()
    assert b"Lavf" not in data and b"Lavc" not in data
    header = data.index(b"mvhd")
    assert data[header + 8 : header + 16] == bytes(8)
