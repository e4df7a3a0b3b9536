"""Bring your own policy: subclass `Policy`, and name it in the settings as "package.module:Class".

A policy turns frames and states into actions. It learns from what its `observe` makes of recorded episodes.
"""

import importlib
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from ray_jobs.seam.errors import UserError
from ray_jobs.training.features import Observation
from ray_jobs.training.mistakes import by_the_author_of
from ray_jobs.training.spec import PolicyConfig, Statistics


class Policy:
    """What training and evaluation need of a policy.

    A subclass sets `name`, makes the network's inputs in `observe`, returns the network in `build` and asks it in `outputs`. It may override any of
    the rest. The network has parameters only: no buffers that learn, as BatchNorm's.
    """

    name: ClassVar[str]
    chunk: ClassVar[int] = 4  # actions predicted at once, for this moment and the next ones
    window: ClassVar[int] = 1  # moments seen at once: this one and those before it; an episode's first one stands for what was before
    cameras: ClassVar[Literal["first", "all"]] = "first"  # by name
    memory: ClassVar[float] = 0.01  # temporal ensembling: weights exp(-memory * i), i = 0 the oldest prediction
    steady: ClassVar[float] = 3.0  # weight of the mean squared error of normalised continuous actions
    grip: ClassVar[float] = 0.3  # weight of the cross-entropy of binary actions

    def __init__(self, config: PolicyConfig, statistics: Statistics):
        self.config, self.statistics = config, statistics
        self.moments = {name: (torch.tensor(statistics.mean[name]), torch.tensor(std)) for name, std in statistics.std.items()}
        self.action_mean, self.action_std = torch.tensor(statistics.action_mean), torch.tensor(statistics.action_std)
        self.binary = torch.tensor(statistics.binary)
        self.network = self.build()
        self.reset()

    @staticmethod
    def observe(states: np.ndarray, frames: dict[str, np.ndarray]) -> Observation:
        """name -> [n, ...] of states f32 [n, d] and RGB frames (camera -> uint8 [n, h, w, 3]), in NumPy alone: it runs where episodes are decoded,
        and in `act`. f32 [n, k] are normalised by their statistics; uint8 arrays are left as they are: make pictures small here.
        """
        raise NotImplementedError

    def build(self) -> nn.Module:
        """A fresh network. self.config.shapes has the shape of each observation of one moment."""
        raise NotImplementedError

    def outputs(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        """[n, chunk, a]: normalised actions, logits where the action is binary. seen: name -> [n, window, ...], normalised."""
        raise NotImplementedError

    def loss(self, seen: dict[str, torch.Tensor], actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Scalar. seen as for `outputs`, actions [n, chunk, a] in their own units, valid [n, chunk]: 0 where there is none.

        torch's random numbers are seeded before each call from the training seed, the step and the lane.
        """
        return self.regression(self.outputs(seen), actions, valid)

    def regression(self, out: torch.Tensor, actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Scalar: steady * squared error of continuous actions + grip * cross-entropy of binary ones, each a mean over what is valid."""
        weight = valid[..., None].expand_as(out)
        steady, grip = weight * ~self.binary, weight * self.binary
        error = (out - (actions - self.action_mean) / self.action_std) ** 2
        total = self.steady * (error * steady).sum() / steady.sum().clamp(min=1)
        if any(self.statistics.binary):
            cross = nn.functional.binary_cross_entropy_with_logits(out, actions.clamp(0, 1), reduction="none")
            total = total + self.grip * (cross * grip).sum() / grip.sum().clamp(min=1)
        return total

    def normalised(self, seen: Observation) -> dict[str, torch.Tensor]:
        """seen: name -> [n, window, ...] as observed."""
        tensors = {name: torch.from_numpy(values).to(self.binary.device, non_blocking=True) for name, values in seen.items()}
        return {name: (values - self.moments[name][0]) / self.moments[name][1] if name in self.moments else values for name, values in tensors.items()}

    def predict(self, seen: Observation) -> np.ndarray:
        """f32 [n, chunk, a] in the action's own units (binary: probability). seen: name -> [n, window, ...] as observed."""
        self.network.eval()  # a layer that draws, as dropout, draws only in training
        with torch.inference_mode():
            out = self.outputs(self.normalised(seen))
            actions = torch.where(self.binary, torch.sigmoid(out), out * self.action_std + self.action_mean)
        return actions.cpu().numpy()

    def reset(self) -> None:
        """Forget the episode: called before each one."""
        self._seen: list[Observation] = []
        self._predictions: list[np.ndarray] = []

    def act(self, frames: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        """The next action f32 [a] for a frame uint8 [h, w, 3] of each camera (of self.config.cameras at least) and a state f32 [d].

        Temporal ensembling: the weighted mean of what the last `chunk` predictions say about this moment
        (Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware", section IV-B).
        Raises ValueError for observations of the wrong shape.
        """
        if state.shape != (self.config.state_width,):
            raise ValueError(f"the policy was trained on states of {self.config.state_width} values, not {state.shape}")
        if missing := [camera for camera in self.config.cameras if camera not in frames]:
            raise ValueError(f"the policy was trained on the camera {missing[0]!r}, and it is not among {sorted(frames)}")
        now = self.observe(state[None].astype(np.float32), {camera: frames[camera][None] for camera in self.config.cameras})
        for name, shape in self.config.shapes.items():
            if now[name].shape[1:] != shape:
                raise ValueError(f"the policy was trained on {name} of {shape}, not {now[name].shape[1:]}: frames of another size?")
        self._seen = [*self._seen, now][-self.window :]
        past = [self._seen[0]] * (self.window - len(self._seen)) + self._seen
        said_now = self.predict({name: np.stack([each[name] for each in past], axis=1) for name in now})
        self._predictions = [*self._predictions, said_now[0]][-self.chunk :]
        count = len(self._predictions)
        said = np.stack([prediction[count - 1 - index] for index, prediction in enumerate(self._predictions)])
        weight = np.exp(-self.memory * np.arange(count, dtype=np.float32))[:, None]
        return (said * weight).sum(axis=0) / weight.sum()

    def to(self, device: torch.device | str) -> "Policy":
        self.network.to(device)
        self.moments = {name: (mean.to(device), std.to(device)) for name, (mean, std) in self.moments.items()}
        self.action_mean, self.action_std, self.binary = (part.to(device) for part in (self.action_mean, self.action_std, self.binary))
        return self

    def tensors(self) -> dict[str, np.ndarray]:
        return {name: value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}

    def load(self, tensors: dict[str, np.ndarray]) -> "Policy":
        """Raises UserError where the tensors are another network's."""
        try:
            self.network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
        except RuntimeError as error:
            raise UserError(f"the weights do not fit the policy {self.name!r}: {str(error).splitlines()[0]}") from error
        return self


BUILT_IN = {
    "keypoints": "ray_jobs.training.policies.keypoints:Keypoints",
    "cnn": "ray_jobs.training.policies.cnn:CNN",
    "act": "ray_jobs.training.policies.act:ACT",
}


def find_policy(name: str) -> type[Policy]:
    """The class of a name in the settings: a built-in one, or "package.module:Class". Raises UserError."""
    module, _, attribute = BUILT_IN.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute) if attribute else None
    except (ImportError, AttributeError) as error:
        raise UserError(f"the policy {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise UserError(f"the policy {name!r} is unknown: use one of {sorted(BUILT_IN)}, or package.module:Class of a Policy")
    return found


def build_policy(config: PolicyConfig, statistics: Statistics) -> Policy:
    """Raises UserError, also for whatever its constructor raises."""
    kind = find_policy(config.policy)
    with by_the_author_of(config.policy):
        return kind(config, statistics)
