"""What the nearest precedents say of a new task.

Each of the nearest (Brazdil, Soares & da Costa 2003; Feurer, Springenberg & Hutter 2015) counts as one measurement
whose variance grows with the square of its distance, beside what is known without any: that the size lies somewhere on
the ladder. So the interval widens as precedents lie further away, and what is far from all gets the ladder's own. With
a few precedents the scale of this growth cannot be learned: it is set, so that at a distance of 1 a precedent weighs
somewhat less than the ladder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray

from sizewise.library.features import SCALES
from sizewise.records import Cost, Estimate, Guess, Law, Precedent, Proposal

Array = NDArray[np.float64]

NEIGHBOURS = 5
LEVEL = 0.9
FEWEST_FEATURES = 3

RUNG = math.log(2)
"""Standard deviation of log params between two studies of one task: about a rung of the ladder."""

FAR = 2.0
"""Distance beyond which recipes of a precedent are not tried: every feature differs by two of its units."""

STEEP = 0.15
"""Standard deviation of a law's exponent between two tasks at a distance of 1."""


@dataclass(frozen=True)
class Similar:
    """A precedent, and how far its task is from the new one."""

    precedent: Precedent
    distance: float


def distance(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Root mean square, over the features that both have, of their difference in units of `SCALES`."""
    shared = [name for name in SCALES if name in a and name in b]
    if len(shared) < FEWEST_FEATURES:
        return math.inf
    return math.sqrt(sum(((a[name] - b[name]) / SCALES[name]) ** 2 for name in shared) / len(shared))


def comparable(precedents: Sequence[Precedent], *, problem: str, layout: str, family: str) -> tuple[Precedent, ...]:
    """Those of the same problem, layout and family: parameters of other families say something else."""
    return tuple(p for p in precedents if (p.problem, p.layout, p.family) == (problem, layout, family))


def nearest(features: Mapping[str, float], precedents: Sequence[Precedent]) -> tuple[Similar, ...]:
    """The nearest of comparable precedents, nearest first, `NEIGHBOURS` at most."""
    found = sorted((Similar(p, distance(features, p.features)) for p in precedents), key=lambda one: one.distance)
    return tuple(one for one in found if math.isfinite(one.distance))[:NEIGHBOURS]


def recipes(found: Sequence[Similar], most: int) -> tuple[Proposal, ...]:
    """Recipes to try: the best of every precedent, nearest first, then the second of each, up to so many.

    What is `FAR` is left out, so that a study that is like none before begins as if there were none.
    """
    known = [_best(one.precedent) for one in found if one.distance <= FAR]
    in_turn = (one for rank in zip_longest(*known) for one in rank if one is not None)
    return tuple(islice(dict.fromkeys(in_turn), most))


def _best(precedent: Precedent) -> tuple[Proposal, ...]:
    return precedent.recipes or (Proposal(precedent.recipe, precedent.family),)


def exponents(found: Sequence[Law]) -> dict[str, Estimate]:
    """By metric, the power of parameters that a law to rely on falls with; forms without one have none."""
    supported = [law for law in found if law.status == "supported" and "alpha" in law.forms[0].parameters]
    return {law.metric: law.forms[0].parameters["alpha"] for law in supported}


def guess(found: Sequence[Similar], ladder: Sequence[Cost]) -> Guess | None:
    """Where the right size may lie; None without a precedent whose choice was supported.

    Args:
        ladder: the sizes of the plan.
    """
    told = [one for one in found if one.precedent.status == "supported"]
    if not told:
        return None
    low, high = (math.log(end(cost.params for cost in ladder)) for end in (min, max))
    middle, doubt = (low + high) / 2, max((high - low) / math.sqrt(12), RUNG)
    values = np.array([middle, *(math.log(one.precedent.params) for one in told)])
    variances = np.array([doubt**2, *(RUNG**2 + (doubt * one.distance) ** 2 for one in told)])
    mean, spread, weight = _pooled(values, variances)
    params = _interval(mean, spread, f"{len(told)} precedents and the ladder, by precision", len(told))
    return Guess(
        width=min(ladder, key=lambda cost: abs(math.log(cost.params) - mean)).width,
        params=params,
        uninformed=_interval(middle, doubt, "the ladder alone", 0),
        precedents=tuple((one.precedent.name, one.distance) for one in told),
        weight=1 - float(weight[0]),
        exponents=_exponents(told),
    )


def _exponents(told: Sequence[Similar]) -> dict[str, Estimate]:
    """Of each metric's law, where a precedent has one: there is no ladder to fall back on."""
    found = {}
    for metric in ("loss", "error"):
        known = [(one.precedent.exponents[metric], one.distance) for one in told if metric in one.precedent.exponents]
        if known:
            values = np.array([e.value for e, _ in known])
            spreads = np.array([(e.high - e.low) / 2 / _quantile(e.level) for e, _ in known])
            far = np.array([max(d, 0.1) for _, d in known])
            mean, spread, _ = _pooled(values, spreads**2 + (STEEP * far) ** 2)
            half = _quantile(LEVEL) * spread
            found[metric] = Estimate(mean, mean - half, mean + half, LEVEL, "precedents, by precision", len(known))
    return found


def _pooled(values: Array, variances: Array) -> tuple[float, float, Array]:
    """Their mean by precision, its standard deviation, and the weight of each."""
    precisions = 1 / variances
    weights = precisions / precisions.sum()
    return float(weights @ values), float(precisions.sum() ** -0.5), weights


def _interval(mean: float, spread: float, method: str, n: int) -> Estimate:
    half = _quantile(LEVEL) * spread
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half), LEVEL, method, n)


def _quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))
