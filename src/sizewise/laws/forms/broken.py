"""Power laws whose exponent changes smoothly, once or more: y = E + A·x^-c0·Π_i (1 + (x/d_i)^(1/f_i))^(-c_i·f_i).

Caballero, Gupta, Rish & Krueger 2022 (arXiv:2210.14891), equation 1, with every exponent written as a fall. With one
break of slope zero before it (c0 = 0) it is the shifted power E + A·(x + s)^-alpha.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from sizewise.laws.forms.form import LOWEST_SHARE, Array, Bounds, Form

SLOPES = (0.1, 0.3, 0.6, 1.0, 1.6)
FLOORS = (1e-3, 0.4, 0.8)
SHARPNESS = (0.3, 1.0, 2.5)
PLACES = (0.15, 0.5, 0.85)


@dataclass(frozen=True, eq=False)
class Broken(Form):
    """theta = (log E, log A, c0, then for each break: c, log d, log f)."""

    breaks: int
    name: str
    variables: tuple[str, ...]
    flat_start: bool = False
    formula: str = "L = E + A·x^-c0·Π(1 + (x/d)^(1/f))^(-c·f)"
    source: str = "Caballero et al. 2022, arXiv:2210.14891, equation 1"

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("E", "A", "c0", *(f"{letter}{i + 1}" for i in range(self.breaks) for letter in ("c", "d", "f")))

    def _bend(self, theta: Array, x: Array, i: int) -> tuple[Array, Array, Array]:
        """f·softplus(u), sigmoid(u) and u of break i, where u = (x - log d)/f."""
        log_d, f = theta[:, 4 + 3 * i, None], np.exp(theta[:, 5 + 3 * i, None])
        u = (x[:, 0] - log_d) / f
        return f * np.logaddexp(0.0, u), 0.5 * (1 + np.tanh(0.5 * u)), u

    def value(self, theta: Array, x: Array) -> Array:
        power = theta[:, 1, None] - theta[:, 2, None] * x[:, 0]
        for i in range(self.breaks):
            power = power - theta[:, 3 + 3 * i, None] * self._bend(theta, x, i)[0]
        value: Array = np.logaddexp(theta[:, 0, None], power)
        return value

    def jacobian(self, theta: Array, x: Array) -> tuple[Array, Array]:
        columns = [np.ones((len(theta), len(x))), np.broadcast_to(-x[:, 0], (len(theta), len(x)))]
        power = theta[:, 1, None] - theta[:, 2, None] * x[:, 0]
        for i in range(self.breaks):
            bend, sigmoid, u = self._bend(theta, x, i)
            c, f = theta[:, 3 + 3 * i, None], np.exp(theta[:, 5 + 3 * i, None])
            power = power - c * bend
            columns += [-bend, c * sigmoid, -c * (bend - f * sigmoid * u)]
        value = np.logaddexp(theta[:, 0, None], power)
        floor = np.exp(theta[:, 0, None] - value)
        jacobian = np.stack([floor, *((1 - floor) * column for column in columns)], axis=2)
        if self.flat_start:
            jacobian[:, :, 2] = 0.0
        return value, jacobian

    def starts(self, x: Array, log_y: Array, weights: Array, count: int) -> Array:
        lowest = float(log_y.min())
        theta = _grid(self.breaks, self.flat_start).copy()
        theta[:, 0] += lowest
        theta[:, 4::3] = np.quantile(x[:, 0], theta[:, 4::3])
        above = np.log(np.maximum(np.exp(log_y) - np.exp(theta[:, 0, None]), 1e-3 * np.exp(lowest)))
        shape = self.value(np.concatenate([np.full((len(theta), 1), -700.0), theta[:, 1:]], axis=1), x)
        theta[:, 1] = np.average(above - shape, axis=1, weights=weights)
        loss = ((np.logaddexp(theta[:, 0, None], shape + theta[:, 1, None]) - log_y) ** 2) @ weights
        return theta[np.argsort(loss, kind="stable")[:count]]

    def bounds(self, x: Array, log_y: Array) -> Bounds:
        low, high = float(x.min()), float(x.max())
        lowest, reach = float(log_y.min()), 6 * float(np.abs(x).max())
        c0 = (0.0, 0.0) if self.flat_start else (-0.5, 4.0)
        c = (0.0, 4.0) if self.flat_start else (-3.0, 4.0)
        least = [c[0], low, np.log(0.1)] * self.breaks
        most = [c[1], high, np.log(5.0)] * self.breaks
        return Bounds(
            np.array([lowest + np.log(LOWEST_SHARE), lowest - reach - 5, c0[0], *least]),
            np.array([lowest + 0.5, lowest + reach + 10, c0[1], *most]),
        )

    def shifted(self, theta: Array, by: Array) -> Array:
        moved = theta.copy()
        moved[:, 1] -= theta[:, 2] * by[0]
        moved[:, 4::3] -= by[0]
        return moved

    @property
    def logs(self) -> tuple[int, ...]:
        return 0, 1, *range(4, 3 + 3 * self.breaks, 3), *range(5, 3 + 3 * self.breaks, 3)


@cache
def _grid(breaks: int, flat_start: bool) -> Array:
    """Starts with floors as shares of the lowest y, in logs, and breaks as quantiles of x; at most 600 or so."""
    first = (0.0,) if flat_start else SLOPES[:4]
    each = itertools.product(SLOPES if flat_start else (-0.2, 0.3), PLACES, SHARPNESS)
    sets = itertools.combinations(each, breaks)
    rows = [
        [np.log(floor), 0.0, c0, *(v for c, d, f in chosen for v in (c, d, np.log(f)))]
        for floor, c0, chosen in itertools.product(FLOORS, first, sets)
    ]
    return np.array(rows)[:: max(1, len(rows) // 600)]
