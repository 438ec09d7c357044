"""What a law says about a run that was not made, and how far off it may be.

The variance of a prediction of log y is the scatter of single runs plus a systematic part. By theory this part is
the uncertainty of the forms' parameters, the disagreement between forms, and a share of the change that is predicted
beyond the evidence, since the true form may not be among them. Theory is then corrected by what the evidence shows of
itself: by how well hidden runs were predicted, and by whether residuals come in series of one sign, as they do where a
form is not quite right or where runs share their luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewise.laws.compete import Contender, Origin, centre_of
from sizewise.laws.forms import Form, named
from sizewise.laws.intake.evidence import Array, Evidence
from sizewise.records import BackTest, Estimate, Law

LEVEL = 0.9
UNKNOWN_FORM = 0.05
"""The share of a predicted change by which all forms may be off together."""

PRIOR_INFLATION, PRIOR_ORIGINS = 1.0, 0.5
"""Before any back-test theory is believed as it is, and so much that half a back-test weighs the same. Together with
`UNKNOWN_FORM` this was set on laws that are known and on earlier parts of public curves and run sets; see `LOG.md`."""

LARGEST_INFLATION = 10.0
LARGEST_SERIES = 0.8
FEWEST_FREEDOM, MOST_FREEDOM = 3.0, 30.0
WIDEST = 100.0
"""Half width of an interval of log y that says that nothing is known, and still has an exponential."""


@dataclass(frozen=True)
class Forecast:
    """Predictions of log y at some points: their mean and standard deviation, each (points,)."""

    mean: Array
    spread: Array


def edge(log_x: Array, box: Array, largest: float, sized: int) -> Array:
    """For each point the nearest place within the evidence: inside its box, and no larger than its largest run.

    Args:
        log_x: (points, variables); box: (2, variables), logs; largest: log geometric mean of the largest run.
    """
    inside = np.clip(log_x, box[0], box[1])
    over = np.maximum(inside[:, :sized].mean(axis=1) - largest, 0.0)
    inside[:, :sized] -= over[:, None]
    return inside


@dataclass(frozen=True)
class _Hindcast:
    """What the forms together said about the runs that an origin hid, each array (hidden,).

    Attributes:
        mean, error: predicted log y, and by how much it was off.
        theory: systematic variance by theory, from the forms and beyond them.
    """

    view: Origin
    mean: Array
    error: Array
    theory: Array


def calibrate(
    evidence: Evidence, found: Sequence[Contender], views: Sequence[Origin]
) -> tuple[float, tuple[BackTest, ...]]:
    """What to multiply the theoretical systematic variance by, and the back-tests that say so.

    The factor is the mean ratio of squared errors at the origins to what theory expected, shrunk to what is usual,
    times the series that residuals come in. The intervals of a back-test use the other back-tests only.
    """
    casts = [_hindcast(evidence, found, view, i) for i, view in enumerate(views) if any(i in c.origins for c in found)]
    noise, series = scatter(found) ** 2, _series(evidence, found)
    ratios = [_ratio(cast, noise) for cast in casts]
    quantile = _quantile(LEVEL, freedom(evidence, found))
    tests = []
    for i, cast in enumerate(casts):
        factor = series * _shrunk([*ratios[:i], *ratios[i + 1 :]])
        tests.append(_back_test(evidence, cast, quantile * np.sqrt(noise + factor * cast.theory)))
    return series * _shrunk(ratios), tuple(tests)


def _ratio(cast: _Hindcast, noise: float) -> float:
    """Squared errors beyond noise over their theory; a small share of noise keeps it finite where both are nothing."""
    excess = max(float(np.mean(cast.error**2)) - noise, 0.0)
    return min(excess / (float(cast.theory.mean()) + 0.02 * noise + 1e-9), LARGEST_INFLATION)


def _shrunk(ratios: Sequence[float]) -> float:
    return (PRIOR_ORIGINS * PRIOR_INFLATION + sum(ratios)) / (PRIOR_ORIGINS + len(ratios))


def _series(evidence: Evidence, found: Sequence[Contender]) -> float:
    """How many runs are worth one independent run, (1 + r)/(1 - r), from the correlation r of neighbours' residuals."""
    # Rounded, so that runs as large as each other stay in order of their parameters whatever the units.
    order = np.lexsort((evidence.log_x[:, 0], np.round(evidence.scale - evidence.scale.min(), 6)))
    x, log_y = (evidence.log_x - centre_of(evidence))[order], evidence.log_y[order]
    r = 0.0
    for c in found:
        residual = c.form.value(c.theta[None], x)[0] - log_y
        far = 2 * float(np.median(np.abs(residual)))
        clipped = np.clip(residual, -far, far)
        r += c.weight * float((clipped[1:] * clipped[:-1]).sum()) / max(float((clipped**2).sum()), 1e-300)
    r = min(max(r, 0.0), LARGEST_SERIES)
    return (1 + r) / (1 - r)


def freedom(evidence: Evidence, found: Sequence[Contender]) -> float:
    """Degrees of freedom of a prediction: runs left after what was fitted."""
    average = sum(c.weight * len(c.form.names) for c in found)
    return float(min(max(len(evidence.y) - average, FEWEST_FREEDOM), MOST_FREEDOM))


def scatter(found: Sequence[Contender]) -> float:
    """Standard deviation of log y of a new run around the forms, the harmonic mean of theirs."""
    return float(1 / math.sqrt(sum(c.weight / c.variance for c in found)))


def _back_test(evidence: Evidence, cast: _Hindcast, half: Array) -> BackTest:
    """`half` is half the width of each hidden run's interval, (hidden,)."""
    visible, hidden = cast.view.visible, ~cast.view.visible
    setting, count = evidence.setting[hidden], int(visible.sum())
    largest = np.flatnonzero(setting == setting[evidence.scale[hidden].argmax()])
    one = largest[0]
    centre, reach = float(cast.mean[one]), float(half[one])
    method = f"forecast from {count} smaller {evidence.subject}"
    return BackTest(
        visible=count,
        hidden=int(hidden.sum()),
        reach=cast.view.reach,
        error=float(np.sqrt(np.mean(cast.error**2))),
        covered=float(np.mean(np.abs(cast.error) <= half)),
        predicted=Estimate(math.exp(centre), math.exp(centre - reach), math.exp(centre + reach), LEVEL, method, count),
        observed=float(np.exp(evidence.log_y[hidden][largest].mean())),
        at=dict(zip(evidence.variables, map(float, evidence.x[hidden][one]), strict=True)),
    )


def _hindcast(evidence: Evidence, found: Sequence[Contender], view: Origin, i: int) -> _Hindcast:
    """The forms as fitted to what origin i leaves visible, at the hidden runs and at the places nearest to them."""
    members = [c for c in found if i in c.origins]
    centre, hidden, sized = centre_of(evidence), ~view.visible, _sized(evidence.variables)
    seen = evidence.log_x[view.visible]
    near = edge(evidence.log_x[hidden], np.stack([seen.min(axis=0), seen.max(axis=0)]), _largest(seen, sized), sized)
    weight = np.array([c.weight for c in members])
    fits = [(c.form, *c.origins[i]) for c in members]
    said = _together(fits, weight / weight.sum(), evidence.log_x[hidden] - centre, near - centre)
    return _Hindcast(view, said.mean, said.mean - evidence.log_y[hidden], said.theory)


@dataclass(frozen=True)
class _Said:
    """What forms say together at some points: log y, and in what they may be off together, variances each (points,).

    Attributes:
        within: by the uncertainty of their parameters.
        between: by their disagreement.
        beyond: by a share of the change that they predict beyond the evidence.
    """

    mean: Array
    within: Array
    between: Array
    beyond: Array

    @property
    def theory(self) -> Array:
        return self.within + self.between + self.beyond


def _together(fits: Sequence[tuple[Form, Array, Array]], weight: Array, x: Array, near: Array) -> _Said:
    """
    Args:
        fits: each form with its theta and covariance; weight: (forms,), summing to 1.
        x: (points, variables) around the forms' centre; near: the places within the evidence that are nearest to them.
    """
    at, within, here = [], [], []
    for form, theta, covariance in fits:
        value, slope = form.jacobian(theta[None], x)
        at.append(value[0])
        within.append(np.einsum("pi,ij,pj->p", slope[0], covariance, slope[0]))
        here.append(form.value(theta[None], near)[0])
    mean = weight @ np.stack(at)
    return _Said(
        mean=mean,
        # The harmonic mean: a form that the evidence cannot pin down must not blur those that it can.
        within=1 / (weight @ (1 / (np.stack(within) + 1e-12))),
        between=weight @ (np.stack(at) - mean) ** 2,
        beyond=(UNKNOWN_FORM * (mean - weight @ np.stack(here))) ** 2,
    )


def _largest(log_x: Array, sized: int) -> float:
    return float(log_x[:, :sized].mean(axis=1).max())


def _sized(variables: Sequence[str]) -> int:
    return len(variables) - ("unique" in variables)


def forecast(law: Law, x: Array, *, runs: int = 1) -> Forecast:
    """The law's prediction of the mean of `runs` new runs at each point.

    Args:
        x: (points, variables) in their own units.
    """
    fits = [(named(f.form, law.variables), np.array(f.theta), np.array(f.covariance)) for f in law.forms]
    log_x, centre = np.log(np.asarray(x, dtype=float)), np.array(law.centre)
    box = np.log(np.array([law.box[v] for v in law.variables])).T
    near = edge(log_x, box, law.largest, _sized(law.variables))
    said = _together(fits, np.array([f.weight for f in law.forms]), log_x - centre, near - centre)
    single = law.scatter**2 - law.seed_scatter**2 * (1 - 1 / runs)
    return Forecast(said.mean, np.sqrt(max(single, 0.0) + law.inflation * said.theory))


def predict(law: Law, points: Sequence[dict[str, float]], *, runs: int = 1, level: float = LEVEL) -> list[Estimate]:
    """The mean of `runs` new runs at each point, with the interval that is to hold it.

    Args:
        points: for each the law's variables by name, in the units the law was fitted in.
        level: nominal coverage in (0, 1).
    """
    if not law.forms:
        return [Estimate(math.nan, math.nan, math.nan, level, f"no law: {law.reason}", 0) for _ in points]
    x = np.array([[point[v] for v in law.variables] for point in points], dtype=float).reshape(-1, len(law.variables))
    said = forecast(law, x, runs=runs)
    half = np.minimum(_quantile(level, law.freedom) * said.spread, WIDEST)
    box = np.array([law.box[v] for v in law.variables])
    beyond = ((x < box[:, 0] * (1 - 1e-9)) | (x > box[:, 1] * (1 + 1e-9))).any(axis=1)
    beyond |= np.log(x[:, : _sized(law.variables)]).mean(axis=1) > law.largest + 1e-9
    return [
        Estimate(
            float(np.exp(mean)),
            float(np.exp(mean - h)),
            float(np.exp(mean + h)),
            level,
            f"{len(law.forms)} forms weighed by back-tests, {'beyond' if out else 'within'} the evidence",
            law.runs,
        )
        for mean, h, out in zip(said.mean, half, beyond, strict=True)
    ]


def _quantile(level: float, freedom: float) -> float:
    from scipy.special import stdtrit  # scipy.stats has the same, and takes longer to import than a law to fit

    return float(stdtrit(freedom, 0.5 + level / 2))


__all__ = ["LEVEL", "Forecast", "calibrate", "forecast", "freedom", "predict", "scatter"]
