"""What a budget buys: the best size and data for it, and what a little more of it would add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from sizewise.cluster.prices import Amount, Rate
from sizewise.laws.decide.draws import belief
from sizewise.laws.decide.growth import contrast
from sizewise.laws.forecast import LEVEL
from sizewise.laws.intake.evidence import Array
from sizewise.records import ComputeOptimal, Law, More, Spending

TIMES = (1.1, 2.0, 10.0)
"""Budgets that are compared with the given one, as multiples of it."""


def spending(
    law: Law, found: ComputeOptimal, amount: Amount, rate: Rate, *, times: Sequence[float] = TIMES, level: float = LEVEL
) -> Spending:
    """A budget in its own unit, and what more of it buys along the optimal path.

    Args:
        found: the best size for the operations that the amount buys.
        times: multiples of the budget, above 1.

    Raises:
        UsageError: the rate does not say what the amount buys.
    """
    told = {unit: rate.spent(found.compute, unit) for unit in ("FLOP", "h") if unit == "FLOP" or rate.speed}
    if rate.price and rate.speed:
        told["money"] = told["h"] * rate.price
    more = () if found.params is None else tuple(_more(law, found, amount, factor, level) for factor in times)
    return Spending(amount.value, amount.unit, told, rate.speed, rate.price, more)


def _more(law: Law, found: ComputeOptimal, amount: Amount, times: float, level: float) -> More:
    here, there = (_optimum(law, found, math.log(factor)) for factor in (1.0, times))
    return more_of(law, here, there, times=times, extra=(times - 1) * amount.value, level=level)


def more_of(
    law: Law, here: Array, there: Array, *, times: float, extra: float, samples: float = 0.0, level: float = LEVEL
) -> More:
    """What one place gives over another.

    Args:
        here, there: log of the law's variables, params first, (variables,).
        times, extra: what the second costs, as a multiple of the first, and more than it.
        samples: of both, where they are no variable of the law.
    """
    ratio = contrast(law, there, here, level=level)
    verdict: Literal["better", "worse", "undetermined"] = "undetermined"
    if ratio.high < 1:
        verdict = "better"
    elif ratio.low > 1:
        verdict = "worse"
    place = dict(zip(law.variables, map(float, np.exp(there)), strict=True))
    return More(times, extra, place["params"], place.get("samples", samples), ratio, verdict)


def _optimum(law: Law, found: ComputeOptimal, log_times: float) -> Array:
    """log params and log samples that are best for a multiple of the budget."""
    log_product = math.log(found.compute / found.flop_per_sample) + log_times
    held = belief(law, draws=0)
    each = held.centre.optimal_log_params(log_product)
    best = float(each[held.middle(each)])
    return np.array([best, log_product - best])


__all__ = ["TIMES", "more_of", "spending"]
