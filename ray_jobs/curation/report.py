"""The run report: where a measuring job's time went, who waited for whom, and what would help. A pure function of measured numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

BUSY = 0.85  # a pool that works this share of its time is what the others wait for


@dataclass(frozen=True)
class Span:
    """What one call of a worker said: when it ran (s since 1970), what each stage took of it (s), and what it handed on."""

    operator: int
    worker: str
    began: float
    ended: float
    stages: dict[str, float]
    segments: int
    sent_bytes: int


@dataclass(frozen=True)
class Load:
    """One operator over the whole run. `wall_s`: from its first call to the end of its last."""

    title: str
    workers: int
    num_cpus: float
    num_gpus: float
    busy_s: float = 0.0
    wall_s: float = 0.0
    segments: int = 0
    sent_bytes: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def use(self) -> float:
        """Share of the workers' time that they worked, 0 to 1."""
        return min(1.0, self.busy_s / max(self.workers * self.wall_s, 1e-9))


def loads(spans: Iterable[Span], pools: Sequence[Load]) -> list[Load]:
    """The pools with what their workers said added up. A pool that grew counts as many workers as were at work at the same time."""
    by_operator: dict[int, list[Span]] = {}
    for span in spans:
        by_operator.setdefault(span.operator, []).append(span)
    found = []
    for number, load in enumerate(pools):
        mine = by_operator.get(number, [])
        stages: dict[str, float] = {}
        for span in mine:
            for name, seconds in span.stages.items():
                stages[name] = stages.get(name, 0.0) + seconds
        found.append(
            replace(
                load,
                workers=max(load.workers, _at_once(mine), 1),
                busy_s=math.fsum(span.ended - span.began for span in mine),
                wall_s=max((span.ended for span in mine), default=0.0) - min((span.began for span in mine), default=0.0),
                segments=sum(span.segments for span in mine),
                sent_bytes=sum(span.sent_bytes for span in mine),
                stages=stages,
            )
        )
    return found


def _at_once(spans: Sequence[Span]) -> int:
    """How many of them ran at the same time at most."""
    steps = sorted([(span.began, 1) for span in spans] + [(span.ended, -1) for span in spans])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most


def bottleneck(pools: Sequence[Load]) -> Load:
    """The pool that works the largest share of its time."""
    return max(pools, key=lambda load: load.use)


def advice(pools: Sequence[Load]) -> str:
    """One sentence: who waits for whom, and how much of what would change that."""
    narrow = bottleneck(pools)
    if narrow.use < BUSY:
        return f"no pool worked more than {narrow.use:.0%} of its time: the run was short for its workers, or waited for the store"
    starved = [load for load in pools[pools.index(narrow) + 1 :] if load.use < BUSY]
    scarce = max(starved, key=lambda load: (load.num_gpus, load.workers), default=None)
    if scarce is not None and scarce.use > 0:
        reach = min(2.0, 1.0 / scarce.use)
        more = math.ceil(narrow.workers * (reach - 1.0) * narrow.num_cpus)
        gain = f"double the use of {scarce.title}" if reach == 2.0 else f"raise the use of {scarce.title} from {scarce.use:.0%} to {scarce.use * reach:.0%}"
        unit = "CPU" if narrow.num_cpus else "worker"
        more = more or math.ceil(narrow.workers * (reach - 1.0))
        return f"{narrow.title} starves {scarce.title}: {more} more {unit}{'s' if more != 1 else ''} would {gain}"
    kind = "GPU" if narrow.num_gpus else "CPU" if narrow.num_cpus else "worker"
    ahead = [load for load in pools if load is not narrow]
    room = min((1.0 / max(load.use, 0.01) for load in ahead), default=2.0)
    if room >= 2.0:
        share = narrow.num_gpus if narrow.num_gpus else narrow.num_cpus or 1.0
        count = math.ceil(narrow.workers * share)
        return f"{narrow.title} is what everything waits for: {count} more {kind}{'s' if count != 1 else ''} would halve the time"
    return f"{narrow.title} is what everything waits for, and the others are nearly as busy: only more of everything would help"


def table(pools: Sequence[Load], wall_s: float, items: str) -> str:
    """The report as Markdown: a row per pool, a row per stage, and the advice."""
    head = "| workers of | how many | worked, s | idle | segments | handed on |\n|---|---|---|---|---|---|\n"
    rows = [f"| {load.title} | {load.workers} | {load.busy_s:.1f} | {1 - load.use:.0%} | {load.segments} | {load.sent_bytes / 1e6:.1f} MB |" for load in pools]
    stages = sorted(((name, seconds) for load in pools for name, seconds in load.stages.items()), key=lambda pair: -pair[1])
    total = math.fsum(seconds for _, seconds in stages)
    times = [f"| {name} | {seconds:.2f} | {seconds / max(total, 1e-9):.0%} |" for name, seconds in stages]
    middle = "\n\n| stage | worker seconds | share |\n|---|---|---|\n"
    slowest = f"The bottleneck is **{bottleneck(pools).title}**, of whose time {stages[0][0]} takes most" if stages else ""
    return f"{head}{chr(10).join(rows)}{middle}{chr(10).join(times)}\n\n{slowest}; {advice(pools)}. {items} in {wall_s:.1f} s."


def facts(pools: Sequence[Load], wall_s: float) -> dict[str, Any]:
    """The same for machines."""
    rows = [
        {
            "operator": load.title,
            "workers": load.workers,
            "num_cpus": load.num_cpus,
            "num_gpus": load.num_gpus,
            "busy_s": round(load.busy_s, 3),
            "wall_s": round(load.wall_s, 3),
            "idle": round(1 - load.use, 4),
            "segments": load.segments,
            "sent_bytes": load.sent_bytes,
            "stages_s": {name: round(seconds, 3) for name, seconds in load.stages.items()},
        }
        for load in pools
    ]
    return {"wall_s": round(wall_s, 3), "operators": rows, "bottleneck": bottleneck(pools).title if pools else None, "advice": advice(pools) if pools else ""}
