"""Which episodes of a view are learned from, how often, and which are held out: a pure function of what packing kept of each episode.

An episode is learned from if it has actions, all conditions of `select` hold, its part of the mixture has a weight, it has the commonest shape
among those, and it is not held out. A synthetic copy has the task, tags and scores of its source, so it follows it; it is never held out, and not
learned from where its source is held out. No video is read.
"""

import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ray_jobs.packing.view import PackedEpisode, episodes_of, names_of
from ray_jobs.seam.configs import Condition, DayDataset, SelectionSettings, quantile
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store

READERS = 8  # days at a time: remote stores answer slowly


class Counted(Strict):
    """`text` says what must hold, bounds that were words with the number that they came to; `episodes`: of how many it does."""

    text: str
    episodes: int
    weight: float | None = None  # of a part of the mixture, whose episodes are those learned from


class Selected(Strict):
    """What a selection came to. episodes = learned from + held out + all that were left out, copies counted like any other."""

    episodes: int
    trained_on: int
    held_out: int
    left_out: dict[str, int]  # why -> episodes
    conditions: tuple[Counted, ...] = ()  # each alone, of the episodes that have actions
    mixture: tuple[Counted, ...] = ()  # with the rest, which has weight 1, as the last


@dataclass(frozen=True)
class Selection:
    """Episodes of one shape (state, action and cameras by name), by day and place. weights: of `train`, passes over each in an epoch."""

    train: tuple[PackedEpisode, ...]
    weights: tuple[float, ...]
    held_out: tuple[PackedEpisode, ...]
    told: Selected

    @property
    def cameras(self) -> tuple[str, ...]:
        """By name."""
        return tuple(sorted((self.train or self.held_out)[0].cameras))


Test = Callable[[PackedEpisode], bool]


def is_held_out(episode_id: str, every: int) -> bool:
    """True for about one episode in `every` (0: none), by its id alone: the same in every view and for every model."""
    return every > 0 and int(hashlib.sha256(episode_id.encode()).hexdigest()[:8], 16) % every == 0


def select(store: Store, view: Sequence[DayDataset], settings: SelectionSettings) -> Selection:
    """Of the view's episodes. Raises NotFound or DataError for a dataset that is not whole, UserError for a tag or score that no episode has."""
    asked = sorted({condition.field for condition in _conditions(settings)})
    tags, scores = (tuple(field.partition(":")[2] for field in asked if field.startswith(kind)) for kind in ("tag:", "score:"))
    with ThreadPoolExecutor(READERS) as pool:
        days = list(pool.map(partial(episodes_of, store, tags=tags, scores=scores), view))
        episodes = [episode for day in days for episode in day]
        if absent := [field for field in asked if episodes and all(_value(field)(episode) is None for episode in episodes)]:
            raise UserError(_unknown(absent[0], list(pool.map(partial(names_of, store), view))))
    return choose(episodes, settings)


def choose(episodes: Iterable[PackedEpisode], settings: SelectionSettings) -> Selection:
    """The same for the same episodes in whatever order."""
    ordered = sorted(episodes, key=lambda episode: (episode.day, episode.dataset, episode.episode_index))
    able = [episode for episode in ordered if episode.action_names]
    recorded = [episode for episode in able if not episode.synthetic]
    tests = [_test(condition, recorded) for condition in settings.select]
    meets = [[test(episode) for episode in able] for test, _ in tests]
    mixture = [(part.weight, [_test(condition, recorded) for condition in part.where]) for part in settings.mixture]
    left_out: Counter[str] = Counter({"no actions": len(ordered) - len(able)})
    wanted: list[tuple[PackedEpisode, int, float]] = []  # with its part of the mixture
    for episode, *held in zip(able, *meets, strict=True):
        part = next((number for number, (_, where) in enumerate(mixture) if all(test(episode) for test, _ in where)), len(mixture))
        weight = mixture[part][0] if part < len(mixture) else 1.0
        if not all(held):
            left_out["a condition does not hold"] += 1
        elif weight == 0:
            left_out["weight 0 in the mixture"] += 1
        else:
            wanted.append((episode, part, weight))
    shapes = Counter(_shape(episode) for episode, _, _ in wanted)
    shape = min(shapes, key=lambda each: (-shapes[each], each), default=None)
    train, weights, held_out, parts = list[PackedEpisode](), list[float](), list[PackedEpisode](), Counter[int]()
    for episode, part, weight in wanted:
        if _shape(episode) != shape:
            left_out["another shape"] += 1
        elif not is_held_out(episode.source_episode_id, settings.holdout):
            train.append(episode)
            weights.append(weight)
            parts[part] += 1
        elif not episode.synthetic:
            held_out.append(episode)
        else:
            left_out["copy of a held-out episode"] += 1
    told = Selected(
        episodes=len(ordered),
        trained_on=len(train),
        held_out=len(held_out),
        left_out={why: count for why, count in sorted(left_out.items()) if count},
        conditions=tuple(Counted(text=text, episodes=sum(held)) for (_, text), held in zip(tests, meets, strict=True)),
        mixture=tuple(_parts(mixture, parts)),
    )
    return Selection(tuple(train), tuple(weights), tuple(held_out), told)


def nothing_left(told: Selected) -> str:
    """One line for a selection that learns from nothing."""
    if not told.episodes:
        return "no episodes in the view"
    why = ", ".join(f"{reason}: {count}" for reason, count in told.left_out.items())
    rare = [f"{each.text} holds for {each.episodes}" for each in told.conditions if each.episodes < told.episodes]
    held = f"held out: {told.held_out}" if told.held_out else ""
    return f"the selection leaves nothing to learn from of {told.episodes} episodes (" + "; ".join(filter(None, (why, held, *rare))) + ")"


def _conditions(settings: SelectionSettings) -> list[Condition]:
    return [*settings.select, *(condition for part in settings.mixture for condition in part.where)]


def _shape(episode: PackedEpisode) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return episode.state_names, episode.action_names, tuple(sorted(episode.cameras))


def _value(field: str) -> Callable[[PackedEpisode], Any]:
    """What an episode says of a field; None where it does not have it."""
    kind, _, name = field.partition(":")
    if kind == "tag":
        return lambda episode: episode.tags.get(name)
    if kind == "score":
        return lambda episode: episode.scores.get(name)
    if kind == "seconds":
        return lambda episode: episode.length / episode.fps
    return lambda episode: getattr(episode, kind)


def _test(condition: Condition, recorded: Sequence[PackedEpisode]) -> tuple[Test, str]:
    """The condition as a function and in words. A bound in words is a quantile of the recorded episodes that have the field."""
    value, said = _value(condition.field), condition.field
    bounds: list[float | str | None] = []
    for bound, name in ((condition.at_least, "at least"), (condition.at_most, "at most")):
        share = quantile(bound) if isinstance(bound, str) else None
        if share is not None:
            found = [each for episode in recorded if (each := value(episode)) is not None]
            bounds.append(float(np.quantile(found, share)) if found else None)
            said += f" {name} {bound} ({bounds[-1]:.6g})" if found else f" {name} {bound} (none has it)"
        else:
            bounds.append(bound)
            said += f" {name} {bound:g}" if isinstance(bound, float) else f" {name} {bound}" if bound is not None else ""
    if condition.one_of:
        said += " one of " + ", ".join(repr(each) for each in condition.one_of)
    words, (low, high) = frozenset(condition.one_of), bounds

    def holds(episode: PackedEpisode) -> bool:
        has = value(episode)
        return has is not None and (not words or has in words) and (low is None or has >= low) and (high is None or has <= high)

    return holds, said


def _parts(mixture: list[tuple[float, list[tuple[Test, str]]]], parts: Counter[int]) -> Iterable[Counted]:
    for number, (weight, where) in enumerate(mixture):
        yield Counted(text=" and ".join(text for _, text in where) or "all", episodes=parts[number], weight=weight)
    if mixture:
        yield Counted(text="the rest", episodes=parts[len(mixture)], weight=1.0)


def _unknown(field: str, names: Sequence[tuple[set[str], set[str]]]) -> str:
    kind, _, name = field.partition(":")
    there = sorted(set().union(*(scores if kind == "score" else tags for tags, scores in names)))
    if not there:
        return f"no episode of the view has the {kind} {name!r}, nor any other: these days were packed before {kind}s were kept, pack them again"
    near = difflib.get_close_matches(name, there, n=1)
    return f"no episode of the view has the {kind} {name!r}" + (f", did you mean {near[0]!r}?" if near else "") + f" There are {', '.join(there)}"
