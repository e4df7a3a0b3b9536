"""The policy "act": a small Action Chunking Transformer.

Zhao, Kumar, Levine and Finn 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware", section IV. As there, it is a conditional variational
autoencoder: in training, an encoder sees the demonstrated actions and puts their style into a small latent, which is 0 when the policy acts; a decoder
predicts the actions from pictures, state and latent. Unlike there: three convolutions for a ResNet, one layer of each kind, normalisation before attention,
no dropout, and the base's squared error for L1, so that one core trains it in minutes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from ray_jobs.training.features import ACT_SEES
from ray_jobs.training.policies.pictures import SIDE_PX
from ray_jobs.training.policies.vision import Seen, VisionPolicy

WIDTH = 64
HEADS = 4
FEEDFORWARD = 128
LATENT = 8  # numbers
STRIDE = 8  # a token of a picture stands for 8 x 8 of its pixels
TOKENS = (SIDE_PX // STRIDE) ** 2  # of a picture
LAYER: dict[str, Any] = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": FEEDFORWARD, "dropout": 0.0, "batch_first": True, "norm_first": True}


class ACT(VisionPolicy):
    name = "act"
    chunk = ACT_SEES.chunk
    # Weight of the latent's divergence from a standard normal, as in the authors' code. With 0.1 the latent tells the decoder the actions, and where the policy
    # acts it is 0: 12 of 50 scenes instead of 44.
    divergence: ClassVar[float] = 10.0

    network: "Network"

    def build(self) -> "Network":
        return Network(len(self.names), self.window, self.config.state_width, self.chunk, self.config.action_width)

    def loss(self, seen: Seen, actions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The base's regression + divergence * KL(latent || standard normal), the mean over rows in which any action is valid."""
        done = torch.where(self.binary, actions, (actions - self.action_mean) / self.action_std)
        mean, log_variance = self.network.posterior(seen["state"], done, valid)
        latent = mean + torch.randn(mean.shape).to(mean.device) * (log_variance / 2).exp()
        out = self.network(seen["state"], self.augmented(seen), latent)
        apart = (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
        counts = valid.amax(dim=1)
        return self.regression(out, actions, valid) + self.divergence * (apart * counts).sum() / counts.sum().clamp(min=1)


class Network(nn.Module):
    def __init__(self, cameras: int, window: int, states: int, chunk: int, actions: int):
        super().__init__()
        self.backbones = nn.ModuleList(_backbone() for _ in range(cameras))
        self.state_token = nn.Linear(states, WIDTH)
        self.latent_token = nn.Linear(LATENT, WIDTH)
        self.positions = _positions(1 + window * (1 + TOKENS * cameras))
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**LAYER), 1, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.queries = _positions(chunk)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**LAYER), 1, nn.LayerNorm(WIDTH))
        self.action = nn.Linear(WIDTH, actions)

        self.posterior_state = nn.Linear(window * states, WIDTH)
        self.posterior_action = nn.Linear(actions, WIDTH)
        self.posterior_positions = _positions(2 + chunk)
        self.posterior_encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**LAYER), 1, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.posterior_latent = nn.Linear(WIDTH, 2 * LATENT)

    def forward(self, state: torch.Tensor, pictures: Sequence[torch.Tensor], latent: torch.Tensor | None = None) -> torch.Tensor:
        """latent: f32 [n, LATENT], None for the mean one."""
        count = len(state)
        latent = state.new_zeros(count, LATENT) if latent is None else latent
        seen = [backbone(each.flatten(0, 1)).flatten(2).mT.reshape(count, -1, WIDTH) for backbone, each in zip(self.backbones, pictures, strict=True)]
        memory = self.encoder(torch.cat([self.latent_token(latent)[:, None], self.state_token(state), *seen], dim=1) + self.positions)
        out: torch.Tensor = self.action(self.decoder(self.queries.expand(count, -1, -1), memory))
        return out

    def posterior(self, state: torch.Tensor, done: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the variance [n, LATENT] of the latent in which something was done. done: f32 [n, chunk, a], valid: f32 [n, chunk]."""
        count = len(state)
        hidden = nn.functional.pad(valid == 0, (2, 0), value=False)
        done = done.masked_fill(valid[..., None] == 0, 0)
        ask = state.new_zeros(count, 1, WIDTH)
        tokens = torch.cat([ask, self.posterior_state(state.flatten(1))[:, None], self.posterior_action(done)], dim=1) + self.posterior_positions
        answer = self.posterior_encoder(tokens, src_key_padding_mask=hidden)[:, 0]
        mean, log_variance = self.posterior_latent(answer).chunk(2, dim=1)
        return mean, log_variance


def _positions(count: int) -> nn.Parameter:
    """One learned vector for each place in a row of tokens."""
    return nn.Parameter(0.1 * torch.randn(count, WIDTH))


def _backbone() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, WIDTH, 3, stride=2, padding=1),
    )
