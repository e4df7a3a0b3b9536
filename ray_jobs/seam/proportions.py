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
