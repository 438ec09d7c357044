"""Lets forms compete: each is fitted to all runs and, again and again, without the largest ones, which it must predict.

In all of these fits larger runs weigh more, by the square root of their scale: a law is asked for what lies beyond its
largest runs, and a form that is a little wrong must be right at that end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sizewise.laws import solve
from sizewise.laws.forms import Form
from sizewise.laws.intake.evidence import Array, Evidence

HIDDEN = (2.0, 4.0, 8.0)
"""Rolling origins: runs whose scale is above the largest's divided by these are hidden. For parameters and samples
together the scale is their geometric mean, so that hidden runs reach 4, 16 and 64 times as far in compute."""

FEWEST_VISIBLE = 4
"""Different settings that an origin must leave to see, and a form needs one more than it has parameters."""

TRUST_IN_BACKTESTS = 0.1
"""How much a squared error of prediction counts beside one of fit. On 53 learning curves and eight sets of language
models 0.05 to 0.3 are equally good; 1 is worse, since the error far back says little about the end."""

MOST_LEVERAGE = 0.9
LEAST_BENT = 0.2
"""Bounds of the sandwich: of a run's leverage, and of the share of runs whose residuals Huber's loss does not bound."""


@dataclass(frozen=True)
class Origin:
    """A view of the evidence with its largest runs hidden. `visible` is (rows,); `reach` as in `BackTest`."""

    visible: np.typing.NDArray[np.bool_]
    reach: float


@dataclass(frozen=True)
class Contender:
    """A form, fitted.

    Attributes:
        plain: the fit in which all runs weigh the same, (parameters,), its mean loss and Huber's delta.
        theta, covariance: the fit that predicts.
        variance: mean squared residual of that fit, larger runs weighing more, corrected for what was fitted.
        origins: index of each origin it was fitted at, and its theta and covariance there.
        error: mean squared log error over the hidden runs of its origins; NaN without one.
        weight: its share.
    """

    form: Form
    plain: Array
    objective: float
    delta: float
    agreeing: float
    theta: Array
    covariance: Array
    variance: float
    origins: dict[int, tuple[Array, Array]]
    error: float
    weight: float = 0.0


def origins(evidence: Evidence) -> list[Origin]:
    """The views that leave enough to see, nearest first."""
    found: list[Origin] = []
    top = evidence.scale.max()
    sized = len(evidence.variables) - ("unique" in evidence.variables)
    for factor in HIDDEN:
        visible = evidence.scale <= top - np.log(factor) + 1e-9
        if np.unique(evidence.setting[visible]).size < FEWEST_VISIBLE or visible.mean() < 0.1:
            continue
        if not any((visible == other.visible).all() for other in found) and not visible.all():
            reach = float(np.exp(sized * (top - evidence.scale[visible].max())))
            found.append(Origin(visible, reach))
    return found


def centre_of(evidence: Evidence) -> Array:
    """log of the variables around which forms are fitted; samples and unique samples share theirs."""
    centre: Array = evidence.log_x.mean(axis=0)
    if "unique" in evidence.variables:
        centre[2] = centre[1]
    return centre


def compete(
    evidence: Evidence, forms: tuple[Form, ...], views: list[Origin], delta: float | None = None
) -> list[Contender]:
    """Fit every form that the evidence can carry; heaviest first."""
    found = [c for form in forms if (c := _contend(form, evidence, views, delta)) is not None]
    return sorted(_weighed(found), key=lambda c: -c.weight)


def _contend(form: Form, evidence: Evidence, views: list[Origin], delta: float | None) -> Contender | None:
    parameters = len(form.names)
    seen = [np.unique(evidence.setting[view.visible]).size for view in views]
    if evidence.settings < parameters + 1:
        return None
    usable = [i for i, settings in enumerate(seen) if settings >= parameters + 1]
    everything = np.ones(len(evidence.y), dtype=bool)
    rows = [evidence.weight, recency(evidence, everything), *(recency(evidence, views[i].visible) for i in usable)]
    x = evidence.log_x - centre_of(evidence)
    weights = np.stack(rows)
    found = solve.search(form, x, evidence.log_y, weights, delta)
    residual = form.value(found.theta[1:], x) - evidence.log_y
    errors = [float(np.mean(residual[1 + j][~views[i].visible] ** 2)) for j, i in enumerate(usable)]
    m = evidence.settings
    spread = float(np.average(residual[0] ** 2, weights=weights[1])) * m / max(m - parameters, 1)
    covariance = sandwich(form, found.theta[1:], x, evidence, weights[1:], found.delta[1:])
    return Contender(
        form=form,
        plain=found.theta[0],
        objective=float(found.loss[0]),
        delta=float(found.delta[0]),
        agreeing=float(found.agreeing[0]),
        theta=found.theta[1],
        covariance=covariance[0],
        variance=max(spread, solve.LEAST_SCALE**2),
        origins={i: (found.theta[2 + j], covariance[1 + j]) for j, i in enumerate(usable)},
        error=float(np.mean(errors)) if errors else float("nan"),
    )


def recency(evidence: Evidence, visible: np.typing.NDArray[np.bool_]) -> Array:
    """Weights of the visible runs, (rows,), mean 1 over them; 0 for the others."""
    scale = evidence.scale
    weight = np.where(visible, evidence.weight * np.exp(0.5 * (scale - scale[visible].max())), 0.0)
    normal: Array = weight / weight[visible].mean()
    return normal


def _weighed(found: list[Contender]) -> list[Contender]:
    """Weights in inverse proportion to squared errors, of fit and of prediction."""
    known = [c.error for c in found if np.isfinite(c.error)]
    typical = float(np.mean(known)) if known else 0.0
    cost = np.array(
        [c.variance + TRUST_IN_BACKTESTS * (c.error if np.isfinite(c.error) else typical) + 1e-10 for c in found]
    )
    shares = (1 / cost) / (1 / cost).sum() if found else cost
    return [replace(c, weight=float(share)) for c, share in zip(found, shares, strict=True)]


def sandwich(form: Form, theta: Array, x: Array, evidence: Evidence, weights: Array, delta: Array) -> Array:
    """Covariance of each theta, allowing for clusters and for a form that is not quite right (Huber 1967; Liang & Zeger
    1986). Residuals are divided by 1 - leverage, since a run that pulls the fit towards itself leaves a small one (HC3,
    MacKinnon & White 1985). Directions that the evidence does not determine are left out: other forms speak for them.

    Args:
        theta: (rows, parameters); x: (points, variables); weights: (rows, points); delta: Huber's, (rows,).

    Returns:
        (rows, parameters, parameters).
    """
    value, slope = form.jacobian(theta, x)
    residual, delta = value - evidence.log_y, delta[:, None]
    hessian = np.matmul((slope * weights[:, :, None]).transpose(0, 2, 1), slope)
    size = np.sqrt(np.maximum(np.einsum("kii->ki", hessian), 1e-300))
    unit = size[:, :, None] * size[:, None, :]
    pull = np.matmul(slope, np.linalg.pinv(hessian / unit, rcond=1e-8, hermitian=True) / unit)
    leverage = np.minimum(weights * (pull * slope).sum(axis=2), MOST_LEVERAGE)
    # Huber's loss is bent by those residuals alone that it does not bound.
    bent = (weights * (np.abs(residual) <= delta)).sum(axis=1) / weights.sum(axis=1)
    moves = pull * (weights * np.clip(residual / (1 - leverage), -delta, delta))[:, :, None]
    moves = _by_cluster(moves, evidence) / np.maximum(bent, LEAST_BENT)[:, None, None]
    return np.asarray(np.matmul(moves.transpose(0, 2, 1), moves))


def _by_cluster(moves: Array, evidence: Evidence) -> Array:
    """Sums of the rows of each cluster, (rows, clusters, parameters), larger where there are few clusters."""
    _, rows, parameters = moves.shape
    groups = evidence.clusters
    if groups == rows:
        return moves
    _, cluster = np.unique(evidence.cluster, return_inverse=True)
    order = np.argsort(cluster, kind="stable")
    summed = np.add.reduceat(moves[:, order], np.searchsorted(cluster[order], np.arange(groups)), axis=1)
    # Leverages are those of single rows; what few clusters cost beyond them follows from degrees of freedom.
    few = groups / max(groups - parameters, 1) * (1 - min(parameters / rows, 0.5))
    return np.asarray(summed * np.sqrt(max(few, 1.0)))
