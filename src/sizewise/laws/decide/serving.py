"""The model that is cheapest over its life: a smaller one, trained for longer, once it is asked often enough.

Sardana et al. 2023, arXiv:2401.00448: minimise 6·N·D + 2·N·S over models of one loss, S being the samples served.
"""

from __future__ import annotations

import math

import numpy as np

from sizewise.errors import UsageError
from sizewise.laws.decide.draws import DRAWS, Belief, Status, belief, judged, refused
from sizewise.laws.decide.shortages import Shortages
from sizewise.laws.forecast import LEVEL
from sizewise.laws.intake.evidence import Array
from sizewise.records import Law, ServingOptimal

TRAINING, SERVING = 6.0, 2.0
"""FLOP for each parameter and sample: forward and backward; forward alone."""


def serving_optimal(
    law: Law,
    serving: float,
    *,
    target: float | None = None,
    compute: float | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> ServingOptimal:
    """The cheapest model, training and lifetime serving together, that has a given loss.

    Args:
        serving: samples (tokens) it will be asked for; 0 gives the model that is cheapest to train.
        target: its loss, in the law's units.
        compute: a training budget in FLOP instead: the loss is what the law says the budget reaches.

    Raises:
        UsageError: not exactly one of `target` and `compute`, or a number that is none.
    """
    given = [v for v in (target, compute) if v is not None]
    if len(given) != 1 or not all(math.isfinite(v) and v > 0 for v in given):
        raise UsageError(f"target {target}, compute {compute}", hint="give one of them, a positive number")
    if not (math.isfinite(serving) and serving >= 0):
        raise UsageError(f"{serving:g} samples to serve", hint="give how many samples the model will be asked for")
    if refusal := refused(law):
        return _none(serving, math.nan if target is None else target, 0.0, *refusal)
    held = belief(law, draws=draws, seed=seed, level=level)
    if target is not None:
        rest, drawn_rest = held.centre.log_rest_of(target), held.drawn.log_rest_of(target)
    else:
        assert compute is not None
        rest, drawn_rest = _best_rest(held.centre, compute), _best_rest(held.drawn, compute)
    reached = float(np.isfinite(drawn_rest).mean())
    each = _costs(held.centre, rest, serving)
    chosen = held.middle(each[0])
    if not (math.isfinite(float(rest[chosen])) and reached):
        floor = math.exp(float(held.centre.log_e[chosen]))
        why = f"the law does not reach {target:.4g}: its floor is {floor:.4g}"
        return _none(serving, float(target or math.nan), reached, "undetermined", why)
    loss = math.exp(float(np.logaddexp(held.centre.log_e[chosen], rest[chosen])))
    return _answer(held, serving, loss, each[:, chosen], _costs(held.drawn, drawn_rest, serving), reached, law)


def _best_rest(laws: Shortages, compute: float) -> Array:
    """log of what is left above the floor by the model with the lowest loss for a training budget, (rows,)."""
    log_product = math.log(compute / TRAINING)
    best = laws.optimal_log_params(log_product)
    return laws.log_rest(best, log_product - best)


def _costs(laws: Shortages, log_rest: Array, serving: float) -> Array:
    """Logs, (6, rows), inf where the loss is not reached: params, samples, training FLOP and lifetime FLOP, then params
    and lifetime FLOP of the model that is cheapest to train."""
    served = math.log(SERVING * serving) if serving > 0 else -math.inf
    with np.errstate(invalid="ignore"):  # of losses that no size reaches
        log_n, log_d = laws.at(laws.serving_logit(log_rest, serving * SERVING / TRAINING), log_rest)
        usual_n, usual_d = laws.at(laws.optimal_logit(), log_rest)
        training = math.log(TRAINING) + log_n + log_d
        lifetime = np.logaddexp(training, served + log_n)
        usual = np.logaddexp(math.log(TRAINING) + usual_n + usual_d, served + usual_n)
    found = np.stack([log_n, log_d, training, lifetime, usual_n, usual])
    return np.where(np.isfinite(log_rest), found, np.inf)


def _answer(
    held: Belief, serving: float, loss: float, value: Array, drawn: Array, reached: float, law: Law
) -> ServingOptimal:
    params, samples, training, lifetime, trained = (held.estimate(float(value[i]), drawn[i]) for i in range(5))
    able = np.isfinite(drawn[5])
    saved = held.plain(1 - math.exp(value[3] - value[5]), 1 - np.exp(drawn[3][able] - drawn[5][able]))
    status, reason = judged(law, params, "params")
    if reached < 0.5 + 0.5 * held.level:
        status, reason = "undetermined", f"only {reached:.0%} of the laws that the runs allow reach this loss at all"
    return ServingOptimal(serving, loss, params, samples, training, lifetime, trained, saved, reached, status, reason)


def _none(serving: float, target: float, reached: float, status: Status, reason: str) -> ServingOptimal:
    return ServingOptimal(serving, target, None, None, None, None, None, None, reached, status, reason)
