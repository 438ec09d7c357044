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
from sizewise.laws.evidence import Array, Evidence
from sizewise.laws.forms import Form, named
from sizewise.records import BackTest, Estimate, Law

LEVEL = 0.9
UNKNOWN_FORM = 0.1
"""The share of a predicted change by which all forms may be off together."""

PRIOR_INFLATION, PRIOR_ORIGINS = 0.5, 2.0
"""The correction of theory that is believed before any back-test, and how many back-tests that is worth. Together with
`UNKNOWN_FORM` it was set on laws that are known and on earlier parts of public curves and run sets; see `LOG.md`."""

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


def inflation(evidence: Evidence, found: Sequence[Contender], views: Sequence[Origin], leave: int = -1) -> float:
    """What to multiply the theoretical systematic variance by.

    It is the mean of its ratio to squared errors at the origins, shrunk to what is usual, times the series that
    residuals come in.

    Args:
        leave: an origin to leave out.
    """
    noise = scatter(found) ** 2
    total, count = PRIOR_ORIGINS * PRIOR_INFLATION, PRIOR_ORIGINS
    for i, view in enumerate(views):
        members = [c for c in found if i in c.origins]
        if not members or i == leave:
            continue
        at, near = _at_origin(evidence, members, i, view)
        error = float(np.mean((at.mean - evidence.log_y[~view.visible]) ** 2))
        theory = float(np.mean(at.spread**2 + (UNKNOWN_FORM * (at.mean - near.mean)) ** 2))
        # Parameters' uncertainty is left out of the theory here: near the evidence the other parts are as large.
        total += min(max(error - noise, 0.0) / (theory + 0.02 * noise + 1e-9), LARGEST_INFLATION)
        count += 1
    return total / count * _series(evidence, found)


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


def back_tests(evidence: Evidence, found: Sequence[Contender], views: Sequence[Origin]) -> tuple[BackTest, ...]:
    """How the forms together predicted each origin's hidden runs, with intervals that did not look at them."""
    tests = []
    for i in range(len(views)):
        members = [c for c in found if i in c.origins]
        if members:
            tests.append(_back_test(evidence, found, members, views, i))
    return tuple(tests)


def _back_test(
    evidence: Evidence, found: Sequence[Contender], members: Sequence[Contender], views: Sequence[Origin], i: int
) -> BackTest:
    hidden = ~views[i].visible
    at, near = _at_origin(evidence, members, i, views[i])
    beyond = (UNKNOWN_FORM * (at.mean - near.mean)) ** 2
    systematic = inflation(evidence, found, views, leave=i) * (at.spread**2 + beyond)
    half = _quantile(LEVEL, freedom(evidence, found)) * np.sqrt(scatter(found) ** 2 + systematic)
    error = at.mean - evidence.log_y[hidden]
    largest = np.flatnonzero(evidence.setting[hidden] == evidence.setting[hidden][evidence.scale[hidden].argmax()])
    one = largest[0]
    centre, reach = float(at.mean[one]), float(half[one])
    return BackTest(
        visible=int((~hidden).sum()),
        hidden=int(hidden.sum()),
        reach=views[i].reach,
        error=float(np.sqrt(np.mean(error**2))),
        covered=float(np.mean(np.abs(error) <= half)),
        predicted=Estimate(
            math.exp(centre),
            math.exp(centre - reach),
            math.exp(centre + reach),
            LEVEL,
            f"forecast from {int((~hidden).sum())} smaller {evidence.subject}",
            int((~hidden).sum()),
        ),
        observed=float(np.exp(evidence.log_y[hidden][largest].mean())),
        at=dict(zip(evidence.variables, map(float, evidence.x[hidden][one]), strict=True)),
    )


def _at_origin(evidence: Evidence, members: Sequence[Contender], i: int, view: Origin) -> tuple[Forecast, Forecast]:
    """Forecasts of the hidden runs, and of the nearest places to them that were visible; between forms only."""
    centre, hidden = centre_of(evidence), ~view.visible
    seen = evidence.log_x[view.visible]
    sized = _sized(evidence.variables)
    near = edge(evidence.log_x[hidden], np.stack([seen.min(axis=0), seen.max(axis=0)]), _largest(seen, sized), sized)
    weight = np.array([c.weight for c in members])
    weight = weight / weight.sum()
    answers = []
    for place in (evidence.log_x[hidden], near):
        each = np.stack([c.form.value(c.origins[i][None], place - centre)[0] for c in members])
        mean = weight @ each
        answers.append(Forecast(mean, np.sqrt(weight @ (each - mean) ** 2)))
    return answers[0], answers[1]


def _largest(log_x: Array, sized: int) -> float:
    return float(log_x[:, :sized].mean(axis=1).max())


def _sized(variables: Sequence[str]) -> int:
    return len(variables) - ("unique" in variables)


def forecast(law: Law, x: Array, *, runs: int = 1) -> Forecast:
    """The law's prediction of the mean of `runs` new runs at each point.

    Args:
        x: (points, variables) in their own units.
    """
    members = [(named(f.form, law.variables), f) for f in law.forms]
    log_x, centre = np.log(np.asarray(x, dtype=float)), np.array(law.centre)
    box = np.log(np.array([law.box[v] for v in law.variables])).T
    near = edge(log_x, box, law.largest, _sized(law.variables))
    weight = np.array([f.weight for _, f in members])
    at = np.stack([_of(form, f.theta, log_x - centre) for form, f in members])
    here = np.stack([_of(form, f.theta, near - centre) for form, f in members])
    mean = weight @ at
    between = weight @ (at - mean) ** 2
    variance = np.stack([_parameter_variance(form, f.theta, f.covariance, log_x - centre) for form, f in members])
    # The harmonic mean: a form that the evidence cannot pin down must not blur those that it can.
    within = 1 / (weight @ (1 / (variance + 1e-12)))
    single = law.scatter**2 - law.seed_scatter**2 * (1 - 1 / runs)
    beyond = (UNKNOWN_FORM * (mean - weight @ here)) ** 2
    return Forecast(mean, np.sqrt(max(single, 0.0) + law.inflation * (within + between + beyond)))


def _of(form: Form, theta: Sequence[float], x: Array) -> Array:
    return np.asarray(form.value(np.array([theta]), x)[0])


def _parameter_variance(form: Form, theta: Sequence[float], covariance: Sequence[Sequence[float]], x: Array) -> Array:
    slope = form.jacobian(np.array([theta]), x)[1][0]
    return np.asarray(np.einsum("pi,ij,pj->p", slope, np.array(covariance), slope))


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


__all__ = ["LEVEL", "Forecast", "back_tests", "forecast", "freedom", "inflation", "predict", "scatter"]
