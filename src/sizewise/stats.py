"""Makes Estimates: the one place where an uncertain number gets its interval.

Everything here is a pure function of arrays. "Paired" means row i of `a` and of `b` share the same seed, and
column j the same example, so whatever they have in common cancels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sizewise.records import Estimate

Array = NDArray[np.float64]

LEVEL = 0.95


ANYTHING = (-math.inf, math.inf)
POSITIVE = (0.0, math.inf)
"""Where a quantity can lie."""


def mean(
    values: Array, *, level: float = LEVEL, unit: str = "seeds", within: tuple[float, float] = ANYTHING
) -> Estimate:
    """Mean of independent repeats with Student's t interval.

    Args:
        values: shape (n,), n >= 2.
        within: least and largest value that the mean can have: the interval is cut there, which takes nothing of its
            coverage.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    found = _t_interval(float(values.mean()), error, n - 1, level, f"Student t over {n} {unit}", n)
    low, high = (float(end) for end in np.clip([found.low, found.high], *within))
    return replace(found, low=low, high=high)


def proportion(successes: int, n: int, *, level: float = LEVEL) -> Estimate:
    """A share of `n` examples with Wilson's score interval (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), level, f"Wilson over {n} examples", n)


def paired(
    a: Array, b: Array, *, level: float = LEVEL, unit: str = "seeds", floor: float = 0.0
) -> tuple[Estimate, float]:
    """Mean of a - b over pairs with its t interval, and the two-sided p-value of no difference.

    Args:
        a, b: shape (n,), n >= 2.
        floor: least standard deviation of a difference to believe: a few pairs can agree by luck.
    """
    from scipy.stats import t

    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    n, centre, spread = len(difference), float(difference.mean()), max(float(difference.std(ddof=1)), floor)
    error = spread / math.sqrt(n)
    estimate = _t_interval(centre, error, n - 1, level, f"Student t over {n} paired {unit}", n)
    if spread == 0:  # identical differences: certain if there is one, nothing to see if there is none
        return estimate, float(centre == 0)
    return estimate, float(2 * t.sf(abs(centre) / error, n - 1))


def paired_population(a: Array, b: Array, *, level: float = LEVEL) -> Estimate:
    """Mean of a - b when both the seeds and the examples are samples of larger populations.

    Seeds and examples are crossed random effects: Var = MS_seeds/(S·n) + MS_examples/(S·n) - MS_residual/(S·n), with
    Satterthwaite's degrees of freedom (Satterthwaite 1946; for crossed designs Owen 2007, arXiv:0712.1111).

    Args:
        a, b: shape (seeds, examples), the score of each example under each seed, seeds >= 2 and examples >= 2.
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    s, n = difference.shape
    centre = difference.mean()
    rows = difference.mean(axis=1) - centre
    columns = difference.mean(axis=0) - centre
    residual = difference - centre - rows[:, None] - columns[None, :]
    squares = np.array([n * (rows**2).sum(), s * (columns**2).sum(), (residual**2).sum()])
    freedom = np.array([s - 1, n - 1, (s - 1) * (n - 1)])
    parts = squares / freedom / (s * n)
    signed = parts * np.array([1, 1, -1])
    # A negative component means that one of the factors adds nothing measurable; the larger of the others is then safe.
    variance = max(float(signed.sum()), float(parts[:2].max()))
    effective = variance**2 / float((parts**2 / freedom).sum()) if variance > 0 else float(s - 1)
    method = f"crossed random effects over {s} paired seeds and {n} examples"
    return _t_interval(float(centre), math.sqrt(variance), max(effective, 1.0), level, method, s)


def paired_proportions(a: NDArray[np.bool_], b: NDArray[np.bool_], *, level: float = LEVEL) -> Estimate:
    """Share of successes in a minus that in b on the same examples (Agresti & Min 2005: Wald with 0.5 added a cell).

    Args:
        a, b: shape (n,), one boolean per example.
    """
    from scipy.stats import norm

    n = len(a)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    z = float(norm.ppf(0.5 + level / 2))
    total = n + 2
    centre = (only_a - only_b) / total
    spread = math.sqrt(max((only_a + only_b + 1) - (only_a - only_b) ** 2 / total, 0.0)) / total
    low, high = max(-1.0, centre - z * spread), min(1.0, centre + z * spread)
    return Estimate((only_a - only_b) / n, low, high, level, f"Agresti-Min over {n} paired examples", n)


def log_ratio(a: Array, b: Array, *, level: float = LEVEL) -> Estimate:
    """Geometric mean of a/b over paired blocks, interval from Student's t on the logarithms.

    Args:
        a, b: shape (blocks,), positive.
    """
    inner = mean(np.log(a) - np.log(b), level=level, unit="paired blocks")
    return Estimate(
        math.exp(inner.value), math.exp(inner.low), math.exp(inner.high), level, f"ratio, {inner.method}", inner.n
    )


def quantile(values: Array, q: float, *, level: float = LEVEL) -> Estimate:
    """A quantile with its distribution-free interval from order statistics (Hahn & Meeker 1991, section 5.2).

    Args:
        values: shape (n,).
        q: in (0, 1). When n is too small for the level the interval ends at the extreme values.
    """
    from scipy.stats import binom

    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    low = max(int(binom.ppf((1 - level) / 2, n, q)) - 1, 0)
    high = min(int(binom.ppf((1 + level) / 2, n, q)), n - 1)
    value = float(np.quantile(ordered, q))
    return Estimate(
        value, min(float(ordered[low]), value), max(float(ordered[high]), value), level, f"order statistics of {n}", n
    )


def percentile_interval(draws: Array, value: float, *, level: float, method: str, n: int) -> Estimate:
    """Interval between the percentiles of bootstrap draws around a point estimate made elsewhere."""
    tail = 50 * (1 - level)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Estimate(float(value), min(float(low), value), max(float(high), value), level, method, n)


def _t_interval(value: float, error: float, freedom: float, level: float, method: str, n: int) -> Estimate:
    from scipy.stats import t

    if not math.isfinite(error):
        return Estimate(value, math.nan, math.nan, level, f"no interval: {method}", n)
    half = float(t.ppf(0.5 + level / 2, freedom)) * error
    return Estimate(value, value - half, value + half, level, method, n)
