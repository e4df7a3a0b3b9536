"""Bring your own policy: subclass `Policy`, and name it in the settings as "package.module:Class".

A policy turns one frame and one state into one action. It learns from samples that were extracted once per episode.
"""

import importlib
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from ray_jobs.seam.errors import UserError
from ray_jobs.training.features import BLOB_WIDTH, KEYPOINTS
from ray_jobs.training.spec import PolicyConfig, Statistics


class Policy:
    """What training and evaluation need of a policy. Raises ValueError from `act` for observations of the wrong shape.

    A subclass sets `name`, and in `build` returns its network. It may override any of the rest; `features` runs where
    episodes are decoded and must depend on its arguments alone.
    """

    name: ClassVar[str]
    chunk: ClassVar[int] = 4  # actions predicted at once, for this moment and the next ones
    memory: ClassVar[float] = 0.01  # temporal ensembling: weights exp(-memory * i), i = 0 the oldest prediction

    def __init__(self, config: PolicyConfig, statistics: Statistics):
        self.config, self.statistics = config, statistics
        self.mean, self.std = torch.tensor(statistics.feature_mean), torch.tensor(statistics.feature_std)
        self.action_mean, self.action_std = torch.tensor(statistics.action_mean), torch.tensor(statistics.action_std)
        self.binary = torch.tensor(statistics.binary)
        self.network = self.build()
        self.reset()

    @staticmethod
    def features(states: np.ndarray, frames: np.ndarray | None) -> np.ndarray:
        """f32 [n, f] of states f32 [n, d] and RGB frames uint8 [n, h, w, 3]."""
        raise NotImplementedError

    def build(self) -> nn.Module:
        """A fresh network from f features to chunk * action_width outputs."""
        raise NotImplementedError

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        """[n, chunk, a]: normalised actions; logits where the action is binary."""
        flat = self.network((features - self.mean) / self.std)
        return flat.reshape(len(features), self.chunk, self.config.action_width)

    def loss(self, features: torch.Tensor, actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Scalar. actions [n, chunk, a], valid [n, chunk] is 0 beyond the episode's end."""
        raise NotImplementedError

    def predict(self, features: np.ndarray) -> np.ndarray:
        """f32 [n, chunk, a] in the action's own units (binary: probability) of features [n, f]."""
        with torch.inference_mode():
            out = self.outputs(torch.from_numpy(features))
            actions = torch.where(self.binary, torch.sigmoid(out), out * self.action_std + self.action_mean)
        return actions.numpy()

    def reset(self) -> None:
        """Forget the episode: called before each one."""
        self._predictions: list[np.ndarray] = []

    def act(self, frame: np.ndarray | None, state: np.ndarray) -> np.ndarray:
        """The next action f32 [a] for a frame uint8 [h, w, 3] and a state f32 [d].

        Temporal ensembling: the weighted mean of what the last `chunk` predictions say about this moment
        (Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware", section IV-B).
        """
        if state.shape != (self.config.state_width,):
            raise ValueError(f"the policy was trained on states of {self.config.state_width} values, not {state.shape}")
        seen = self.features(state[None].astype(np.float32), None if frame is None or self.config.camera is None else frame[None])
        self._predictions = [*self._predictions, self.predict(seen)[0]][-self.chunk :]
        count = len(self._predictions)
        said = np.stack([prediction[count - 1 - index] for index, prediction in enumerate(self._predictions)])
        weight = np.exp(-self.memory * np.arange(count, dtype=np.float32))[:, None]
        return (said * weight).sum(axis=0) / weight.sum()

    def tensors(self) -> dict[str, np.ndarray]:
        return {name: value.detach().numpy() for name, value in self.network.state_dict().items()}

    def load(self, tensors: dict[str, np.ndarray]) -> "Policy":
        """Raises UserError where the tensors are another network's."""
        try:
            self.network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
        except RuntimeError as error:
            raise UserError(f"the weights do not fit the policy {self.name!r}: {str(error).splitlines()[0]}") from error
        return self


class Keypoints(Policy):
    """Two colour blobs, a thumbnail and proprioception into a small MLP: learns the demo's task in seconds.

    The thumbnail carries what it can of pictures without a red and a green thing; the blobs are constant there and the
    normalisation silences them.
    """

    name = "keypoints"
    hidden: ClassVar[tuple[int, ...]] = (128, 128, 128)
    steady: ClassVar[float] = 3.0  # weight of the mean squared error of normalised continuous actions
    grip: ClassVar[float] = 0.3  # weight of the cross-entropy of binary actions

    chunk = KEYPOINTS.chunk

    @staticmethod
    def features(states: np.ndarray, frames: np.ndarray | None) -> np.ndarray:
        return KEYPOINTS.features(states, frames)

    def build(self) -> nn.Module:
        if self.config.camera is not None and self.blobs_seen:
            self.used = self.config.state_width + BLOB_WIDTH
        else:
            self.used = self.config.feature_width
        layers: list[nn.Module] = []
        width = self.used
        for size in self.hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, self.chunk * self.config.action_width))

    @property
    def blobs_seen(self) -> bool:
        """Both colours stand in most frames: then they say it all, and the thumbnail would only be memorised."""
        first = self.config.state_width
        return self.statistics.feature_mean[first + 3] > 0.5 and self.statistics.feature_mean[first + 7] > 0.5

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        flat = self.network(((features - self.mean) / self.std)[:, : self.used])
        return flat.reshape(len(features), self.chunk, self.config.action_width)

    def loss(self, features: torch.Tensor, actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        out = self.outputs(features)
        weight = valid[..., None].expand_as(out)
        steady, grip = weight * ~self.binary, weight * self.binary
        error = (out - (actions - self.action_mean) / self.action_std) ** 2
        total = self.steady * (error * steady).sum() / steady.sum().clamp(min=1)
        if bool(self.binary.any()):
            cross = nn.functional.binary_cross_entropy_with_logits(out, actions.clamp(0, 1), reduction="none")
            total = total + self.grip * (cross * grip).sum() / grip.sum().clamp(min=1)
        return total


POLICIES: dict[str, type[Policy]] = {Keypoints.name: Keypoints}


def find_policy(name: str) -> type[Policy]:
    """The class of a name in the settings: a built-in one, or "package.module:Class". Raises UserError."""
    if name in POLICIES:
        return POLICIES[name]
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute) if attribute else None
    except (ImportError, AttributeError) as error:
        raise UserError(f"the policy {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise UserError(f"the policy {name!r} is unknown: use one of {sorted(POLICIES)}, or package.module:Class of a Policy")
    return found


def build_policy(config: PolicyConfig, statistics: Statistics) -> Policy:
    return find_policy(config.policy)(config, statistics)
