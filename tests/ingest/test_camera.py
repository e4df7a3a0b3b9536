"""Pictures of every encoding: colour as colour, depth apart and without loss, and bytes that are neither."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from ray_jobs.episode import depth_key, read_episode, write_episode
from ray_jobs.ingest.mcap_reader import McapReader
from ray_jobs.ingest.reader import Recorded, Refused
from ray_jobs.seam.configs import IngestSettings, Limits
from ray_jobs.seam.store import Store
from tests.ingest.conftest import upload_of
from tests.ingest.recorded import NOON, SECOND, Said, Taken, joints, mcap, picture, write

Take = Callable[..., list[Taken | Refused]]
HEIGHT, WIDTH = 48, 64


def image(topic: str, at: int, encoding: str, pixels: np.ndarray, step: int | None = None, **more: Any) -> Said:
    step = step if step is not None else pixels.strides[0]
    fields = {"height": pixels.shape[0], "width": pixels.shape[1], "encoding": encoding, "is_bigendian": 0, "step": step, "data": pixels.tobytes()}
    return Said(topic, "sensor_msgs/msg/Image", at, {**fields, **more}, at)


def compressed(topic: str, at: int, label: str, data: bytes) -> Said:
    return Said(topic, "sensor_msgs/msg/CompressedImage", at, {"format": label, "data": data}, at)


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind)
    return sink.getvalue()


def as_encoding(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """A colour picture as a camera would send it."""
    if encoding == "mono8":
        return rgb.mean(axis=2).astype(np.uint8)
    if encoding in ("rgba8", "bgra8"):
        return np.dstack([rgb if encoding == "rgba8" else rgb[:, :, ::-1], np.full(rgb.shape[:2], 255, np.uint8)])
    if encoding in ("yuv422", "yuv422_yuy2"):
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuyv422" if encoding.endswith("yuy2") else "uyvy422")
        return np.frombuffer(bytes(frame.planes[0]), np.uint8).reshape(HEIGHT, -1)[:, : WIDTH * 2].reshape(HEIGHT, WIDTH, 2)
    if encoding == "bayer_rggb8":
        mosaic = rgb[:, :, 1].copy()
        mosaic[0::2, 0::2], mosaic[1::2, 1::2] = rgb[0::2, 0::2, 0], rgb[1::2, 1::2, 2]
        return mosaic
    return rgb[:, :, ::-1].copy() if encoding == "bgr8" else rgb


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422", "yuv422_yuy2", "bayer_rggb8"])
def test_raw_pictures_keep_their_colours(raw: Store, tmp_path: Path, take: Take, encoding: str) -> None:
    said = [image("/top/image_raw", NOON + n * SECOND // 10, encoding, as_encoding(picture(n), encoding)) for n in range(6)]
    write(tmp_path / "raw/a.mcap", mcap(said))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and item.meta.notes == ("no state", "no action")
    truth = picture(3).astype(float)
    truth = np.repeat(truth.mean(axis=2, keepdims=True), 3, axis=2) if encoding == "mono8" else truth
    assert np.abs(item.pictures["top"][3] - truth).mean() < 10


@pytest.mark.parametrize(("kind", "label"), [("jpeg", "rgb8; jpeg compressed bgr8"), ("png", "png"), ("webp", "webp")])
def test_compressed_pictures(raw: Store, tmp_path: Path, take: Take, kind: str, label: str) -> None:
    write(tmp_path / "raw/a.mcap", mcap([compressed("/top/compressed", NOON + n * SECOND // 10, label, encoded(picture(n), kind)) for n in range(4)]))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and np.abs(item.pictures["top"][2] - picture(2).astype(float)).mean() < 8


def depth_of(found: np.ndarray, how: str) -> bytes | np.ndarray:
    """Millimetres as a driver sends them."""
    if how == "16UC1":
        return found
    if how == "32FC1":
        return np.where(found > 0, found / 1000, np.nan).astype(np.float32)
    if how == "16UC1; compressedDepth":
        return struct.pack("<iff", 0, 0.0, 0.0) + encoded(found, "png")
    a, b = 100.0 * 101.0, 0.0  # 32FC1; compressedDepth: depth = A / (value - B)
    return struct.pack("<iff", 0, a, b) + encoded(np.where(found > 0, a / (np.maximum(found, 1) / 1000) + b, 0).round().astype(np.uint16), "png")


@pytest.mark.parametrize(("how", "off"), [("16UC1", 0), ("32FC1", 1), ("16UC1; compressedDepth", 0), ("32FC1; compressedDepth", 20)])
def test_depth_stands_apart_in_millimetres(raw: Store, store: Store, tmp_path: Path, how: str, off: int) -> None:
    truth = np.random.default_rng(1).integers(400, 2000, (HEIGHT, WIDTH), np.uint16)
    truth[:4] = 0
    said = []
    for n in range(5):
        at, sent = NOON + n * SECOND // 10, depth_of(truth + np.uint16(n) * (truth > 0), how)
        said.append(joints("/joint_states", at, [n]))
        said.append(
            image("/cam/depth/image_raw", at, how, sent) if isinstance(sent, np.ndarray) else compressed("/cam/depth/image_raw/compressedDepth", at, how, sent)
        )
        said.append(image("/cam/color/image_raw", at, "rgb8", picture(n)))
    write(tmp_path / "raw/a.mcap", mcap(said))
    for recorded in McapReader().read(raw, upload_of(raw, "a.mcap"), IngestSettings()):
        assert isinstance(recorded, Recorded)
        write_episode(store, recorded.episode, recorded.clips)
        meta = recorded.episode.meta
        assert list(meta.cameras) == ["cam"] and list(meta.depth) == ["cam_depth"] and meta.depth["cam_depth"].frames == 5
        assert len(read_episode(store, meta.episode_id).streams["depth:cam_depth"].t_ns) == 5
        with store.local_copy(depth_key(meta.episode_id, "cam_depth")) as path, av.open(str(path)) as container:
            found = np.stack([frame.to_ndarray() for frame in container.decode(video=0)])
        assert found.dtype == np.uint16 and np.abs(found[4].astype(int) - (truth + np.uint16(4) * (truth > 0))).max() <= off
        assert (found[:, :4] == 0).all(), "nothing measured stays nothing"


def test_pictures_that_are_too_large_or_lie_are_counted(raw: Store, tmp_path: Path, take: Take) -> None:
    bomb = encoded(np.zeros((2000, 2000), np.uint8), "png")
    said = [joints("/joint_states", NOON + n * SECOND // 10, [n]) for n in range(5)]
    said += [compressed("/top/compressed", NOON + n, "png", data) for n, data in enumerate((bomb, b"\x89PNG\r\n\x1a\n", b""))]
    said += [image("/raw/image", NOON + 9, "rgb8", picture(0), step=1 << 31), image("/raw/image", NOON + 10, "rgb8", picture(0), height=1 << 30, width=1 << 30)]
    write(tmp_path / "raw/a.mcap", mcap(said))
    (item,) = take(raw, "a.mcap", IngestSettings(limits=Limits(picture_mpx=1)))
    assert isinstance(item, Taken) and not item.meta.cameras
    notes = " ".join(item.meta.notes)
    assert "3 messages of /top/compressed could not be read, the first: ValueError: pictures of 2000 x 2000, more than limits.picture_mpx (1)" in notes
    assert "2 messages of /raw/image could not be read" in notes
