"""What is believed of a law, as a batch of laws: its forms by weight, each with its parameters' uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sizewise.laws.decide.shortages import Shortages
from sizewise.laws.forecast import LEVEL
from sizewise.laws.forms import named
from sizewise.laws.intake.evidence import Array
from sizewise.records import Estimate, FittedForm, Law
from sizewise.stats import percentile_interval

DRAWS = 400
MOST_LOG = 700.0
TIED = 0.98
"""Correlation of log params and log samples above which their trade cannot be told."""

WINDOW = 2.0
"""A form with so many times less weight than the heaviest has no say, since a decision is not an average: weights go by
squared errors, so it leaves at least twice their variance (Occam's window, Madigan & Raftery 1994)."""

WIDE = 10.0
"""An interval that ends so many times above its beginning does not say what to do."""


@dataclass(frozen=True)
class Belief:
    """A law and what else it might be.

    Attributes:
        centre: the fits themselves, one law a form, heaviest first; weight: (forms,), summing to 1.
        drawn: (draws,) laws, as many of each form as it has weight.
        runs: how many stand behind them.
        level: nominal coverage of intervals.
    """

    centre: Shortages
    weight: Array
    drawn: Shortages
    runs: int
    level: float

    @property
    def method(self) -> str:
        return f"{len(self.drawn.alpha)} draws from {len(self.weight)} forms by weight"

    def middle(self, log_value: Array) -> int:
        """The form whose value, (forms,), is the weighted median of all: its numbers belong together."""
        order = np.argsort(log_value, kind="stable")
        share = np.cumsum(self.weight[order])
        return int(order[np.searchsorted(share, 0.5 - 1e-12)])

    def estimate(self, log_value: float, log_drawn: Array) -> Estimate:
        """A positive quantity from the logarithms of its value and of its draws, which may be infinite."""
        tail = 0.5 * (1 - self.level)
        ordered = np.sort(log_drawn)
        last = len(ordered) - 1
        low, high = ordered[math.floor(tail * last)], ordered[math.ceil((1 - tail) * last)]
        least, most = exponential(min(float(low), log_value)), exponential(max(float(high), log_value))
        return Estimate(exponential(log_value), least, most, self.level, self.method, self.runs)

    def plain(self, value: float, drawn: Array) -> Estimate:
        """A quantity that may be zero, from its value and draws themselves."""
        return percentile_interval(drawn, value, level=self.level, method=self.method, n=self.runs)


def exponential(log_value: float) -> float:
    """exp, with infinity instead of an overflow, and never 0."""
    return math.inf if log_value > MOST_LOG else math.exp(max(log_value, -MOST_LOG))


Status = Literal["supported", "undetermined", "unreliable", "insufficient"]


def refused(law: Law) -> tuple[Status, str] | None:
    """Why this law decides nothing: a status and a reason, or None."""
    if law.status != "supported" or not law.forms:
        return (law.status if law.status != "supported" else "insufficient"), law.reason
    if law.variables != ("params", "samples"):
        return "insufficient", f"a law of {' and '.join(law.variables)} does not say how params and samples trade"
    x = np.log([p[:2] for p in law.points])
    if (np.ptp(x, axis=0) < 1e-9).any() or abs(float(np.corrcoef(x.T)[0, 1])) > TIED:
        return "insufficient", "params and samples grow together in the runs, so that their trade cannot be told"
    return None


def judged(law: Law, answer: Estimate, what: str) -> tuple[Status, str]:
    """Whether an interval says what to do."""
    ends = answer.high / answer.low
    if not ends <= WIDE:
        apart = f"a factor of {ends:.3g} apart" if math.isfinite(ends) else "open"
        return "undetermined", f"the ends of the interval of {what} are {apart}"
    return "supported", law.reason


def belief(law: Law, *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Belief:
    """The law as a batch of laws."""
    forms, weight = members(law)
    rng = np.random.default_rng(seed)
    drawn = [_drawn(f, law, n, rng) for f, n in zip(forms, shared_out(weight, draws), strict=True) if n]
    centre = Shortages.joined([uncentred(f, law, np.array([f.theta])) for f in forms])
    return Belief(centre, weight, Shortages.joined(drawn) if drawn else centre, law.runs, level)


def members(law: Law) -> tuple[list[FittedForm], Array]:
    """The forms that have a say, and their weights, which sum to 1."""
    heaviest = max(f.weight for f in law.forms)
    forms = [f for f in law.forms if f.weight * WINDOW >= heaviest]
    weight = np.array([f.weight for f in forms])
    return forms, weight / weight.sum()


def shared_out(weight: Array, draws: int) -> list[int]:
    """Whole numbers in proportion to the weights, largest remainders first."""
    exact = weight * draws
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: draws - counts.sum()]] += 1
    return [int(n) for n in counts]


def _drawn(fitted: FittedForm, law: Law, count: int, rng: np.random.Generator) -> Shortages:
    """Draws of theta: t distributed with the law's degrees of freedom, as its predictions are."""
    form, table = named(fitted.form, law.variables), np.log(law.points)
    x, log_y = table[:, :-1] - np.array(law.centre), table[:, -1]
    values, vectors = np.linalg.eigh(np.array(fitted.covariance) * max(law.inflation, 1.0))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = rng.standard_normal((count, len(values)))
    heavy = np.sqrt(law.freedom / rng.chisquare(law.freedom, (count, 1)))
    theta = np.array(fitted.theta) + heavy * (normal @ root.T)
    return uncentred(fitted, law, form.bounds(x, log_y).clip(theta))


def uncentred(fitted: FittedForm, law: Law, theta: Array) -> Shortages:
    """Laws of one form from its theta around the law's centre, (rows, parameters)."""
    form = named(fitted.form, law.variables)
    return Shortages.of(form, form.shifted(theta, -np.array(law.centre)))
