"""The training loop: the same for one process and for many workers that add up their gradients.

AdamW and the schedule act on one flat vector. They equal torch's (a test says so); torch's own optimizers import
torch._dynamo, which costs every worker more than the training itself.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import DataError
from ray_jobs.training.features import find_extractor
from ray_jobs.training.mistakes import by_the_author_of
from ray_jobs.training.plan import make_plan, moment_bytes
from ray_jobs.training.policy import Policy, build_policy
from ray_jobs.training.samples import Batch, Moments, statistics
from ray_jobs.training.spec import PolicyConfig
from ray_jobs.training.stream import batches, of_episodes


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

    def to(self, device: torch.device) -> "State":
        return State(self.step, self.weights.to(device), self.momentum.to(device), self.variance.to(device), self.curve)


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


def train(
    policy: Policy,
    lanes: Mapping[int, Iterator[Batch]],
    settings: TrainSettings,
    state: State,
    reduce: Callable[[torch.Tensor], None] = lambda vector: None,
    after: Callable[[State], None] = lambda state: None,
) -> State:
    """Train in place up to settings.steps. `lanes`: this process's part of them, by number, each standing at state.step.

    `reduce` makes a vector, [gradient..., loss, 0], the sum over all processes; its last place is for `reduce` itself. `after` is called after every
    step, when the state is whole.
    Raises DataError where the loss is no number, UserError for what the policy's own code raises.
    """
    parameters = list(policy.network.parameters())
    gradient = torch.empty(len(state.weights) + 2, device=state.weights.device)
    since, summed = state.step, 0.0
    torch.nn.utils.vector_to_parameters(state.weights, parameters)
    policy.network.train()
    while state.step < settings.steps:
        gradient.zero_()
        for lane, rows in lanes.items():
            batch = next(rows)
            _seed(settings.seed, state.step, lane, gradient.is_cuda)
            actions, valid = (torch.from_numpy(values).to(gradient.device, non_blocking=True) for values in (batch.actions, batch.valid))
            with by_the_author_of(policy.config.policy):
                loss = policy.loss(policy.normalised(batch.seen), actions, valid)
                found = torch.autograd.grad(loss, parameters)
            gradient[:-1] += torch.cat([*(part.reshape(-1) for part in found), loss.detach().reshape(1)])
        reduce(gradient)
        gradient /= settings.lanes
        value = float(gradient[-2])
        if not math.isfinite(value):
            raise DataError(f"the training loss became {value} at step {state.step + 1}: lower learning_rate, or look for extreme values in the data")
        adamw(state, gradient[:-2], *one_cycle(state.step, settings.steps, settings.learning_rate))
        state.step += 1
        summed += value
        if state.step % 20 == 0 or state.step == settings.steps:
            state.curve.append((state.step, summed / (state.step - since)))
            since, summed = state.step, 0.0
        after(state)
    return state


def _seed(seed: int, step: int, lane: int, cuda: bool) -> None:
    """Nothing of torch's random state needs saving: it begins anew with every micro-batch. (torch.manual_seed itself walks the stack each time.)"""
    state = int(np.random.SeedSequence([seed, step, lane]).generate_state(1, np.uint64)[0] >> 1)
    torch.default_generator.manual_seed(state)
    if cuda:
        torch.cuda.manual_seed(state)


def learn(
    policy: str,
    episodes: Sequence[Moments],
    settings: TrainSettings,
    state_width: int,
    cameras: tuple[str, ...] = (),
    weights: Sequence[float] | None = None,
    after: Callable[[Policy, State], None] = lambda policy, state: None,
) -> tuple[Policy, State]:
    """A policy trained in this process on whole episodes in memory. Raises ValueError where no row is usable, DataError as `train` does.

    weights: passes over each episode in an epoch. `after` is called after every step.
    """
    settings = settings.model_copy(update={"workers": 1})
    extractor, found = find_extractor(policy), statistics(episodes)
    shapes = {name: values.shape[1:] for name, values in episodes[0].seen.items()}
    config = PolicyConfig(policy=policy, state_width=state_width, action_width=len(found.action_mean), cameras=cameras, shapes=shapes)
    torch.manual_seed(settings.seed)
    made = build_policy(config, found)
    plan = make_plan([len(each) for each in episodes], weights or [1.0] * len(episodes), 1, settings.seed, moment_bytes(shapes))
    lane = batches(plan, 0, settings.micro_batch, 0, of_episodes(plan, episodes, extractor), extractor)
    return made, train(made, {0: lane}, settings, fresh(made), after=lambda state: after(made, state))
