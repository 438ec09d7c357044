"""What a larger run would give, next to the largest so far."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from sizewise.errors import UsageError
from sizewise.laws.decide.draws import belief, refused
from sizewise.laws.forecast import LEVEL, UNKNOWN_FORM, WIDEST, predict
from sizewise.laws.forms import named
from sizewise.laws.intake.evidence import Array
from sizewise.records import Estimate, Growth, Law

How = Literal["compute", "params", "samples"]
TIMES = 10.0


def growth(
    law: Law, *, times: float = TIMES, at: dict[str, float] | None = None, level: float = LEVEL
) -> tuple[Growth, ...]:
    """The loss of a run of `times` the compute, spent along the optimal path, on parameters alone or on samples alone.

    Args:
        at: the present run, by variable; None takes the one that cost most.

    Raises:
        UsageError: `times` is not above 1, or the present run lacks a variable.
    """
    if not (math.isfinite(times) and times > 1):
        raise UsageError(f"{times:g} times the compute is not more of it", hint="give a number above 1")
    ways: tuple[How, ...] = ("compute", "params", "samples")
    if at is not None and not all(at.get(v, 0.0) > 0 for v in law.variables):
        raise UsageError(f"the present run is {at}", hint=f"give positive {' and '.join(law.variables)}")
    if refusal := refused(law):
        return tuple(Growth(how, {}, None, None, "undetermined", *refusal) for how in ways)
    now = _largest(law) if at is None else np.log([at[v] for v in law.variables])
    log_product = float(now.sum()) + math.log(times)
    held = belief(law, draws=0)
    each = held.centre.optimal_log_params(log_product)
    best = float(each[held.middle(each)])
    step = math.log(times)
    places = [np.array([best, log_product - best]), now + np.array([step, 0.0]), now + np.array([0.0, step])]
    return tuple(_grown(law, how, now, place, level) for how, place in zip(ways, places, strict=True))


def _largest(law: Law) -> Array:
    """log params and log samples of the run that cost most; of several the one with the lowest loss."""
    table = np.log(law.points)
    cost = table[:, 0] + table[:, 1]
    top = np.flatnonzero(cost >= cost.max() - 1e-9)
    return np.asarray(table[top[table[top, -1].argmin()], :2])


def _grown(law: Law, how: How, now: Array, place: Array, level: float) -> Growth:
    at = dict(zip(law.variables, map(float, np.exp(place)), strict=True))
    ratio = contrast(law, place, now, level=level)
    verdict: Literal["better", "worse", "undetermined"] = "undetermined"
    if ratio.high < 1:
        verdict = "better"
    elif ratio.low > 1:
        verdict = "worse"
    loss = predict(law, [at], level=level)[0]
    if verdict == "undetermined":
        return Growth(how, at, loss, ratio, verdict, "undetermined", "one more run may as well be no better")
    return Growth(how, at, loss, ratio, verdict, "supported", law.reason)


def contrast(law: Law, there: Array, here: Array, *, level: float = LEVEL) -> Estimate:
    """Loss of one new run at a place over what the law says of another: what is common to both cancels.

    As `forecast`, but of a difference: the gradient of the difference carries the parameters' uncertainty, the forms
    disagree about the difference only, and a share of it is unknown.

    Args:
        there, here: log of the law's variables, (variables,).
    """
    x = np.stack([there, here]) - np.array(law.centre)
    weight = np.array([f.weight for f in law.forms])
    change, variance = [], []
    for f in law.forms:
        value, slope = named(f.form, law.variables).jacobian(np.array([f.theta]), x)
        gradient = slope[0, 0] - slope[0, 1]
        change.append(float(value[0, 0] - value[0, 1]))
        variance.append(float(gradient @ np.array(f.covariance) @ gradient))
    each, theirs = np.array(change), np.array(variance)
    mean = float(weight @ each)
    within = 1 / float(weight @ (1 / (theirs + 1e-12)))
    between = float(weight @ (each - mean) ** 2)
    spread = math.sqrt(law.scatter**2 + law.inflation * (within + between + (UNKNOWN_FORM * mean) ** 2))
    half = min(_quantile(level, law.freedom) * spread, WIDEST)
    method = f"{len(law.forms)} forms weighed by back-tests, of the difference"
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half), level, method, law.runs)


def _quantile(level: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2))
