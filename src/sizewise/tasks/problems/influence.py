"""What each example contributes to a metric of a whole split.

Influence values have the metric as their mean, and their standard error is the metric's over samples of examples. So
metrics that are no means, such as F1, BLEU or the area under the curve, take part in paired comparisons like accuracy
(jackknife: Tukey 1958; ratios: the delta method; the area under the curve: DeLong et al. 1988).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ratio(numerator: Array, denominator: Array) -> Array:
    """Of a ratio of sums, from what each example adds to both, shapes (n,)."""
    value, size = numerator.sum() / denominator.sum(), denominator.mean()
    return np.asarray(value + (numerator - value * denominator) / size, dtype=float)


def jackknife(statistic: Callable[[NDArray[np.intp]], float], examples: int, groups: int = 200) -> Array:
    """Of any statistic, by leaving out one example or, of more than `groups`, one group of them at a time.

    Args:
        statistic: of the examples with these indices.
    """
    everything = np.arange(examples)
    whole = statistic(everything)
    parts = np.array_split(everything, min(groups, examples))
    values = np.empty(examples)
    for part in parts:
        rest = np.setdiff1d(everything, part, assume_unique=True)
        change = len(rest) * (whole - statistic(rest)) / len(part) if len(rest) else 0.0
        # A group's mean scatters less than its members do, by the root of their number.
        values[part] = whole + math.sqrt(len(part)) * change
    return np.asarray(values - values.mean() + whole)


def area_under_curve(score: Array, positive: NDArray[np.bool_]) -> Array:
    """Of the area under the receiver operating characteristic (DeLong et al. 1988, equation 2).

    Args:
        score: (n,), higher for positives. positive: (n,), with examples of both kinds.
    """
    from scipy.stats import rankdata

    ranks, m, n = rankdata(score), int(positive.sum()), int((~positive).sum())
    above = np.empty(len(score))
    above[positive] = (ranks[positive] - rankdata(score[positive])) / n
    above[~positive] = 1 - (ranks[~positive] - rankdata(score[~positive])) / m
    area = float(above[positive].mean())
    return np.asarray(area + (above - area) * np.where(positive, len(score) / m, len(score) / n))
