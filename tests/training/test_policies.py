"""The policies that look at pictures: learn from them, see windows of several cameras, and say the same in training, evaluation and after storage."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.store import Store
from ray_jobs.training.features import find_extractor
from ray_jobs.training.loop import learn
from ray_jobs.training.model import content_hash, read_model, write_model
from ray_jobs.training.policies.act import ACT
from ray_jobs.training.policies.cnn import CNN
from ray_jobs.training.policies.pictures import shrunk
from ray_jobs.training.policies.vision import VisionPolicy
from ray_jobs.training.policy import BUILT_IN, Policy, find_policy
from ray_jobs.training.samples import Moments, moments
from tests.training.test_policy import LINEAGE

BOTH = ("cnn", "act")
FEW = TrainSettings(steps=3, batch=16, workers=1, seed=7)


class WideCNN(CNN):
    window, chunk = 3, 1  # of one action, so that act has nothing to average


class WideACT(ACT):
    window, chunk = 3, 1


WIDE = tuple(f"{__name__}:{kind.__name__}" for kind in (WideCNN, WideACT))


def board(places: np.ndarray, size: int = 64) -> np.ndarray:
    """uint8 [n, size, size, 3]: a red square on grey, its centre at `places` [n, 2] (across, down; -1 .. 1)."""
    frames = np.full((len(places), size, size, 3), 120, np.uint8)
    half = size // 12
    for frame, (across, down) in zip(frames, np.rint((places * 0.7 + 1) / 2 * (size - 1)).astype(int), strict=True):
        frame[down - half : down + half, across - half : across + half] = (220, 30, 30)
    return frames


def pushing(policy: str, episodes: int = 20, length: int = 20, cameras: tuple[str, ...] = ("front",)) -> tuple[list[Moments], np.ndarray]:
    """Go towards the red square, which only the first camera shows; close the gripper where it is at the left. And its places [n, 2]."""
    draw = np.random.default_rng(0)
    parts, seen = [], []
    for _ in range(episodes):
        places = draw.uniform(-1, 1, (length, 2))
        frames = {camera: board(places if camera == min(cameras) else draw.uniform(-1, 1, (length, 2))) for camera in cameras}
        states = draw.normal(size=(length, 3)).astype(np.float32)
        actions = np.concatenate([0.1 * places, places[:, :1] < 0], axis=1)
        parts.append(moments(find_extractor(policy).observe(states, frames), actions))
        seen.append(places)
    return parts, np.concatenate(seen)


def made(policy: str, cameras: tuple[str, ...] = ("front",)) -> tuple[Policy, list[Moments]]:
    """A policy that has hardly learned, and what it was shown."""
    torch.set_num_threads(1)
    parts, _ = pushing(policy, 3, cameras=cameras)
    return learn(policy, parts, FEW, 3, cameras)[0], parts


@pytest.mark.parametrize(("name", "steps", "rate"), [("cnn", 120, 6e-3), ("act", 180, 2e-3)])
def test_it_learns_what_only_pictures_tell(name: str, steps: int, rate: float) -> None:
    torch.set_num_threads(1)
    parts, _ = pushing(name, 400, 1)  # every moment an episode of its own: the other actions of a chunk are not valid
    policy, _ = learn(name, parts, TrainSettings(steps=steps, batch=32, workers=1, learning_rate=rate), 3, ("front",))
    draw = np.random.default_rng(1)
    places = draw.uniform(-1, 1, (60, 2))
    told = []
    for frame in board(places, 96):  # a size that it has not seen
        policy.reset()
        told.append(policy.act({"front": frame}, draw.normal(size=3).astype(np.float32)))
    answer = np.array(told)
    error = np.abs(answer[:, :2] - 0.1 * places).mean()
    assert error < 0.5 * np.abs(0.1 * places).mean(), error
    clear = np.abs(places[:, 0]) > 0.3
    assert ((answer[:, 2] > 0.5) == (places[:, 0] < 0))[clear].mean() > 0.9


@pytest.mark.parametrize("name", BOTH)
def test_what_is_not_valid_has_no_say(name: str) -> None:
    policy, parts = made(name)
    batch = parts[0].batch(np.arange(12, 20), policy.window, policy.chunk)  # their chunks reach beyond the end
    batch.valid[2] = 0  # as where a number was NaN
    assert 0 < batch.valid.sum() < batch.valid.size - policy.chunk

    def loss(seen: dict[str, np.ndarray], actions: np.ndarray) -> float:
        torch.manual_seed(0)
        return float(policy.loss(policy.normalised(seen), torch.from_numpy(actions), torch.from_numpy(batch.valid)).detach())

    first = loss(batch.seen, batch.actions)
    spoilt = np.where(batch.valid[..., None] > 0, batch.actions, 1e3).astype(np.float32)
    unseen = {key: values.copy() for key, values in batch.seen.items()}
    for values in unseen.values():
        values[2] = 17
    assert loss(unseen, spoilt) == pytest.approx(first, rel=1e-6)
    assert loss(batch.seen, np.where(batch.valid[..., None] > 0, batch.actions + 0.1, 0).astype(np.float32)) != pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize("name", WIDE)
def test_acting_sees_the_windows_of_all_cameras_that_training_saw(name: str) -> None:
    cameras = ("front", "wrist")
    policy, _ = made(name, cameras)
    draw = np.random.default_rng(2)
    states = draw.normal(size=(6, 3)).astype(np.float32)
    frames = {camera: board(draw.uniform(-1, 1, (6, 2)), 96) for camera in cameras}
    episode = moments(policy.observe(states, frames), np.zeros((6, 3)))
    batch = policy.predict(episode.batch(np.arange(6), policy.window, policy.chunk).seen)[:, 0]
    policy.reset()
    acted = np.array([policy.act({camera: frames[camera][step] for camera in cameras}, states[step]) for step in range(6)])
    assert np.allclose(acted, batch, atol=1e-5)
    for camera in cameras:
        frames[camera][3] = board(np.array([[0.9, 0.9]]), 96)
        other = policy.predict(moments(policy.observe(states, frames), np.zeros((6, 3))).batch(np.arange(6), policy.window, policy.chunk).seen)[:, 0]
        assert (np.abs(other - batch).max(axis=1) > 1e-7).tolist() == [False, False, False, True, True, True]  # and two moments later
        batch = other


@pytest.mark.parametrize("name", BOTH)
def test_a_model_comes_back_the_same_and_the_same_seed_makes_it_again(name: str, store: Store) -> None:
    policy, parts = made(name)
    again = read_model(store, write_model(store, policy, LINEAGE))
    seen = parts[0].batch(np.arange(5), policy.window, policy.chunk).seen
    assert np.array_equal(again.predict(seen), policy.predict(seen))
    assert content_hash(again) == content_hash(policy) == content_hash(made(name)[0])
    other, _ = learn(name, parts, FEW.model_copy(update={"seed": 8}), 3, ("front",))
    assert content_hash(other) != content_hash(policy)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("frames", "width", "said"),
    [
        ({"front": (96, 96, 3)}, 5, "trained on states of 3 values"),
        ({"wrist": (96, 96, 3)}, 3, "the camera 'front', and it is not among"),
        ({"front": (96, 96, 4)}, 3, r"frames have to be uint8 \[n, h, w, 3\], not uint8 \[1, 96, 96, 4\]"),
        ({"front": (96, 96)}, 3, r"frames have to be uint8 \[n, h, w, 3\], not uint8 \[1, 96, 96\]"),
    ],
)
def test_other_observations_are_refused_in_one_line(name: str, frames: dict[str, tuple[int, ...]], width: int, said: str) -> None:
    policy, _ = made(name)
    with pytest.raises(ValueError, match=said) as error:
        policy.act({camera: np.zeros(shape, np.uint8) for camera, shape in frames.items()}, np.zeros(width, np.float32))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BOTH)
def test_a_robot_without_cameras_is_learned_from_too(name: str) -> None:
    policy, _ = made(name, ())
    assert np.isfinite(policy.act({}, np.zeros(3, np.float32))).all()


def test_pictures_are_means_of_what_they_cover() -> None:
    draw = np.random.default_rng(0)
    frames = draw.integers(0, 256, (2, 128, 192, 3)).astype(np.uint8)
    means = frames.reshape(2, 64, 2, 64, 3, 3).mean(axis=(2, 4))
    assert np.abs(shrunk(frames, 64) - means).max() <= 0.51
    odd = draw.integers(0, 256, (1, 97, 33, 3)).astype(np.uint8)  # neither way a whole number
    assert np.abs(shrunk(odd, 64).mean(axis=(1, 2)) - odd.mean(axis=(1, 2))).max() < 0.5
    assert (shrunk(np.full((1, 50, 70, 3), 201, np.uint8), 64) == 201).all()


def test_a_window_is_augmented_as_one_and_its_rows_differently() -> None:
    policy, _ = made("cnn")
    assert isinstance(policy, VisionPolicy)
    one = torch.from_numpy(board(np.array([[0.1, -0.2]])))
    seen = {"picture:front": one.expand(4, 3, -1, -1, -1)}
    torch.manual_seed(0)
    (varied,) = policy.augmented(seen)
    assert varied.shape == (4, 3, 3, 64, 64)
    assert torch.equal(varied[:, 0], varied[:, 2])
    assert len({row.numpy().tobytes() for row in varied}) == 4


def test_decoding_for_a_built_in_policy_needs_no_torch() -> None:
    code = (
        "import sys; from ray_jobs.training.features import BUILT_IN, find_extractor; [find_extractor(n) for n in BUILT_IN]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_extractors_are_what_their_policies_say(name: str) -> None:
    kind, extractor = find_policy(name), find_extractor(name)
    assert kind.name == name
    assert (kind.chunk, kind.window, kind.cameras) == (extractor.chunk, extractor.window, extractor.cameras)
    draw = np.random.default_rng(0)
    states, frames = draw.normal(size=(2, 3)), {"top": draw.integers(0, 256, (2, 48, 64, 3)).astype(np.uint8)}
    theirs, ours = kind.observe(states, frames), extractor.observe(states, frames)
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[key], ours[key]) for key in ours)
