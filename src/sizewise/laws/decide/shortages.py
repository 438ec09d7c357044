"""Laws of parameters and samples in one shape, in which every decision has a closed form.

All of them are y = E + (P^(1/kappa) + Q^(1/kappa))^kappa with two shortages, P = A·N^-alpha of parameters and
Q = B·D^-beta of samples: kappa = 1 is the additive law, no E the law of powers or, with kappa = beta, that of Kaplan et
al. 2020. So laws of different forms can stand in one batch, one row each.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from sizewise.errors import UsageError
from sizewise.laws.forms import Form
from sizewise.laws.intake.evidence import Array

LEAST_EXPONENT = 1e-4
"""A smaller exponent is no fall with size; the optimum would be at zero or infinity."""

LEAST_AMPLITUDE = 1e-300
BISECTIONS = 60


@dataclass(frozen=True)
class Shortages:
    """A batch of laws. Each attribute has shape (rows,); amplitudes are logarithms, for N and D in their own units."""

    log_e: Array
    log_a: Array
    log_b: Array
    alpha: Array
    beta: Array
    kappa: Array

    @classmethod
    def of(cls, form: Form, theta: Array) -> Shortages:
        """From a form's theta around no centre, (rows, parameters).

        Raises:
            UsageError: the form is not a law of parameters and samples alone.
        """
        parts = dict(zip(form.names, np.asarray(form.natural(theta), dtype=float).T, strict=True))
        if form.variables != ("params", "samples") or not {"A", "B", "alpha"} <= set(parts):
            raise UsageError(
                f"the form {form.name!r} does not say how parameters and samples trade",
                hint="fit a law of parameters and samples",
            )
        alpha = np.maximum(parts["alpha"], LEAST_EXPONENT)
        beta = np.maximum(parts.get("beta", alpha), LEAST_EXPONENT)
        with np.errstate(divide="ignore"):
            log_e = np.log(parts.get("E", np.zeros(len(theta))))
        kappa = beta if form.name == "kaplan" else parts.get("kappa", np.ones(len(theta)))
        log_a, log_b = (np.log(np.maximum(parts[name], LEAST_AMPLITUDE)) for name in ("A", "B"))
        return cls(log_e, log_a, log_b, alpha, beta, kappa)

    @classmethod
    def joined(cls, batches: list[Shortages]) -> Shortages:
        return cls(*(np.concatenate([getattr(b, f.name) for b in batches]) for f in fields(cls)))

    def log_rest(self, log_n: Array | float, log_d: Array | float) -> Array:
        """log of what the loss is above its floor, (rows,)."""
        p, q = self.log_a - self.alpha * log_n, self.log_b - self.beta * log_d
        return np.asarray(self.kappa * np.logaddexp(p / self.kappa, q / self.kappa))

    def log_loss(self, log_n: Array | float, log_d: Array | float) -> Array:
        return np.asarray(np.logaddexp(self.log_e, self.log_rest(log_n, log_d)))

    def log_rest_of(self, loss: float) -> Array:
        """log of a loss less the floor, (rows,); -inf where the floor is not below it."""
        gap = np.minimum(self.log_e - np.log(loss), 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(loss) + np.log(-np.expm1(gap)))

    def at(self, logit: Array, log_rest: Array) -> tuple[Array, Array]:
        """The place on a contour of equal loss where parameters have a given part in it: log N and log D, (rows,).

        Args:
            logit: of w = P^(1/kappa)/(P^(1/kappa) + Q^(1/kappa)).
        """
        log_w, log_v = -np.logaddexp(0.0, -logit), -np.logaddexp(0.0, logit)
        log_n = (self.log_a - log_rest - self.kappa * log_w) / self.alpha
        log_d = (self.log_b - log_rest - self.kappa * log_v) / self.beta
        return np.asarray(log_n), np.asarray(log_d)

    def optimal_logit(self) -> Array:
        """Where N·D is smallest for its loss: both shortages shrink at one rate, w·alpha = (1 - w)·beta."""
        return np.asarray(np.log(self.beta / self.alpha))

    def optimal_log_params(self, log_product: float | Array) -> Array:
        """log N with the lowest loss where log N + log D is given, (rows,).

        Hoffmann et al. 2022, arXiv:2203.15556, equation 4; kappa only shifts its constant. Neither N nor D is below 1.
        """
        shift = self.log_a - self.log_b + self.kappa * np.log(self.alpha / self.beta)
        return np.asarray(np.clip((shift + self.beta * log_product) / (self.alpha + self.beta), 0.0, log_product))

    def exponent(self) -> Array:
        """a in N_opt ∝ C^a, (rows,)."""
        return np.asarray(self.beta / (self.alpha + self.beta))

    def log_samples(self, log_n: Array | float, log_rest: Array) -> Array:
        """log D that gives a loss at N, (rows,); inf where no amount of data does."""
        p = self.log_a - self.alpha * log_n
        gap = (p - log_rest) / self.kappa
        with np.errstate(divide="ignore", invalid="ignore"):
            log_q = log_rest + self.kappa * np.log(-np.expm1(np.minimum(gap, 0.0)))
            return np.where(gap < 0, (self.log_b - log_q) / self.beta, np.inf)

    def least_log_params(self, log_rest: Array) -> Array:
        """log N below which no amount of data gives this loss, (rows,)."""
        with np.errstate(invalid="ignore"):
            return np.asarray((self.log_a - log_rest) / self.alpha)

    def log_rate(self, log_n: Array | float, log_d: Array | float) -> Array:
        """log of -d log D / d log N at equal loss, (rows,): samples that params are worth, per cent for per cent."""
        p, q = self.log_a - self.alpha * log_n, self.log_b - self.beta * log_d
        return np.asarray(np.log(self.alpha / self.beta) + (p - q) / self.kappa)

    def near(self, log_product: float, tolerance: float) -> tuple[Array, Array]:
        """Ends of the log N, each (rows,), whose loss is within a relative tolerance of the best one at equal N·D.

        Along that line the loss falls to the optimum and rises after it, so each end is found by bisection.
        """
        best = self.optimal_log_params(log_product)
        limit = self.log_loss(best, log_product - best) + np.log1p(tolerance)
        ends = []
        for far in (np.zeros_like(best), np.full_like(best, log_product)):
            good, bad = best, far
            for _ in range(BISECTIONS):
                middle = 0.5 * (good + bad)
                inside = self.log_loss(middle, log_product - middle) <= limit
                good, bad = np.where(inside, middle, good), np.where(inside, bad, middle)
            ends.append(good)
        return ends[0], ends[1]

    def serving_logit(self, log_rest: Array, ratio: float) -> Array:
        """Where on a contour N·(D + ratio) is smallest: (rows,). With `ratio` 0 it is `optimal_logit`.

        N·D + N·S/3 is stationary where alpha·w/(beta·(1 - w)) = 1 + S/(3·D). In z = logit w the left side's log rises
        and the right side's falls, since D rises with z, so that there is one root (Sardana et al. 2023,
        arXiv:2401.00448, section 2, by other means).

        Args:
            ratio: samples that cost as much, for each parameter, as serving does.
        """
        low = self.optimal_logit()
        log_ratio = np.log(ratio) if ratio > 0 else -np.inf
        high = low + np.logaddexp(0.0, log_ratio - self.at(low, log_rest)[1])
        start = low
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            excess = np.logaddexp(0.0, log_ratio - self.at(middle, log_rest)[1])
            below = middle - start < excess
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(0.5 * (low + high))


def optimal_log_params(form: Form, theta: Array, log_compute_over_k: float | Array) -> Array:
    """log N with the lowest loss along N·D = C/k, for each theta (rows, parameters) around no centre: (rows,)."""
    return Shortages.of(form, theta).optimal_log_params(log_compute_over_k)


__all__ = ["Shortages", "optimal_log_params"]
