"""Two policies on the same scenes: what the pairs say about the difference of their success rates.

Only discordant pairs tell them apart: `gained` are scenes that the candidate alone wins, `lost` those that the champion alone wins.
* interval: asymptotic score interval of Tango 1998, Statistics in Medicine 17:891-908, which Fagerland, Lydersen and Laake 2014
  (Statistics in Medicine 33:2850-2875) recommend for paired proportions; the same statistic is the non-inferiority test of
  Liu, Hsueh, Hsieh and Chen 2002, Statistics in Medicine 21:231-245.
* worse: exact conditional test of McNemar 1947, Psychometrika 12:153-157.
* power: exact, by enumerating the trinomial distribution of the discordant pairs; nothing is simulated.
"""

import math

import numpy as np

from ray_jobs.seam.proportions import Z_90

MOST = 10_000  # pairs, when asking how many are needed


def score(gained: int, lost: int, pairs: int, difference: float) -> float:
    """Tango's statistic (equation 8) for the hypothesis that candidate - champion is `difference` (-1 < difference < 1): standard normal if so.

    The restricted estimate of P(lost) is the larger root of A q² + B q + C. Infinite where the hypothesis leaves no variance.
    """
    a = 2 * pairs
    b = -gained - lost + (2 * pairs - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    root = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = pairs * (2 * root + difference * (1 - difference))
    excess = gained - lost - pairs * difference
    if variance <= 1e-12:
        return 0.0 if abs(excess) < 1e-12 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def interval(gained: int, lost: int, pairs: int, z: float = Z_90) -> tuple[float, float]:
    """Limits of candidate - champion, where `score` crosses z and -z. (-1, 1) without any pair."""
    if pairs == 0:
        return -1.0, 1.0
    return _crossing(gained, lost, pairs, z), _crossing(gained, lost, pairs, -z)


def _crossing(gained: int, lost: int, pairs: int, z: float) -> float:
    """`score` falls with the difference: bisect."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if score(gained, lost, pairs, middle) > z else (low, middle)
    return (low + high) / 2


def as_good(gained: int, lost: int, pairs: int, margin: float) -> bool:
    """Shown to be worse by less than `margin`: the lower limit of `interval` (one-sided 95 %) lies above -margin."""
    return pairs > 0 and score(gained, lost, pairs, -margin) > Z_90


def worse(gained: int, lost: int) -> float:
    """One-sided p-value of McNemar's exact test: the chance of as many lost scenes if both policies were equally good."""
    total = gained + lost
    return sum(math.comb(total, count) for count in range(lost, total + 1)) / 2**total


def power(discordance: float, pairs: int, margin: float, difference: float = 0.0) -> float:
    """Chance that a policy with that true `difference` to the champion passes `as_good`, where `discordance` of all scenes tell the two apart.

    Raises ValueError where |difference| > discordance: there is no such pair of policies.
    """
    if not abs(difference) <= discordance <= 1:
        raise ValueError(f"a difference of {difference} needs at least as large a share of discordant scenes, not {discordance}")
    share = 0.5 if discordance == 0 else (1 + difference / discordance) / 2
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, pairs + 1)))])
    spread = 8 * math.sqrt(pairs * discordance * (1 - discordance)) + 8
    first, last = max(0, int(pairs * discordance - spread)), min(pairs, int(pairs * discordance + spread))
    total, needed = 0.0, 0
    for count in range(first, last + 1):
        while needed <= count and not as_good(needed, count - needed, pairs, margin):  # it never falls with count: a test tries every table
            needed += 1
        if needed <= count:
            total += _binomial(factorials, pairs, discordance, np.array([count]))[0] * _binomial(factorials, count, share, np.arange(needed, count + 1)).sum()
    return float(min(1.0, total))


def _binomial(factorials: np.ndarray, trials: int, rate: float, counts: np.ndarray) -> np.ndarray:
    if rate in (0.0, 1.0):
        return (counts == trials * rate).astype(float)
    log = factorials[trials] - factorials[counts] - factorials[trials - counts] + counts * math.log(rate) + (trials - counts) * math.log1p(-rate)
    probability: np.ndarray = np.exp(log)
    return probability


def pairs_needed(discordance: float, margin: float, wanted: float = 0.8) -> int | None:
    """How many scenes an equally good policy needs to pass with at least that chance, to the next ten; None where MOST are too few."""
    low, high = 0, 10
    while power(discordance, high, margin) < wanted:
        low, high = high, high * 2
        if high > MOST:
            return None
    while high - low > 10:
        middle = (low + high) // 20 * 10
        low, high = (low, middle) if power(discordance, middle, margin) >= wanted else (middle, high)
    return high
