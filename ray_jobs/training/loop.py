"""The training loop: the same for one process and for many workers that average their gradients.

AdamW and the schedule act on one flat vector. They equal torch's (a test says so); torch's own optimizers import
torch._dynamo, which costs every worker more than the training itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import DataError
from ray_jobs.training.policy import Policy
from ray_jobs.training.samples import Samples

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def one_cycle(step: int, steps: int, peak: float) -> tuple[float, float]:
    """Learning rate and first momentum of a step: up over 30 % of them and down again, as torch's OneCycleLR.

    Smith and Topin 2018, "Super-Convergence"; cosine annealing from peak/25 to peak to peak/250000, momentum .95 .85 .95.
    """
    turn = float(0.3 * steps) - 1
    if step <= turn:
        share, rates, momenta = step / turn, (peak / 25, peak), (0.95, 0.85)
    else:
        share, rates, momenta = (step - turn) / (steps - 1 - turn), (peak, peak / 250_000), (0.85, 0.95)
    wave = (1 + math.cos(math.pi * share)) / 2
    return rates[1] + (rates[0] - rates[1]) * wave, momenta[1] + (momenta[0] - momenta[1]) * wave


@dataclass
class State:
    """Where a training run stands after `step` steps. The vectors have one value per weight."""

    step: int
    weights: torch.Tensor
    momentum: torch.Tensor
    variance: torch.Tensor
    curve: list[tuple[int, float]] = field(default_factory=list)  # (step, mean loss since the last point)


def fresh(policy: Policy) -> State:
    weights = torch.nn.utils.parameters_to_vector(policy.network.parameters()).detach().clone()
    return State(0, weights, torch.zeros_like(weights), torch.zeros_like(weights))


def adamw(state: State, gradient: torch.Tensor, rate: float, momentum: float, decay: float = 0.01) -> None:
    """One step of AdamW in place (Loshchilov and Hutter 2019, algorithm 2; torch's defaults but for the momentum)."""
    beta, epsilon, count = 0.999, 1e-8, state.step + 1
    state.weights.mul_(1 - rate * decay)
    state.momentum.lerp_(gradient, 1 - momentum)
    state.variance.mul_(beta).addcmul_(gradient, gradient, value=1 - beta)
    root = state.variance.sqrt().div_(math.sqrt(1 - beta**count)).add_(epsilon)
    state.weights.addcdiv_(state.momentum, root, value=-rate / (1 - momentum**count))


def resident_batches(samples: Samples, size: int, seed: int, rank: int, first: int) -> Iterator[Batch]:
    """Endless shuffled batches of rows that fit in memory, from batch number `first` on: the same whether resumed or not."""
    tensors = (torch.from_numpy(samples.features), torch.from_numpy(samples.actions), torch.from_numpy(samples.valid))
    size = min(size, len(samples))
    per_epoch = len(samples) // size
    number = first
    while True:
        order = np.random.default_rng([seed, rank, number // per_epoch]).permutation(len(samples))
        for place in range(number % per_epoch, per_epoch):
            rows = torch.from_numpy(order[place * size : (place + 1) * size])
            yield tensors[0][rows], tensors[1][rows], tensors[2][rows]
            number += 1


def train(
    policy: Policy,
    batches: Iterator[Batch],
    settings: TrainSettings,
    state: State,
    average: Callable[[torch.Tensor], None] = lambda vector: None,
    checkpoint: Callable[[State], None] = lambda state: None,
) -> State:
    """Train in place up to settings.steps. `average` makes a vector the mean over all workers.

    `checkpoint` is called every settings.checkpoint_every steps and at the end. Raises DataError where the loss is no number.
    """
    parameters = list(policy.network.parameters())
    gradient = torch.empty(len(state.weights) + 1)  # the last place carries the loss
    since, summed = state.step, 0.0
    torch.nn.utils.vector_to_parameters(state.weights, parameters)
    while state.step < settings.steps:
        loss = policy.loss(*next(batches))
        found = torch.autograd.grad(loss, parameters)
        torch.cat([*(part.reshape(-1) for part in found), loss.detach().reshape(1)], out=gradient)
        average(gradient)
        value = float(gradient[-1])
        if not math.isfinite(value):
            raise DataError(f"the training loss became {value} at step {state.step + 1}: lower learning_rate, or look for extreme values in the data")
        adamw(state, gradient[:-1], *one_cycle(state.step, settings.steps, settings.learning_rate))
        state.step += 1
        summed += value
        if state.step % 20 == 0 or state.step == settings.steps:
            state.curve.append((state.step, summed / (state.step - since)))
            since, summed = state.step, 0.0
        if state.step % settings.checkpoint_every == 0 or state.step == settings.steps:
            checkpoint(state)
    return state
