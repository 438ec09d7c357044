"""A law that ends on both sides: at chance for few samples, at an irreducible error for many.

(y - E)/(C - y)^gamma = beta·x^-alpha is M4 of Alabdulmohsin, Neyshabur & Zhai 2022 (arXiv:2209.06640). With the share
p = (y - E)/(C - E) it reads log p - gamma·log(1 - p) = b - alpha·x, and v = logit(p) solves it: the left side rises in
v with a slope between 1 and gamma.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sizewise.laws.forms.form import LOWEST_SHARE, Array, Bounds, Form

HALLEY = 8
EXPONENTS = np.geomspace(0.1, 2.0, 7)
GAMMAS = (0.3, 1.0, 2.5)
FLOORS = (1e-3, 0.3, 0.6, 0.85)
CEILINGS = (1.01, 1.15, 2.0)


@dataclass(frozen=True, eq=False)
class Bounded(Form):
    """theta = (log E, log(C - E), b, alpha, log gamma)."""

    name: str
    variables: tuple[str, ...]
    formula: str = "(L - E)/(C - L)^gamma = beta·x^-alpha"
    source: str = "Alabdulmohsin et al. 2022, arXiv:2209.06640, M4"
    names: tuple[str, ...] = ("E", "C", "beta", "alpha", "gamma")

    def _share(self, theta: Array, x: Array) -> tuple[Array, Array]:
        """v = logit of the share, and the slope of its equation. Shapes (rows, points)."""
        gamma = np.exp(theta[:, 4, None])
        z = theta[:, 2, None] - theta[:, 3, None] * x[:, 0]
        v = np.where(z < 0, z, z / gamma)
        for _ in range(HALLEY):
            low = _log_sigmoid(v)
            high = np.exp(low)
            off, slope = low - gamma * (low - v) - z, (1 - high) + gamma * high
            step = off * slope / (slope**2 - 0.5 * off * (gamma - 1) * high * (1 - high))
            v = v - step
            if np.abs(step).max(initial=0.0) < 1e-4:  # the next error is of the order of its cube
                break
        high = np.exp(_log_sigmoid(v))
        return v, (1 - high) + gamma * high

    def value(self, theta: Array, x: Array) -> Array:
        v, _ = self._share(theta, x)
        value: Array = np.logaddexp(theta[:, 0, None], theta[:, 1, None] + _log_sigmoid(v))
        return value

    def jacobian(self, theta: Array, x: Array) -> tuple[Array, Array]:
        v, slope = self._share(theta, x)
        log_share = _log_sigmoid(v)
        value = np.logaddexp(theta[:, 0, None], theta[:, 1, None] + log_share)
        floor = np.exp(theta[:, 0, None] - value)
        by_z = (1 - floor) * (1 - np.exp(log_share)) / slope
        gamma = np.exp(theta[:, 4, None])
        by_gamma = by_z * gamma * (log_share - v)
        return value, np.stack([floor, 1 - floor, by_z, -by_z * x[:, 0], by_gamma], axis=2)

    def starts(self, x: Array, log_y: Array, weights: Array, count: int) -> Array:
        y, low, high = np.exp(log_y), float(np.exp(log_y.min())), float(np.exp(log_y.max()))
        grid = np.array(list(itertools.product(FLOORS, CEILINGS, GAMMAS)))
        floor, ceiling = grid[:, 0] * low, np.maximum(grid[:, 1] * high, high + 1e-9)
        p = np.clip((y - floor[:, None]) / (ceiling - floor)[:, None], 1e-9, 1 - 1e-9)
        z = np.log(p) - grid[:, 2:3] * np.log1p(-p)
        # A straight line in x, whose errors count as those of log y do.
        above, gamma = 1 - floor[:, None] / y, grid[:, 2:3]
        line = _line(x[:, 0], z, weights * (above * (1 - p) / ((1 - p) + gamma * p)) ** 2)
        alpha = np.clip(line[:, 1], 0.05, 4.0)
        theta = np.stack([np.log(floor), np.log(ceiling - floor), line[:, 0], alpha, np.log(grid[:, 2])], axis=1)
        loss = ((self.value(theta, x) - log_y) ** 2 * weights).sum(axis=1)
        return theta[np.argsort(loss, kind="stable")[:count]]

    def bounds(self, x: Array, log_y: Array) -> Bounds:
        low, high = float(log_y.min()), float(log_y.max())
        reach = 30 + 6 * float(np.abs(x).max())
        return Bounds(
            np.array([low + np.log(LOWEST_SHARE), low - 3, -reach, 0.0, np.log(0.05)]),
            np.array([low + 0.5, high + 1.5, reach, 6.0, np.log(20.0)]),
        )

    def shifted(self, theta: Array, by: Array) -> Array:
        moved = theta.copy()
        moved[:, 2] -= theta[:, 3] * by[0]
        return moved

    @property
    def logs(self) -> tuple[int, ...]:
        return 0, 1, 2, 4

    def natural(self, theta: Array) -> Array:
        natural = super().natural(theta)
        natural[:, 1] += natural[:, 0]
        return natural

    def theta(self, natural: Array) -> Array:
        above = natural.copy()
        above[:, 1] -= natural[:, 0]
        return super().theta(above)


def _log_sigmoid(v: Array) -> Array:
    """log of 1/(1 + exp(-v)); that of 1/(1 + exp(v)) is less by v."""
    return np.asarray(np.minimum(v, 0.0) - np.log1p(np.exp(-np.abs(v))))


def _line(x: Array, z: Array, weights: Array) -> Array:
    """z = a - slope·x by least squares, for each row of z and of weights: (rows, 2)."""
    total = weights.sum(axis=1) + 1e-300
    off = x - (weights @ x / total)[:, None]
    slope = -(z * weights * off).sum(axis=1) / ((weights * off**2).sum(axis=1) + 1e-300)
    return np.stack([(z * weights).sum(axis=1) / total + slope * (weights @ x / total), slope], axis=1)
