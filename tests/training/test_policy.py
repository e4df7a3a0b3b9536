"""A policy learns, keeps, forgets between episodes, and refuses what is not its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import DataError, UserError
from ray_jobs.seam.store import Store
from ray_jobs.training.features import BLOB_WIDTH, FRAME_WIDTH, KEYPOINTS, blobs
from ray_jobs.training.loop import learn
from ray_jobs.training.model import Lineage, content_hash, read_model, write_model
from ray_jobs.training.policy import Policy, build_policy, find_policy
from ray_jobs.training.samples import Moments, moments, statistics
from ray_jobs.training.spec import PolicyConfig

TINY = TrainSettings(steps=300, batch=64, workers=1, checkpoint_every=100)
LINEAGE = Lineage(model="", datasets=(), settings={}, code=None, versions={}, metrics={}, steps=0, resumed_from_step=0, seconds=0.0)


def reaching(episodes: int, state_width: int = 3) -> list[Moments]:
    """Go to the origin by a tenth of the way; close the gripper where x is negative."""
    draw = np.random.default_rng(0)
    parts = []
    for _ in range(episodes):
        states = draw.normal(size=(20, state_width)).astype(np.float32)
        actions = np.concatenate([-0.1 * states, states[:, :1] < 0], axis=1)
        parts.append(moments({"features": states}, actions))
    return parts


def built(parts: list[Moments], width: int = 3) -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(policy="keypoints", state_width=width, action_width=width + 1, cameras=(), shapes={"features": (width,)})
    return build_policy(config, statistics(parts))


@pytest.fixture(scope="module")
def learned() -> Policy:
    torch.set_num_threads(1)
    return learn("keypoints", reaching(40), TINY, 3)[0]


@pytest.mark.parametrize("state", [[1.0, -0.5, 0.3], [-1.0, 0.2, 0.8]])
def test_it_learns_a_tiny_task(learned: Policy, state: list[float]) -> None:
    learned.reset()
    action = learned.act({}, np.array(state, np.float32))
    assert action[:3] == pytest.approx(-0.1 * np.array(state), abs=0.02)
    assert (action[3] > 0.5) == (state[0] < 0)


def test_ensembling_remembers_within_an_episode_and_not_beyond(learned: Policy) -> None:
    one, other = np.array([1.0, 1, 1], np.float32), np.array([-1.0, -1, -1], np.float32)
    learned.reset()
    first = learned.act({}, one)
    second = learned.act({}, other)
    learned.reset()
    alone = learned.act({}, other)
    assert np.abs(second - alone).max() > 1e-3
    learned.reset()
    assert np.array_equal(learned.act({}, one), first)


def test_a_model_comes_back_the_same_and_is_named_by_its_content(learned: Policy, store: Store) -> None:
    prefix = write_model(store, learned, LINEAGE)
    again = read_model(store, prefix)
    seen = {"features": np.random.default_rng(1).normal(size=(5, 1, 3)).astype(np.float32)}
    assert np.array_equal(again.predict(seen), learned.predict(seen))
    assert prefix == f"models/{content_hash(again)}" == write_model(store, again, LINEAGE)


def test_a_changed_or_cut_model_is_refused(learned: Policy, store: Store) -> None:
    prefix = write_model(store, learned, LINEAGE)
    key = f"{prefix}/weights.safetensors"
    data = store.get(key)
    store.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match="has changed"):
        read_model(store, prefix)
    for cut in (b"", data[:5], data[:-8], b"\x80\x04pickle"):
        store.put(key, cut)
        with pytest.raises(DataError, match="not a whole safetensors file"):
            read_model(store, prefix)


def test_another_networks_weights_are_refused(learned: Policy) -> None:
    wider = built(reaching(4, 5), 5)
    with pytest.raises(UserError, match="do not fit"):
        wider.load(learned.tensors())


def test_states_of_another_robot_are_refused(learned: Policy) -> None:
    with pytest.raises(ValueError, match="trained on states of 3"):
        learned.act({}, np.zeros(5, np.float32))


@pytest.mark.parametrize("name", ["keypoint", "no.such:Thing", "ray_jobs.training.loop:State", "json:dumps"])
def test_unknown_policies_are_told_in_one_line(name: str) -> None:
    with pytest.raises(UserError) as error:
        find_policy(name)
    assert "\n" not in str(error.value)


CANCELLED = """
import os, signal, sys, threading, time
from ray_jobs.training.features import find_extractor

def cancel():
    while "torch" not in sys.modules:
        time.sleep(0.001)
    while "torch._C" not in sys.modules:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

threading.Thread(target=cancel, daemon=True).start()
try:
    find_extractor("ray_jobs.training.policies.keypoints:Keypoints")
    print("was not cancelled")
except KeyboardInterrupt:
    print(find_extractor("ray_jobs.training.policies.keypoints:Keypoints").chunk)
"""


def test_a_task_that_is_cancelled_while_it_imports_torch_leaves_a_process_that_can_be_used() -> None:
    ended = subprocess.run([sys.executable, "-c", CANCELLED], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "4"), ended.stderr


def test_blobs_are_where_they_are() -> None:
    frame = np.full((1, 96, 96, 3), 190, np.uint8)
    frame[0, 10:20, 70:80] = (200, 30, 30)
    frame[0, 60:80, 20:40] = (25, 170, 50)
    red, green = blobs(frame)[0, :4], blobs(frame)[0, 4:]
    assert red == pytest.approx([74.5 / 47.5 - 1, 14.5 / 47.5 - 1, 10 / 96, 1], abs=1e-5)
    assert green == pytest.approx([29.5 / 47.5 - 1, 69.5 / 47.5 - 1, 20 / 96, 1], abs=1e-5)
    assert not blobs(np.full((1, 96, 96, 3), 190, np.uint8)).any()


@pytest.mark.parametrize("coloured", [True, False])
def test_pictures_without_the_demos_colours_are_still_used(coloured: bool) -> None:
    draw = np.random.default_rng(0)
    frames = draw.integers(100, 140, (30, 64, 48, 3)).astype(np.uint8)
    if coloured:
        frames[:, 5:15, 5:15] = (220, 20, 20)
        frames[:, 30:40, 30:40] = (20, 200, 20)
    states = draw.normal(size=(30, 7)).astype(np.float32)
    part = moments(KEYPOINTS.observe(states, {"top": frames}), draw.normal(size=(30, 6)))
    config = PolicyConfig(policy="keypoints", state_width=7, action_width=6, cameras=("top",), shapes={"features": (7 + FRAME_WIDTH,)})
    policy = build_policy(config, statistics([part]))
    assert policy.used == 7 + (BLOB_WIDTH if coloured else FRAME_WIDTH)  # type: ignore[attr-defined]
    assert policy.act({"top": frames[0], "wrist": frames[1]}, states[0]).shape == (6,)


def test_a_camera_that_is_missing_is_named(learned: Policy) -> None:
    draw = np.random.default_rng(0)
    states, frames = draw.normal(size=(30, 3)).astype(np.float32), draw.integers(0, 255, (30, 64, 48, 3)).astype(np.uint8)
    policy, _ = learn("keypoints", [moments(KEYPOINTS.observe(states, {"top": frames}), states)], TINY.model_copy(update={"steps": 0}), 3, ("top",))
    with pytest.raises(ValueError, match=r"the camera 'top', and it is not among \['wrist'\]"):
        policy.act({"wrist": frames[0]}, states[0])
