"""A day of the fleet: each robot records its episodes into MCAP files, some of them damaged. Bytes follow from (seed, robot, day) alone."""

import hashlib
import multiprocessing
import os
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fleet.arm import CONTROL_HZ, Arm
from fleet.defects import DEFECTS, PLANTED, Severity
from fleet.expert import Demonstration, demonstrate, draw_style
from fleet.mcap_log import Take, write_mcap
from fleet.truth import TruthRow, write_truth

ROBOTS = ("arm-1", "arm-2", "arm-3")
EPISODES_PER_FILE = 4
STRONG_SHARE = 0.7
FIRST_SEED = 2**32  # of a recorded scene; evaluation stays below
SECOND = 1_000_000_000
MORNING_H, LATE_H = 9, 17  # UTC

Fate = tuple[str, Severity] | None


@dataclass(frozen=True)
class Order:
    """What one robot is to record on one day. `late`: 0 for the day's own files, n for the n-th late upload."""

    raw: Path
    truth: Path
    day: str
    robot: str
    episodes: int
    seed: int = 0
    damaged: float = 0.4
    planted: tuple[str, ...] = PLANTED
    late: int = 0
    strong: float = STRONG_SHARE


@dataclass(frozen=True)
class DaySummary:
    """What came of it. damaged: counts by defect; a copied episode counts as an episode."""

    day: str
    files: int
    episodes: int
    damaged: dict[str, int]
    size_bytes: int
    robot_minutes: float


def record_day(
    raw: Path,
    truth: Path,
    day: str,
    robots: tuple[str, ...] = ROBOTS,
    episodes_per_robot: int = 12,
    seed: int = 0,
    damaged: float = 0.4,
    planted: tuple[str, ...] = PLANTED,
    workers: int = 1,
    strong: float = STRONG_SHARE,
) -> DaySummary:
    """Record `day` (YYYY-MM-DD, UTC) below raw/<robot>/<day>/ and what was planted below `truth`.

    `planted` names the kinds of damage to draw from, `strong` is the share that is planted at full strength.
    Raises ValueError where truth lies inside raw, the day is no date or a kind is unknown.
    """
    return record_days(raw, truth, (day,), robots, episodes_per_robot, seed, damaged, planted, workers, strong)[0]


def record_days(
    raw: Path,
    truth: Path,
    days: tuple[str, ...],
    robots: tuple[str, ...] = ROBOTS,
    episodes_per_robot: int = 12,
    seed: int = 0,
    damaged: float = 0.4,
    planted: tuple[str, ...] = PLANTED,
    workers: int = 1,
    strong: float = STRONG_SHARE,
) -> list[DaySummary]:
    """Several days at once: `workers` processes share the robots of all of them."""
    orders = [Order(raw, truth, day, robot, episodes_per_robot, seed, damaged, planted, strong=strong) for day in days for robot in robots]
    rows = _carry_out(orders, workers)
    return [_summary(raw, day, [row for row in rows if row.day == day]) for day in days]


def record_late(raw: Path, truth: Path, day: str, robot: str = "arm-1", episodes: int = 4, seed: int = 0, damaged: float = 0.0, number: int = 1) -> DaySummary:
    """One more file for a day that has passed: the robot was out of reach. `number` tells several of them apart."""
    return _summary(raw, day, _carry_out([Order(raw, truth, day, robot, episodes, seed, damaged, late=number)], 1))


def _carry_out(orders: list[Order], workers: int) -> list[TruthRow]:
    for order in orders:
        if order.truth.resolve().is_relative_to(order.raw.resolve()):
            raise ValueError(f"the truth must lie outside the raw store: {order.truth} is inside {order.raw}")
        datetime.strptime(order.day, "%Y-%m-%d")
        if unknown := set(order.planted) - set(DEFECTS):
            raise ValueError(f"no such defect: {', '.join(sorted(unknown))}; there are {', '.join(DEFECTS)}")
    if workers > 1 and len(orders) > 1:
        with multiprocessing.get_context("spawn").Pool(min(workers, len(orders))) as pool:
            parts = pool.map(_record, orders, chunksize=1)
    else:
        parts = [_record(order) for order in orders]
    return [row for part in parts for row in part]


def _summary(raw: Path, day: str, rows: list[TruthRow]) -> DaySummary:
    files = {row.file for row in rows}
    return DaySummary(
        day=day,
        files=len(files),
        episodes=len(rows),
        damaged=dict(sorted(Counter(row.defect for row in rows if row.defect).items())),
        size_bytes=sum((raw / file).stat().st_size for file in files),
        robot_minutes=round(sum(row.steps for row in rows) / CONTROL_HZ / 60, 2),
    )


def _number(*parts: object) -> int:
    """The same 62-bit number for the same parts, on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 2


def _fates(order: Order, draw: np.random.Generator) -> list[Fate]:
    """Which episode suffers what. Only the last episode of a file can be cut off, so that fate moves there."""
    fates: list[Fate] = [None] * order.episodes
    count = round(order.episodes * order.damaged)
    if not count or not order.planted:
        return fates
    weights = np.array([DEFECTS[name].weight or 1.0 for name in order.planted])
    kinds: list[str] = []
    while len(kinds) < count:  # no kind twice before each has had its turn
        kinds += [str(name) for name in draw.choice(order.planted, len(order.planted), replace=False, p=weights / weights.sum())]
    for place, kind in zip(draw.choice(order.episodes, count, replace=False), kinds, strict=False):
        fates[place] = (kind, "strong" if draw.random() < order.strong else "mild")
    for place, fate in enumerate(fates):
        last = min(place - place % EPISODES_PER_FILE + EPISODES_PER_FILE, order.episodes) - 1
        if fate and DEFECTS[fate[0]].file == "truncate":
            fates[place], fates[last] = fates[last], fate
    return fates


def _demonstration(arm: Arm, seed: int, fate: Fate) -> Demonstration:
    draw = np.random.default_rng([seed, 2])
    style = draw_style(draw)
    if fate is None:
        return demonstrate(arm, seed, style)
    defect = DEFECTS[fate[0]]
    if defect.plan:
        style = defect.plan(style, defect.amount(fate[1]), draw)
    demonstration = demonstrate(arm, seed, style)
    return defect.corrupt(demonstration, defect.amount(fate[1]), draw) if defect.corrupt else demonstration


def _record(order: Order) -> list[TruthRow]:
    """Record one robot's day."""
    identity = (order.seed, order.robot, order.day, order.late)
    draw = np.random.default_rng(_number(*identity))
    fates = _fates(order, draw)
    arm = Arm()
    midnight = int(datetime.strptime(order.day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * SECOND
    clock = midnight + (LATE_H if order.late else MORNING_H) * 3600 * SECOND + int(draw.integers(0, 1800 * SECOND)) + order.late * 1800 * SECOND
    rows: list[TruthRow] = []
    for first in range(0, order.episodes, EPISODES_PER_FILE):
        takes = []
        for index in range(first, min(first + EPISODES_PER_FILE, order.episodes)):
            seed = FIRST_SEED + _number(*identity, "scene", index)
            take = Take(index + 100 * order.late, clock, _demonstration(arm, seed, fates[index]))
            takes.append(take)
            clock = take.end_ns + int(draw.uniform(4, 9) * SECOND)
        clock += 60 * SECOND
        rows += _write_file(order, takes, fates[first : first + len(takes)], draw)
    return rows


def _write_file(order: Order, takes: list[Take], fates: list[Fate], draw: np.random.Generator) -> list[TruthRow]:
    """Write one file, cut it short if that is its fate, and upload it again, or an episode of it, if that is."""
    stem = datetime.fromtimestamp(takes[0].start_ns // SECOND, UTC).strftime("%H%M%S")
    folder = f"{order.robot}/{order.day}"
    file = f"{folder}/{stem}.mcap"
    content, spans = write_mcap(order.robot, takes, draw)
    rows, copies = [], []
    for take, fate, (begin, end) in zip(takes, fates, spans, strict=True):
        damage = DEFECTS[fate[0]].file if fate else None
        row = TruthRow(order.robot, order.day, file, take.number, take.start_ns, take.end_ns, len(take.demonstration.actions), take.demonstration.success)
        if fate and damage == "truncate":
            content = content[: end - round((end - begin) * DEFECTS[fate[0]].amount(fate[1]))]
        if fate and damage == "duplicate":
            copies.append((take, fate[1]))
        else:
            row = replace(row, defect=fate and fate[0], severity=fate and fate[1])
        rows.append(row)
    _upload(order, file, content, rows)
    made = list(rows)
    for take, severity in copies:
        again = f"{folder}/{stem}_again-{take.number}.mcap"
        if severity == "strong":
            copied, copy_rows = content, rows
        else:
            copied, _ = write_mcap(order.robot, [replace(take, logged_later_ns=600 * SECOND)], draw)
            copy_rows = [row for row in rows if row.episode == take.number]
        copy_rows = [replace(row, file=again, defect="duplicate_upload", severity=severity, duplicate_of=file) for row in copy_rows]
        _upload(order, again, copied, copy_rows)
        made += copy_rows
    return made


def _upload(order: Order, file: str, content: bytes, rows: list[TruthRow]) -> None:
    """Put the file in place whole, as an object store would."""
    path = order.raw / file
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
    write_truth(order.truth, file, rows)
