"""How much an episode can teach: the mutual information of state and action, estimated from its moments among those of other episodes.

After DemInf (Hejna et al., "Robot Data Curation with Mutual Information Estimators", 2025), with principal components instead of its
autoencoders: an episode whose actions follow from its states and are not all alike scores high; noise and contradiction score low. (With
the picture's embedding among the states, too, noise told less in the simulated fleet: docs/curation.md.)
The estimator is Kraskov's first (Kraskov, Stoegbauer and Grassberger, "Estimating mutual information", 2004), in nats, without neighbours from
the same episode: what comes a moment later is near anyway, and tells nothing. Never a reason to reject: it is shown.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

NEIGHBOURS = (5, 6, 7)  # averaged, as DemInf does
COMPONENTS = 8
POOL = 64  # episodes that are estimated together, half of them of earlier days where there are so many
FEWEST = 8  # episodes; an estimate from fewer means nothing
BLOCK = 512


@dataclass(frozen=True)
class Moments:
    """seen: f64 [m, s], the states; done: f64 [m, a], the actions that follow."""

    seen: np.ndarray
    done: np.ndarray

    @classmethod
    def of(cls, row: dict[str, Any] | None) -> "Moments | None":
        """From the LEDGER row of the value stage; None where it found no moments."""
        count = int((row or {}).get("scores", {}).get("value.moments", 0))
        if row is None or not count:
            return None
        return cls(*(np.asarray(row["vectors"][f"value.{name}"], np.float64).reshape(count, -1) for name in ("state", "action")))

    @property
    def shape(self) -> tuple[int, int]:
        return self.seen.shape[1], self.done.shape[1]


def worth(own: dict[str, Moments], past: dict[str, Moments]) -> dict[str, dict[str, float]]:
    """Episode of `own` -> {"value.mutual_information": nats, "value.rank": share of the episodes estimated with it that score lower}.

    Episodes of one shape are compared; in pools, chosen by the hash of their ids, so that a day's cost grows with its length alone.
    """
    found: dict[str, dict[str, float]] = {}
    for shape in sorted({moments.shape for moments in own.values()}):
        mine = sorted((name for name, moments in own.items() if moments.shape == shape), key=_hashed)
        before = sorted((name for name, moments in past.items() if moments.shape == shape and name not in own), key=_hashed)[: POOL // 2]
        size = POOL - len(before)
        pools = max(1, -(-len(mine) // size))
        for number in range(pools):
            part = mine[number::pools]
            everyone = [own[name] for name in part] + [past[name] for name in before]
            if len(everyone) < FEWEST:
                continue
            told = informations(everyone)
            for name, information in zip(part, told, strict=False):
                lower = (np.sum(told < information) + 0.5 * (np.sum(told == information) - 1)) / (len(told) - 1)
                found[name] = {"value.mutual_information": float(information), "value.rank": float(lower)}
    return found


def _hashed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def ranking(rows: list[dict[str, Any]], most: int = 5) -> str | None:
    """Markdown: the kept episodes that teach least and most; None where no value is known."""
    valued = [row for row in rows if row["verdict"] == "kept" and "value.rank" in row["scores"]]
    if not valued:
        return None
    ordered = sorted(valued, key=lambda row: (row["scores"]["value.rank"], row["episode_id"]))
    shown = ordered if len(ordered) <= 2 * most else [*ordered[:most], *ordered[-most:]]
    lines = ["| episode | upload | mutual information (nats) | rank |", "|---|---|---|---|"]
    for row in shown:
        upload = str(row["upload"]).replace("|", "/")
        lines.append(f"| {row['episode_id'][:8]} | {upload} | {row['scores']['value.mutual_information']:.2f} | {row['scores']['value.rank']:.0%} |")
    return "\n".join(lines)


def informations(episodes: list[Moments]) -> np.ndarray:
    """f64 [n]: each episode's share of the mutual information of all their moments, nats per moment."""
    seen, done = (components(np.concatenate([getattr(moments, name) for moments in episodes])) for name in ("seen", "done"))
    owner = np.repeat(np.arange(len(episodes)), [len(moments.seen) for moments in episodes])
    local = np.concatenate([pointwise(seen, done, owner, slice(first, first + BLOCK)) for first in range(0, len(owner), BLOCK)])
    return np.asarray(np.bincount(owner, local) / np.bincount(owner))


def components(values: np.ndarray) -> np.ndarray:
    """[n, d] -> [n, at most COMPONENTS]: principal components of the standardised columns; constant columns drop out."""
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    used = centred[:, spread > 1e-9] / spread[spread > 1e-9]
    if not used.shape[1]:
        return np.zeros((len(values), 1))
    _, vectors = np.linalg.eigh(used.T @ used)
    return np.asarray(used @ vectors[:, ::-1][:, :COMPONENTS])


def pointwise(seen: np.ndarray, done: np.ndarray, owner: np.ndarray, part: slice) -> np.ndarray:
    """The estimate at each moment of `part`, among the moments of other episodes."""
    from scipy.spatial.distance import cdist  # here, for each run of Dagster's imports this module, and few estimate
    from scipy.special import digamma

    foreign = owner[part][:, None] != owner[None]
    near_seen, near_done = (np.where(foreign, cdist(table[part], table, "chebyshev"), np.inf) for table in (seen, done))
    joint = np.partition(np.maximum(near_seen, near_done), max(NEIGHBOURS), axis=1)
    joint = np.sort(joint[:, : max(NEIGHBOURS)], axis=1)
    total = foreign.sum(axis=1)
    found = []
    for k in NEIGHBOURS:
        reach = joint[:, k - 1 : k]
        beside = [digamma((near < reach).sum(axis=1) + 1) for near in (near_seen, near_done)]
        found.append(digamma(k) + digamma(total) - beside[0] - beside[1])
    return np.asarray(np.mean(found, axis=0))
