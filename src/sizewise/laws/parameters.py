"""How sure a form's parameters are, if the form is right: by cluster bootstrap, and by profile likelihood."""

from __future__ import annotations

import numpy as np

from sizewise.laws import solve
from sizewise.laws.compete import Contender, centre_of, sandwich
from sizewise.laws.forecast import LEVEL
from sizewise.laws.forms import Form
from sizewise.laws.intake.evidence import Array, Evidence, Ints
from sizewise.records import Estimate
from sizewise.stats import percentile_interval

DRAWS = 400
PROFILE_STEPS = 24
PROFILE_REACH = 6.0
"""The profile is followed this many standard errors to either side."""


def bootstrap(evidence: Evidence, lead: Contender, draws: int = DRAWS, seed: int = 0) -> Array:
    """Refits to resamples, as parameters people write: (draws, parameters).

    Clusters are drawn with replacement, within their strata where every stratum has at least two of them.
    """
    x, centre = evidence.log_x - centre_of(evidence), centre_of(evidence)
    weights = resamples(evidence, draws, np.random.default_rng(seed))
    found = solve.refit(lead.form, lead.plain, x, evidence.log_y, weights, lead.delta)
    return lead.form.natural(lead.form.shifted(found.theta, -centre))


def resamples(evidence: Evidence, draws: int, rng: np.random.Generator) -> Array:
    """How often each row is drawn, times its weight: (draws, rows)."""
    _, first, cluster = np.unique(evidence.cluster, return_index=True, return_inverse=True)
    strata = _strata(evidence.stratum[first])
    counts = np.zeros((draws, len(first)))
    for members in strata:
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    times: Array = counts[:, cluster] * evidence.weight
    return times


def _strata(stratum: Ints) -> list[Ints]:
    groups = [np.flatnonzero(stratum == s) for s in np.unique(stratum)] if len(stratum) < 10_000 else []
    if not groups or min(map(len, groups)) < 2:
        return [np.arange(len(stratum))]
    return groups


def intervals(evidence: Evidence, lead: Contender, drawn: Array) -> dict[str, Estimate]:
    """Percentiles of the bootstrap around the fit."""
    value = lead.form.natural(lead.form.shifted(lead.plain[None], -centre_of(evidence)))[0]
    method = f"cluster bootstrap of {len(drawn)}, if the form is right"
    return {
        name: percentile_interval(drawn[:, j], float(value[j]), level=LEVEL, method=method, n=evidence.clusters)
        for j, name in enumerate(lead.form.names)
    }


def points(evidence: Evidence, contender: Contender) -> dict[str, Estimate]:
    """The parameters alone."""
    nan = float("nan")
    return {
        name: Estimate(value, nan, nan, LEVEL, "no interval: not the leading form", evidence.clusters)
        for name, value in written(evidence, contender.form, contender.plain).items()
    }


def written(evidence: Evidence, form: Form, theta: Array) -> dict[str, float]:
    """A fit's parameters by name, as people write them."""
    natural = form.natural(form.shifted(theta[None], -centre_of(evidence)))[0]
    return dict(zip(form.names, map(float, natural), strict=True))


def profile(evidence: Evidence, lead: Contender) -> dict[str, Estimate]:
    """Intervals from the profile of the loss: each parameter held at a series of values while the others are refitted.

    The loss is scaled by the residuals it leaves, and an interval ends where it has risen by t²/2 of that (Venzon &
    Moolgavkar 1988). Where it does not rise far enough the interval is open and ends at the last value that was tried.
    """
    form, size = lead.form, len(lead.plain)
    theta = form.shifted(lead.plain[None], -centre_of(evidence))[0]
    spread = _covariance(evidence, lead, theta)
    errors = np.sqrt(np.maximum(np.diag(spread), 1e-16))
    steps = np.linspace(-1, 1, PROFILE_STEPS + 1) * PROFILE_REACH
    # The others start where they would go if the loss were a paraboloid.
    along = spread / np.maximum(np.diag(spread), 1e-16)[None, :]
    starts = np.concatenate([theta + np.outer(steps * errors[j], along[:, j]) for j in range(size)])
    index = np.repeat(np.arange(size), len(steps))
    starts = form.bounds(evidence.log_x, evidence.log_y).clip(starts)
    # Uncentred logs: what is held has to be what people write.
    loss = solve.held(form, starts, index, evidence.log_x, evidence.log_y, evidence.weight, lead.delta)
    rises = np.maximum(loss - loss.min(), 0.0).reshape(size, len(steps))
    limit, found = _limit(evidence, lead), {}
    for j, name in enumerate(form.names):
        tried = starts[index == j, j]
        ends = [_crossing(tried, rises[j], limit, side) for side in (-1, 1)]
        natural = form.natural(np.array([_replaced(theta, j, value) for value in (theta[j], *ends)]))[:, j]
        found[name] = Estimate(
            float(natural[0]),
            float(natural[1]),
            float(natural[2]),
            LEVEL,
            "profile likelihood, if the form is right",
            evidence.clusters,
        )
    return found


def _covariance(evidence: Evidence, lead: Contender, theta: Array) -> Array:
    value, jacobian = lead.form.jacobian(theta[None], evidence.log_x)
    residual = value[0] - evidence.log_y
    bend = evidence.weight * np.minimum(1.0, lead.delta / np.maximum(np.abs(residual), 1e-300))
    hessian = jacobian[0].T @ (jacobian[0] * bend[:, None])
    noise = float((bend * residual**2).sum()) / max(len(residual) - len(theta), 1)
    size = np.sqrt(np.maximum(np.diag(hessian), 1e-300))
    inverse = np.linalg.pinv(hessian / np.outer(size, size), rcond=1e-12, hermitian=True) / np.outer(size, size)
    return np.asarray(inverse * noise)


def _limit(evidence: Evidence, lead: Contender) -> float:
    from scipy.special import stdtrit

    x = evidence.log_x - centre_of(evidence)
    residual = lead.form.value(lead.plain[None], x)[0] - evidence.log_y
    near = np.abs(residual) <= lead.delta
    freedom = max(evidence.clusters - len(lead.plain), 1)
    pull = float((evidence.weight * np.clip(residual, -lead.delta, lead.delta) ** 2).sum())
    share = max(float(np.average(near, weights=evidence.weight)), 0.05)
    noise = pull / share / freedom
    return float(0.5 * noise * stdtrit(freedom, 0.5 + LEVEL / 2) ** 2)


def _crossing(held: Array, rise: Array, limit: float, side: int) -> float:
    """Where the profile crosses the limit on one side of its middle, by linear interpolation."""
    middle = len(held) // 2
    order = range(middle, len(held) - 1) if side > 0 else range(middle, 0, -1)
    for i in order:
        j = i + side
        if rise[j] >= limit:
            share = (limit - rise[i]) / max(rise[j] - rise[i], 1e-300)
            return float(held[i] + min(max(share, 0.0), 1.0) * (held[j] - held[i]))
    return float(held[-1] if side > 0 else held[0])


def _replaced(theta: Array, index: int, value: float) -> Array:
    changed = theta.copy()
    changed[index] = value
    return changed


def wald(evidence: Evidence, lead: Contender) -> dict[str, Estimate]:
    """Intervals from the clustered sandwich covariance: for so many rows that a bootstrap would only repeat it."""
    from scipy.special import ndtri

    theta = lead.form.shifted(lead.plain[None], -centre_of(evidence))[0]
    x, delta = evidence.log_x - centre_of(evidence), np.array([lead.delta])
    covariance = sandwich(lead.form, lead.plain[None], x, evidence, evidence.weight[None], delta)[0]
    # theta in uncentred logs is a linear map of theta in centred ones.
    unit = np.eye(len(theta))
    back = lead.form.shifted(lead.plain + unit, -centre_of(evidence)) - theta
    errors = np.sqrt(np.maximum(np.diag(back.T @ covariance @ back), 0.0))
    half = float(ndtri(0.5 + LEVEL / 2)) * errors
    ends = lead.form.natural(np.stack([theta, theta - half, theta + half]))
    return {
        name: Estimate(
            float(ends[0, j]),
            float(ends[1, j]),
            float(ends[2, j]),
            LEVEL,
            "clustered sandwich, if the form is right",
            evidence.clusters,
        )
        for j, name in enumerate(lead.form.names)
    }
