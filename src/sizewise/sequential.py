"""Intervals that hold however often they were looked at while seeds came in, and whenever that ended.

A study that spends its sweep adaptively looks at a paired difference after every batch and stops when it says enough.
An ordinary interval at that look is wrong more often than its level says. A repeated confidence interval (Jennison &
Turnbull 1989) holds at all looks together, so that any rule may decide which to take last. How much of the error may be
spent by n of at most N seeds is error·(n/N)^2 (Lan & DeMets 1983; the power family of Kim & DeMets 1987). A few seeds'
differences are Student's and not normal: the boundaries are those of the sequence of t statistics (Jennison & Turnbull
1991), which is the same for every mean and variance of normal differences, and is drawn here instead of integrated.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

FIRST = 3
"""Pairs at the first look: two have an interval too, but one that is hardly ever short enough to say anything."""

POWER = 2.0
"""Of the share of seeds, in the spending function: the larger, the less is spent on early looks."""

DRAWS = 400_000


def critical(n: int, most: int, level: float) -> float:
    """Student's t that n pairs must exceed, so that no look at 3, 4, ... `most` pairs errs, with probability `level`.

    NaN below the first look; beyond `most` it is that of the last one.
    """
    return _boundaries(most, level).get(min(n, most), math.nan)


def nominal(n: int, most: int, level: float) -> float:
    """Level at which the plain interval over n pairs is the repeated one of `level`; NaN below the first look."""
    from scipy.stats import t

    return float(1 - 2 * t.sf(critical(n, most, level), n - 1))


@cache
def _boundaries(most: int, level: float) -> dict[int, float]:
    """For each look, the |t| that just so many of the draws exceed for the first time as may be spent there."""
    rng, first = np.random.default_rng(0), min(FIRST, most)
    total, squares = np.zeros(DRAWS), np.zeros(DRAWS)
    found: dict[int, float] = {}
    for n in range(1, most + 1):
        drawn = rng.standard_normal(len(total))
        total, squares = total + drawn, squares + drawn**2
        if n < first:
            continue
        t = np.abs(total) / np.sqrt((squares - total**2 / n) / (n - 1) * n)
        crossing = round(DRAWS * (1 - level) * (n / most) ** POWER) - (DRAWS - len(t))
        found[n] = float(np.partition(t, -crossing)[-crossing])
        within = t < found[n]
        total, squares = total[within], squares[within]
    return found
