"""Which run to make next: the one that most reduces the uncertainty of a decision per unit of cost.

What is believed is a joint normal distribution of the decision and of log y at every candidate. Within a form it comes
from the form's parameters, linearised at the fit (c-optimal design: Elfving 1952, "Optimum Allocation in Linear
Regression Theory"; Chaloner & Verdinelli 1995, "Bayesian Experimental Design: A Review", section 2); between forms from
their disagreement, so that a run that tells forms apart is worth making. A run at candidate j, with k_j the covariance
of its log y with the decision, v_j its variance and s² that of its noise, takes k_j²/(s² + v_j) off the variance of the
decision, whatever its outcome. Batches are chosen one run after the other, each seeing the belief that the runs before
it leave (Fedorov 1972, "Theory of Optimal Experiments").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sizewise.errors import UsageError
from sizewise.laws.decide import optimal_log_params
from sizewise.laws.forms import Form, named
from sizewise.laws.intake.evidence import Array, Ints
from sizewise.records import DesignedRun, Law

Place = tuple[float, ...]

LEVEL = 0.9
FLOP_PER_SAMPLE = 6.0
"""FLOP a parameter and sample: forward and backward (Kaplan et al. 2020, arXiv:2001.08361, section 2.1)."""

WEAK = 3.0
"""Standard deviation of what is believed of an exponent, or of an amplitude as a multiple of y, before any run. It only
speaks where the runs say nothing."""

MOST_RUNS = 100
LEAST_NOISE = 1e-6
STEP = 1e-4


class Decision(Protocol):
    """A smooth function of a law's parameters: what the runs are for."""

    def of(self, form: Form, theta: Array) -> Array:
        """Its value for each theta, (rows, parameters) in uncentred logs -> (rows,)."""


@dataclass(frozen=True)
class OptimalParams:
    """log of the parameter count with the lowest loss when parameters × samples × `flop` = `compute` (FLOP)."""

    compute: float
    flop: float = FLOP_PER_SAMPLE

    def of(self, form: Form, theta: Array) -> Array:
        product = math.log(self.compute / self.flop)
        best = optimal_log_params(form, theta, product)
        return np.where((best > 0) & (best < product), best, np.nan)  # at an end nothing is decided


@dataclass(frozen=True)
class LossAt:
    """log y at a point, given by the law's variables in their own units."""

    point: dict[str, float]

    def of(self, form: Form, theta: Array) -> Array:
        missing = [v for v in form.variables if not self.point.get(v, 0) > 0]
        if missing:
            raise UsageError(
                f"the target point has no positive {' and '.join(missing)}", hint=f"give {' and '.join(form.variables)}"
            )
        return form.value(theta, np.log([[self.point[v] for v in form.variables]]))[:, 0]


@dataclass(frozen=True)
class Belief:
    """A joint normal belief of the decision (index 0) and of log y at each candidate.

    Attributes:
        root: (1 + candidates, rank); root @ root.T is the covariance.
        runs: how many were made at each candidate, (candidates,).
        seed, setting: variance of log y between repeats of a setting, and of settings around the law.
        sources: what the decision's variance is made of, in words, largest first; the shares sum to 1.
    """

    root: Array
    runs: Ints
    seed: float
    setting: float
    sources: tuple[tuple[str, float], ...] = ()

    @property
    def variance(self) -> float:
        """Of the decision."""
        return float(self.root[0] @ self.root[0])

    @property
    def noise(self) -> Array:
        """Variance of what one more run says about the law, (candidates,).

        The mean of n repeats is off by setting + seed/n, so one more is worth the difference of two precisions: a
        repeat says less than a new setting where the law itself is a little off.
        """
        before = self.runs / (self.seed + self.runs * self.setting)
        after = (self.runs + 1) / (self.seed + (self.runs + 1) * self.setting)
        return np.asarray(1 / np.maximum(after - before, 1e-12))

    @property
    def gains(self) -> Array:
        """Variance of the decision that one run at each candidate removes, (candidates,)."""
        of_candidates = self.root[1:]
        return np.asarray((of_candidates @ self.root[0]) ** 2 / (self.noise + (of_candidates**2).sum(axis=1)))

    def after(self, candidate: int) -> Belief:
        """What is believed once a run has been made there, whatever its outcome.

        A Kalman update of the covariance's root (Potter 1963), which stays a covariance under rounding.
        """
        row, noise = self.root[candidate + 1], float(self.noise[candidate])
        total = noise + float(row @ row)
        left = self.root - np.outer(self.root @ row, row / (total + math.sqrt(noise * total)))
        runs = self.runs.copy()
        runs[candidate] += 1
        return replace(self, root=left, runs=runs)


def next_runs(
    law: Law,
    candidates: Array,
    decision: Decision,
    budget: float,
    *,
    cost: Array | None = None,
    level: float = LEVEL,
    most: int = MOST_RUNS,
) -> tuple[DesignedRun, ...]:
    """The runs to make next, best first, until the budget is spent.

    Args:
        candidates: settings that could be run, (candidates, variables) in the law's units and order. One that was run
            before stands for a repeat of it with another seed; a setting may be chosen several times.
        budget: what all chosen runs together may cost, in the unit of `cost`.
        cost: of a run at each candidate, (candidates,); None takes `default_cost`.
        level: nominal coverage of the intervals whose widths are reported.
        most: at most this many runs.

    Raises:
        UsageError: there is no law, or no usable or affordable candidate.
    """
    if not law.forms:
        raise UsageError(f"there is no law to plan with: {law.reason}", hint="make a first sweep of several sizes")
    x = _checked(candidates, law.variables)
    price = default_cost(law.variables, x) if cost is None else _checked_cost(cost, len(x))
    if not (price <= budget).any():
        raise UsageError(
            f"the cheapest candidate costs {price.min():.3g}, the budget is {budget:.3g}",
            hint="raise the budget or add smaller candidates",
        )
    start = belief(law, x, decision)
    scale = 2 * _quantile(level, law.freedom) * math.sqrt(law.inflation)
    chosen = greedy(start, price, budget, most)
    if len(chosen) == most:  # the budget is not what limits them, so that a dearer run may be worth more in all
        chosen = min(chosen, greedy(start, price, budget, most, thrifty=False), key=lambda c: c[-1][1].variance)
    return tuple(
        DesignedRun(
            at=dict(zip(law.variables, map(float, x[i]), strict=True)),
            repeats=int(held.runs[i]) - 1,
            cost=float(price[i]),
            width=scale * math.sqrt(held.variance),
            removed=1 - math.sqrt(held.variance / start.variance) if start.variance else 0.0,
        )
        for i, held in chosen
    )


def greedy(
    held: Belief, price: Array, budget: float, most: int = MOST_RUNS, *, thrifty: bool = True
) -> list[tuple[int, Belief]]:
    """Candidates in the order in which they are chosen, each with the belief that it leaves.

    Args:
        thrifty: choose by what a run gains for its cost, and not by what it gains.
    """
    chosen: list[tuple[int, Belief]] = []
    while len(chosen) < most and (price <= budget).any():
        worth = np.where(price <= budget, held.gains / (price if thrifty else 1.0), -1.0)
        best = int(worth.argmax())
        if worth[best] <= 0:
            break
        held, budget = held.after(best), budget - float(price[best])
        chosen.append((best, held))
    return chosen


def belief(law: Law, x: Array, decision: Decision) -> Belief:
    """What a law's forms together say about the decision and about log y at x, (candidates, variables).

    Raises:
        UsageError: no form has a finite decision.
    """
    seed, setting = _noises(law)
    runs = _times(law)
    precision = {at: n / (seed + n * setting) for at, n in runs.items()}
    weights, means, roots, names = [], [], [], []
    for fitted in law.forms:
        form, theta = named(fitted.form, law.variables), np.array(fitted.theta)
        mean, slopes = _linear(decision, form, theta, np.array(law.centre), np.log(x))
        if np.isfinite(mean).all() and np.isfinite(slopes).all():
            names.append(fitted.form)
            weights.append(fitted.weight)
            means.append(mean)
            roots.append(_root(slopes, form, theta, law, precision))
    if not weights:
        raise UsageError(
            "none of the law's forms has a finite decision", hint="fit more sizes and amounts of data, or ask for less"
        )
    share = np.sqrt(np.array(weights) / sum(weights))
    apart = np.stack(means) - share**2 @ np.stack(means)
    parts = [r * s for r, s in zip(_even(roots, share**2), share, strict=True)]
    root = np.concatenate([*parts, (apart * share[:, None]).T], axis=1)
    made = np.array([runs.get(tuple(row), 0) for row in np.round(np.log(x), 9).tolist()], dtype=np.int64)
    each = {
        f"what the {name} form leaves open": float(part[0] @ part[0]) for name, part in zip(names, parts, strict=True)
    }
    each["that the forms disagree"] = float(share**2 @ apart[:, 0] ** 2)
    total = sum(each.values()) + 1e-300
    sources = sorted(((source, variance / total) for source, variance in each.items()), key=lambda s: -s[1])
    return Belief(root, made, seed, setting, tuple(sources))


def _even(roots: list[Array], weight: Array) -> list[Array]:
    """Roots of which none makes the decision less certain than the harmonic mean of all: as in predictions, a form that
    the runs leave open must not hide what they tell apart."""
    variance = np.array([float(r[0] @ r[0]) for r in roots]) + 1e-300
    usual = 1 / float(weight @ (1 / variance))
    return [r * min(1.0, math.sqrt(usual / v)) for r, v in zip(roots, variance, strict=True)]


def _times(law: Law) -> dict[Place, int]:
    """How many runs each setting had, by the logs of its variables."""
    settings, counts = np.unique(np.round(np.log([p[:-1] for p in law.points]), 9), axis=0, return_counts=True)
    thinned = max(law.runs / len(law.points), 1.0)
    return {tuple(s): round(float(c) * thinned) for s, c in zip(settings.tolist(), counts, strict=True)}


def _noises(law: Law) -> tuple[float, float]:
    """Variances of log y: between repeats of a setting, and of settings around the law.

    Without repeats all of the scatter counts as luck.
    """
    total = max(law.scatter, LEAST_NOISE) ** 2
    seed = law.seed_scatter**2 if law.seed_scatter > LEAST_NOISE else total
    return min(seed, total), max(total - seed, 0.0)


def _root(slopes: Array, form: Form, theta: Array, law: Law, precision: dict[Place, float]) -> Array:
    """Root of the covariance that theta's gives to what has these slopes, (rows, parameters) both.

    Theta's precision is that of the runs, and of a weak prior where they say nothing. The covariance of the fit itself
    leaves out what the runs do not determine, which is what the next run is for.
    """
    doubt = _doubt(form, theta, float(np.mean(np.log([p[-1] for p in law.points]))))
    seen = form.jacobian(theta[None], np.array(list(precision)) - np.array(law.centre))[1][0] * doubt
    known = seen.T @ (seen * np.array(list(precision.values()))[:, None]) + np.eye(len(theta))
    return np.asarray(np.linalg.solve(np.linalg.cholesky(known), (slopes * doubt).T).T)


def _doubt(form: Form, theta: Array, log_level: float) -> Array:
    """Standard deviations of theta before any run, (parameters,).

    An amplitude that was fitted as next to nothing may yet be as large as y, however far that is in its logarithm:
    otherwise a floor that no run has shown would be taken for one that is not there.
    """
    natural = form.natural(theta[None])[0]
    amplitude = ~np.isclose(natural, theta)
    room = np.exp(log_level) / np.maximum(np.abs(natural), 1e-12)
    return np.asarray(WEAK * np.where(amplitude, np.maximum(room, 1.0), 1.0))


def _linear(decision: Decision, form: Form, theta: Array, centre: Array, log_x: Array) -> tuple[Array, Array]:
    """The decision and log y at x, and their gradients: (1 + candidates,) and (1 + candidates, parameters).

    That of the decision is by central differences.
    """
    size, steps = len(theta), STEP * np.eye(len(theta))
    rows = np.concatenate([theta[None], theta + steps, theta - steps])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = decision.of(form, form.shifted(rows, -centre))
        gradient = (values[1 : size + 1] - values[size + 1 :]) / (2 * STEP)
    log_y, jacobian = form.jacobian(theta[None], log_x - centre)
    return np.append(values[0], log_y[0]), np.concatenate([gradient[None], jacobian[0]])


def default_cost(variables: Sequence[str], x: Array) -> Array:
    """FLOP of a run, 6·N·D; for a law of one variable that variable itself. Shape (candidates,)."""
    price: Array = FLOP_PER_SAMPLE * x[:, 0] * x[:, 1] if len(variables) > 1 else x[:, 0].copy()
    return price


def lattice(law: Law, largest_cost: float, *, reach: float = 2.0, steps: int = 12) -> Array:
    """Settings evenly spaced in logs, of at most this cost, from the smallest run's to `reach` times the largest's.

    Args:
        steps: how many values of each variable.

    Returns:
        (candidates, variables).
    """
    axes = [np.geomspace(low, high * reach, steps) for low, high in (law.box[v] for v in law.variables)]
    x = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    if "unique" in law.variables:
        x = x[x[:, 2] <= x[:, 1]]
    return np.asarray(x[default_cost(law.variables, x) <= largest_cost])


def _checked(candidates: Array, variables: Sequence[str]) -> Array:
    x = np.asarray(candidates, dtype=float)
    hint = f"one row a candidate, with positive {' and '.join(variables)}"
    if x.size == 0:
        raise UsageError("there is no candidate to choose from", hint=hint)
    if x.ndim != 2 or x.shape[1] != len(variables):
        raise UsageError(f"candidates of shape {x.shape} for a law of {len(variables)} variables", hint=hint)
    bad = np.flatnonzero(~(np.isfinite(x) & (x > 0)).all(axis=1))
    if len(bad):
        raise UsageError(f"candidate {bad[0]} is {x[bad[0]].tolist()}, not positive numbers", hint=hint)
    return x


def _checked_cost(cost: Array, candidates: int) -> Array:
    price = np.asarray(cost, dtype=float)
    if price.shape != (candidates,):
        raise UsageError(f"costs of shape {price.shape} for {candidates} candidates", hint="one cost a candidate")
    if not (np.isfinite(price) & (price > 0)).all():
        raise UsageError("a cost is not a positive number", hint="every run costs something; use any one unit")
    return price


def _quantile(level: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2))


__all__ = [
    "Belief",
    "Decision",
    "LossAt",
    "OptimalParams",
    "belief",
    "default_cost",
    "greedy",
    "lattice",
    "next_runs",
]
