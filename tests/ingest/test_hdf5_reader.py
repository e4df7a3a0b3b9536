"""HDF5 in robomimic's and ALOHA's shapes, and files that must not be trusted."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
from PIL import Image

from ray_jobs.ingest.hdf5_reader import Hdf5Reader
from ray_jobs.ingest.reader import Refused
from ray_jobs.seam.configs import IngestSettings, Limits
from ray_jobs.seam.store import Store
from tests.ingest.conftest import upload_of
from tests.ingest.recorded import Taken, picture

Take = Callable[..., list[Taken | Refused]]
STEPS = 12


def aloha(path: Path, images: str = "raw", **changes: Any) -> Path:
    """One ALOHA episode: 14 joints, two cameras as raw pixels, as padded JPEGs or as JPEGs of their own lengths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    qpos = np.cumsum(np.random.default_rng(0).normal(size=(STEPS, 14)), axis=0)
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file["observations/qpos"], file["observations/qvel"], file["action"] = qpos, qpos * 0, qpos + 0.1
        for camera in ("cam_high", "cam_left_wrist"):
            frames = np.stack([picture(number) for number in range(STEPS)])
            if images == "raw":
                file.create_dataset(f"observations/images/{camera}", data=frames, chunks=(1, 48, 64, 3), compression="gzip")
                continue
            packed = [jpeg(frame) for frame in frames]
            if images == "ragged":
                cells = file.create_dataset(f"observations/images/{camera}", (STEPS,), dtype=h5py.vlen_dtype(np.uint8))
                for row, data in enumerate(packed):
                    cells[row] = np.frombuffer(data, np.uint8)
            else:
                width = max(map(len, packed))
                file[f"observations/images/{camera}"] = np.stack([np.frombuffer(data.ljust(width, b"\0"), np.uint8) for data in packed])
        for name, value in changes.items():
            file.attrs[name] = value
    return path


def jpeg(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "jpeg", quality=95)
    return sink.getvalue()


def robomimic(path: Path, lengths: tuple[int, ...] = (8, 10), images: bool = True, **env: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "PickPlaceCan", "env_kwargs": env})
        for number, length in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            draw = np.random.default_rng(number)
            demo["actions"], demo["states"] = draw.normal(size=(length, 7)), draw.normal(size=(length, 71))
            demo["obs/robot0_eef_pos"], demo["obs/robot0_gripper_qpos"] = draw.normal(size=(length, 3)), draw.normal(size=(length, 2))
            demo["obs/robot0_joint_vel"], demo["obs/object"] = draw.normal(size=(length, 7)), draw.normal(size=(length, 10))
            if images:
                demo["obs/agentview_image"] = np.stack([picture(step) for step in range(length)])
        file["mask/train"] = np.array([b"demo_0"])
    return path


@pytest.mark.parametrize("images", ["raw", "padded", "ragged"])
def test_aloha(raw: Store, tmp_path: Path, take: Take, images: str) -> None:
    aloha(tmp_path / "raw/arm-1/episode_0.hdf5", images)
    (item,) = take(raw, "arm-1/episode_0.hdf5")
    assert isinstance(item, Taken) and item.meta.synthetic_clock
    assert item.meta.fps == 50 and item.meta.notes == ("no rate in the file: taken as 50 Hz, as ALOHA records",)
    assert item.streams["state"].values.shape == item.streams["action"].values.shape == (STEPS, 14)
    assert item.meta.state_names[:2] == ("qpos_0", "qpos_1") and sorted(item.meta.cameras) == ["cam_high", "cam_left_wrist"]
    assert np.array_equal(item.streams["state"].t_ns, np.arange(STEPS) * 20_000_000)
    truth = np.stack([picture(number) for number in range(STEPS)]).astype(float)
    assert np.abs(item.pictures["cam_high"] - truth).mean() < 6


def test_a_rate_in_the_file_or_the_settings_counts(raw: Store, tmp_path: Path, take: Take) -> None:
    aloha(tmp_path / "raw/a.hdf5", fps=30)
    aloha(tmp_path / "raw/b.hdf5")
    (given,), (set_,) = take(raw, "a.hdf5"), take(raw, "b.hdf5", IngestSettings(hdf5_fps=25))
    assert isinstance(given, Taken) and isinstance(set_, Taken)
    assert (given.meta.fps, given.meta.notes, set_.meta.fps, set_.meta.notes) == (30, (), 25, ())


def test_robomimic(raw: Store, tmp_path: Path, take: Take) -> None:
    robomimic(tmp_path / "raw/a.hdf5", lengths=tuple(range(3, 15)), control_freq=10)
    found = take(raw, "a.hdf5")
    assert [len(item.streams["state"].t_ns) for item in found if isinstance(item, Taken)] == list(range(3, 15)), "demo_2 stands before demo_10"
    for item in found:
        assert isinstance(item, Taken) and item.meta.notes == ()
        assert (item.meta.fps, item.meta.task, list(item.meta.cameras)) == (10, "PickPlaceCan", ["agentview"])
        assert item.meta.state_names == ("robot0_eef_pos_0", "robot0_eef_pos_1", "robot0_eef_pos_2", "robot0_gripper_qpos_0", "robot0_gripper_qpos_1")
        assert len(item.pictures["agentview"]) == len(item.streams["action"].t_ns)
    starts = [item.recorded.start_ns for item in found if isinstance(item, Taken)]
    assert starts == sorted(set(starts)), "episodes of one file do not claim the same seconds"


def test_depth_stands_apart_and_is_kept_without_loss(raw: Store, tmp_path: Path, take: Take) -> None:
    depth = np.random.default_rng(0).integers(0, 65535, (STEPS, 20, 30), np.uint16)
    path = aloha(tmp_path / "raw/a.hdf5")
    with h5py.File(path, "a") as file:
        file["observations/images/depth_high"] = depth
    for recorded in Hdf5Reader().read(raw, upload_of(raw, "a.hdf5"), IngestSettings()):
        assert not isinstance(recorded, Refused)
        meta = recorded.episode.meta
        assert list(meta.depth) == ["depth_high"] and "depth_high" not in meta.cameras and meta.depth["depth_high"].codec == "ffv1"
        with av.open(str(recorded.clips["depth_high"])) as container:
            assert np.array_equal(np.stack([frame.to_ndarray() for frame in container.decode(video=0)]), depth)
        assert len(recorded.episode.streams["depth:depth_high"].t_ns) == STEPS


def test_an_episode_that_cannot_be_read_costs_itself(raw: Store, tmp_path: Path, take: Take) -> None:
    path = robomimic(tmp_path / "raw/a.hdf5", lengths=(5, 5, 5))
    with h5py.File(path, "a") as file:
        del file["data/demo_1/actions"], file["data/demo_1/obs"], file["data/demo_1/states"]
        del file["data/demo_2/actions"]
    first, second, third = take(raw, "a.hdf5")
    assert isinstance(first, Taken) and isinstance(third, Taken) and "no action" in third.meta.notes
    assert isinstance(second, Refused) and (second.part, second.reason) == ("demo_1", "it has neither states, actions nor pictures")


def external(file: h5py.File, other: Path) -> None:
    file["action"] = h5py.ExternalLink(str(other), "action")


def soft(file: h5py.File, other: Path) -> None:
    file["hidden"] = np.zeros((4, 2))
    file["action"] = h5py.SoftLink("/hidden")


def stored_outside(file: h5py.File, other: Path) -> None:
    file.create_dataset("action", (4, 2), "f8", external=[(str(other), 0, 64)])


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4, 2), "f8")
    layout[:] = h5py.VirtualSource(str(other), "action", shape=(4, 2))
    file.create_virtual_dataset("action", layout)


def pickled(file: h5py.File, other: Path) -> None:
    file.create_dataset("action", (4,), dtype=h5py.string_dtype())


def referring(file: h5py.File, other: Path) -> None:
    file.create_dataset("action", (4,), dtype=h5py.ref_dtype)


def huge(file: h5py.File, other: Path) -> None:
    file.create_dataset("action", (1 << 40, 7), "f8", chunks=(1024, 7))


def wide(file: h5py.File, other: Path) -> None:
    file.create_dataset("action", (1, 1 << 30), "f8", chunks=(1, 1024))


def bomb(file: h5py.File, other: Path) -> None:
    file.create_dataset("action", (1 << 18, 600), "u1", chunks=(1 << 18, 600), compression="gzip", fillvalue=0)


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (external, "action is a link, and links are not followed"),
        (soft, "action is a link, and links are not followed"),
        (stored_outside, "action takes its data from other files"),
        (virtual, "action takes its data from other files"),
        (pickled, "action holds object of shape (4,), and no list of numbers"),
        (referring, "action holds object of shape (4,), and no list of numbers"),
        (huge, "limits.episode_mb (4096)"),
        (wide, "limits.values (4096)"),
        (bomb, "limits.chunk_mb (100)"),
    ],
)
def test_what_is_not_plain_data_of_the_file_itself_is_refused(
    raw: Store, tmp_path: Path, take: Take, plant: Callable[[h5py.File, Path], None], reason: str
) -> None:
    other = aloha(tmp_path / "secret.hdf5")
    (tmp_path / "raw").mkdir(exist_ok=True)
    with h5py.File(tmp_path / "raw/a.hdf5", "w") as file:
        file["observations/qpos"] = np.zeros((4, 2))
        plant(file, other)
    limits = Limits(chunk_mb=100) if plant is bomb else Limits()
    (refused,) = take(raw, "a.hdf5", IngestSettings(limits=limits))
    assert isinstance(refused, Refused) and reason in refused.reason


def test_a_group_that_holds_itself_ends(raw: Store, tmp_path: Path, take: Take) -> None:
    (tmp_path / "raw").mkdir(exist_ok=True)
    with h5py.File(tmp_path / "raw/a.hdf5", "w") as file:
        file["data"] = file["/"]
    found = take(raw, "a.hdf5")
    assert found and all(isinstance(item, Refused) for item in found)


def test_another_shape_says_what_it_holds(raw: Store, tmp_path: Path, take: Take) -> None:
    (tmp_path / "raw").mkdir(exist_ok=True)
    with h5py.File(tmp_path / "raw/a.hdf5", "w") as file:
        file["spectra"], file["notes"] = np.zeros(4), np.zeros(4)
    (refused,) = take(raw, "a.hdf5")
    assert isinstance(refused, Refused) and refused.reason.endswith("it holds notes, spectra")


def test_a_truncated_file_is_refused(raw: Store, tmp_path: Path, take: Take) -> None:
    path = robomimic(tmp_path / "raw/a.hdf5")
    path.write_bytes(path.read_bytes()[:5000])
    (refused,) = take(raw, "a.hdf5")
    assert isinstance(refused, Refused) and "truncated file" in refused.reason
