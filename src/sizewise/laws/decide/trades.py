"""What parameters are worth in samples: models of equal loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sizewise.errors import UsageError
from sizewise.laws.decide.draws import DRAWS, belief, judged, refused
from sizewise.laws.forecast import LEVEL, predict
from sizewise.records import Contour, Estimate, Law

FEWER = 0.1
FACTORS = (0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 2.8, 4.0)


def equal_loss(
    law: Law,
    params: float,
    samples: float,
    *,
    fewer: float = FEWER,
    factors: Sequence[float] = FACTORS,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Contour:
    """Models with the loss of one model. Each law that the runs allow has its own loss there, and its own contour.

    Args:
        params, samples: the model.
        fewer: share of the parameters to do without, in (0, 1).
        factors: what to multiply the parameters by for `places`.

    Raises:
        UsageError: a number that is not positive and finite, or `fewer` is no share.
    """
    if not all(math.isfinite(v) and v > 0 for v in (params, samples, *factors)) or not 0 < fewer < 1:
        raise UsageError(
            f"params {params:g}, samples {samples:g}, fewer {fewer:g}", hint="positive numbers, and fewer below 1"
        )
    if refusal := refused(law):
        return Contour(params, samples, None, None, fewer, None, None, (), *refusal)
    held = belief(law, draws=draws, seed=seed, level=level)
    log_n, log_d = math.log(params), math.log(samples)
    rest, drawn_rest = held.centre.log_rest(log_n, log_d), held.drawn.log_rest(log_n, log_d)

    def needed(factor: float) -> Estimate:
        """Samples, as a multiple of those it has."""
        each = held.centre.log_samples(log_n + math.log(factor), rest) - log_d
        drawn = held.drawn.log_samples(log_n + math.log(factor), drawn_rest) - log_d
        return held.estimate(float(each[held.middle(each)]), drawn)

    rates = held.centre.log_rate(log_n, log_d)
    least = held.centre.least_log_params(rest)
    more = needed(1 - fewer)
    status, reason = judged(law, more, f"the samples that {fewer:.0%} of the params are worth")
    return Contour(
        params=params,
        samples=samples,
        loss=predict(law, [{"params": params, "samples": samples}], level=level)[0],
        rate=held.estimate(float(rates[held.middle(rates)]), held.drawn.log_rate(log_n, log_d)),
        fewer=fewer,
        more=more,
        least=held.estimate(float(least[held.middle(least)]), held.drawn.least_log_params(drawn_rest)),
        places=tuple((params * f, _times(e, samples)) for f in factors if math.isfinite((e := needed(f)).value)),
        status=status,
        reason=reason,
    )


def _times(e: Estimate, factor: float) -> Estimate:
    return Estimate(e.value * factor, e.low * factor, e.high * factor, e.level, e.method, e.n)
