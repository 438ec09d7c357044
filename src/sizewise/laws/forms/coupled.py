"""Parameters and data that hinder each other: y = E + ((A·N^-alpha)^(1/kappa) + (B·D^-beta)^(1/kappa))^kappa.

The two shortages join in a norm of order 1/kappa: kappa = 1 is the additive law, kappa near 0 the worse of the two.
Rosenfeld et al. 2020 (arXiv:1909.12673) and Droppo & Elibol 2021 (arXiv:2106.09488) use it with a floor. Kaplan et al.
2020 (arXiv:2001.08361, equation 1.5) is its case without a floor and with kappa = beta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sizewise.laws.forms.form import LOWEST_SHARE, Array, Bounds, Form
from sizewise.laws.forms.powers import LARGEST_EXPONENT, SumOfPowers, Term

VARIABLES = ("params", "samples")
NEVER = -700.0
"""Logarithm of a floor that is not there."""

_ADDITIVE = SumOfPowers("start", "", "", VARIABLES, (Term("E"), Term("A", params="alpha"), Term("B", samples="beta")))
KAPPAS = (1.0, 0.5, 0.25)


@dataclass(frozen=True, eq=False)
class Coupled(Form):
    """theta = (log E, log A, log B, alpha, beta, log kappa)."""

    name: str = "coupled"
    formula: str = "L = E + ((A·N^-alpha)^(1/kappa) + (B·D^-beta)^(1/kappa))^kappa"
    source: str = "Rosenfeld et al. 2020, arXiv:1909.12673; Droppo & Elibol 2021, arXiv:2106.09488"
    variables: tuple[str, ...] = VARIABLES
    names: tuple[str, ...] = ("E", "A", "B", "alpha", "beta", "kappa")

    def _parts(self, theta: Array, x: Array) -> tuple[Array, Array, Array, Array]:
        """log y, the floor's share of y, and within the rest the share and the logs of the data term."""
        kappa = np.exp(theta[:, 5, None])
        of_params = theta[:, 1, None] - theta[:, 3, None] * x[:, 0]
        of_samples = theta[:, 2, None] - theta[:, 4, None] * x[:, 1]
        gap = (of_samples - of_params) / kappa
        rest = of_params + kappa * np.logaddexp(0.0, gap)
        value = np.logaddexp(theta[:, 0, None], rest)
        return value, np.exp(theta[:, 0, None] - value), 0.5 * (1 + np.tanh(0.5 * gap)), gap

    def value(self, theta: Array, x: Array) -> Array:
        return self._parts(theta, x)[0]

    def jacobian(self, theta: Array, x: Array) -> tuple[Array, Array]:
        value, floor, share, gap = self._parts(theta, x)
        rest = 1 - floor
        kappa = np.exp(theta[:, 5, None])
        by_params, by_samples = rest * (1 - share), rest * share
        by_kappa = rest * kappa * (np.logaddexp(0.0, gap) - share * gap)
        columns = [floor, by_params, by_samples, -by_params * x[:, 0], -by_samples * x[:, 1], by_kappa]
        return value, np.stack(columns, axis=2)

    def starts(self, x: Array, log_y: Array, weights: Array, count: int) -> Array:
        each = -(-count // len(KAPPAS))
        additive = _ADDITIVE.starts(x, log_y, weights, each)
        rows = [np.column_stack([additive, np.full(len(additive), np.log(kappa))]) for kappa in KAPPAS]
        return np.concatenate(rows)[:count]

    def bounds(self, x: Array, log_y: Array) -> Bounds:
        inner = _ADDITIVE.bounds(x, log_y)
        return Bounds(np.append(inner.low, np.log(0.05)), np.append(inner.high, np.log(4.0)))

    def shifted(self, theta: Array, by: Array) -> Array:
        moved = theta.copy()
        moved[:, 1] -= theta[:, 3] * by[0]
        moved[:, 2] -= theta[:, 4] * by[1]
        return moved

    @property
    def logs(self) -> tuple[int, ...]:
        return 0, 1, 2, 5


@dataclass(frozen=True, eq=False)
class Kaplan(Form):
    """theta = (log A, log B, alpha, log beta): the coupled law with no floor and kappa = beta."""

    name: str = "kaplan"
    formula: str = "L = ((Nc/N)^(alpha/beta) + Dc/D)^beta"
    source: str = "Kaplan et al. 2020, arXiv:2001.08361, equation 1.5"
    variables: tuple[str, ...] = VARIABLES
    names: tuple[str, ...] = ("A", "B", "alpha", "beta")
    _coupled: Coupled = Coupled()

    def _wide(self, theta: Array) -> Array:
        columns = [np.full(len(theta), NEVER), theta[:, 0], theta[:, 1], theta[:, 2], np.exp(theta[:, 3]), theta[:, 3]]
        return np.stack(columns, axis=1)

    def value(self, theta: Array, x: Array) -> Array:
        return self._coupled.value(self._wide(theta), x)

    def jacobian(self, theta: Array, x: Array) -> tuple[Array, Array]:
        value, wide = self._coupled.jacobian(self._wide(theta), x)
        by_beta = wide[:, :, 4] * np.exp(theta[:, 3, None]) + wide[:, :, 5]
        return value, np.stack([wide[:, :, 1], wide[:, :, 2], wide[:, :, 3], by_beta], axis=2)

    def starts(self, x: Array, log_y: Array, weights: Array, count: int) -> Array:
        level = float(np.average(log_y, weights=weights))
        exponents = np.array([(a, b) for a in (0.02, 0.06, 0.15, 0.4) for b in (0.02, 0.06, 0.15, 0.4)])
        rows = np.column_stack([np.full((len(exponents), 2), level - 0.1), exponents[:, 0], np.log(exponents[:, 1])])
        rows[:, :2] -= (self.value(rows, x) - log_y) @ (weights / weights.sum())[:, None]
        return rows[:count]

    def bounds(self, x: Array, log_y: Array) -> Bounds:
        lowest = float(log_y.min()) + np.log(LOWEST_SHARE)
        high = float(log_y.max()) + 3 + LARGEST_EXPONENT * float(np.abs(x).max())
        return Bounds(
            np.array([lowest, lowest, 0.0, np.log(1e-3)]),
            np.array([high, high, LARGEST_EXPONENT, np.log(LARGEST_EXPONENT)]),
        )

    def shifted(self, theta: Array, by: Array) -> Array:
        moved = theta.copy()
        moved[:, 0] -= theta[:, 2] * by[0]
        moved[:, 1] -= np.exp(theta[:, 3]) * by[1]
        return moved

    @property
    def logs(self) -> tuple[int, ...]:
        return 0, 1, 3
