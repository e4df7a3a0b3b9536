"""How the stages share a cluster: which of them share a worker, how many workers each gets, and how much work a task takes. Pure."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ray_jobs.curation.stage import Resources, Stage
from ray_jobs.curation.stages import DECODE

BLOCK_S = 60.0  # recorded seconds that one task measures: a second or so of work, so that starting it costs little
TASKS_PER_WORKER = 4  # at least, so that all end at about the same time


@dataclass(frozen=True)
class Operator:
    """Stages that share a worker, in order. `keeps`: they hold something between segments, so the worker is an actor."""

    names: tuple[str, ...]
    resources: Resources
    keeps: bool = False

    @property
    def title(self) -> str:
        return "+".join(self.names)


def operators(stages: Mapping[str, Stage], wanted: Collection[str]) -> list[Operator]:
    """The wanted stages: tasks first, then actors; whatever asks for the same shares an operator, so that the frames stay where they are."""
    groups: dict[tuple[Resources, bool], list[str]] = {(DECODE.resources, False): [DECODE.name]}
    for name in stages:
        if name in wanted:
            groups.setdefault((stages[name].resources, stages[name].keeps), []).append(name)
    return [Operator(tuple(names), resources, keeps) for (resources, keeps), names in sorted(groups.items(), key=lambda item: item[0][1])]


def workers(chain: Sequence[Operator], costs: Mapping[str, float], cpus: float, gpus: float) -> list[int]:
    """Workers of each operator: one each, then always one more for the slowest, as long as it fits: as fast as the cluster allows.

    costs: stage -> worker seconds per recorded second, as measured. An operator whose resources fix its pool keeps it.
    """
    count = [operator.resources.pool or 1 for operator in chain]
    open_ended = unsized(chain)
    while open_ended:
        slowest = max(open_ended, key=lambda place: (_cost(chain[place], costs) / count[place], -place))
        wants = chain[slowest].resources
        free_cpus = cpus - sum(number * operator.resources.num_cpus for number, operator in zip(count, chain, strict=True))
        free_gpus = gpus - sum(number * operator.resources.num_gpus for number, operator in zip(count, chain, strict=True))
        takes_nothing = not wants.num_cpus and not wants.num_gpus  # it would fit for ever
        if takes_nothing or wants.num_cpus > free_cpus or wants.num_gpus > free_gpus:
            break
        count[slowest] += 1
    return count


def unsized(chain: Sequence[Operator]) -> list[int]:
    """The operators whose pools nobody has fixed. Of two or more, it must be known what they cost."""
    return [place for place, operator in enumerate(chain) if operator.resources.pool is None]


def _cost(operator: Operator, costs: Mapping[str, float]) -> float:
    return max(sum(costs.get(name, 0.0) for name in operator.names), 1e-9)


def blocks(items: Sequence[tuple[str, float]], slots: int) -> list[tuple[int, int]]:
    """[first, last) of the items that each task takes; an episode that fits into one is not split, so that its worker can finish it.

    items: (episode, recorded seconds) of each segment, an episode's one after the other. slots: how many tasks run at a time.
    """
    lengths: dict[str, float] = {}
    for episode, seconds in items:
        lengths[episode] = lengths.get(episode, 0.0) + seconds
    target = min(BLOCK_S, math.fsum(lengths.values()) / (TASKS_PER_WORKER * max(slots, 1)))
    found, first, held = [], 0, 0.0
    for place, (episode, seconds) in enumerate(items):
        whole = lengths[episode] <= BLOCK_S
        begins = place > first and not (whole and items[place - 1][0] == episode)
        if begins and held + (lengths[episode] if whole else seconds) / 2 > target:
            found.append((first, place))
            first, held = place, 0.0
        held += seconds
    return [*found, (first, len(items))] if items else []
