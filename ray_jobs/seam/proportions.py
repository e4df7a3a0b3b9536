"""Intervals of success rates: used where rates are measured and where they are judged, so that both say the same."""

import math

Z_95 = 1.959963984540054  # two-sided 95 %
Z_90 = 1.6448536269514722  # two-sided 90 %, that is one-sided 95 %


def wilson(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, JASA 22:209-212). (0, 1) without any trial."""
    if trials == 0:
        return 0.0, 1.0
    rate, square = successes / trials, z * z
    centre = (rate + square / (2 * trials)) / (1 + square / trials)
    half = z / (1 + square / trials) * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials * trials))
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)


def paired_difference(both: int, first: int, second: int, neither: int, z: float = Z_90) -> tuple[float, float]:
    """Interval of the difference of two paired rates, first - second (Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10).

    both, neither: pairs in which both or neither succeeded; first, second: in which only that one did. (-1, 1) without any pair.
    """
    pairs = both + first + second + neither
    if pairs == 0:
        return -1.0, 1.0
    one, other = (both + first) / pairs, (both + second) / pairs
    (one_low, one_high), (other_low, other_high) = wilson(both + first, pairs, z), wilson(both + second, pairs, z)
    spread = (both + first) * (second + neither) * (both + second) * (first + neither)
    product = both * neither - first * second
    corrected = product - pairs / 2 if product > pairs / 2 else min(product, 0)
    phi = corrected / math.sqrt(spread) if spread else 0.0

    def distance(down: float, up: float) -> float:
        return math.sqrt(max(0.0, down * down - 2 * phi * down * up + up * up))

    difference = one - other
    return difference - distance(one - one_low, other_high - other), difference + distance(other - other_low, one_high - one)
