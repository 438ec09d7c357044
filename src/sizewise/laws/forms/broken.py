"""Power laws whose exponent changes smoothly, once or more: y = E + A·x^-c0·Π_i (1 + (x/d_i)^(1/f_i))^(-c_i·f_i).

Caballero, Gupta, Rish & Krueger 2022 (arXiv:2210.14891), equation 1, with every exponent written as a fall. With one
break of slope zero before it (c0 = 0) it is the shifted power E + A·(x + s)^-alpha.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sizewise.laws.forms.form import LOWEST_SHARE, Array, Bounds, Form

FLOORS = (1e-3, 0.3, 0.6, 0.85)
PLACES = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
SHARPNESS = (0.12, 0.35, 1.0)
"""Starts: floors as shares of the lowest y, breaks at quantiles of x, and how sharp they are."""

MOST_SETS = 60
RIDGE = 1e-6


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
        lowest, floors = float(log_y.min()), np.array(FLOORS)
        places, sharpness = np.quantile(x[:, 0], PLACES), np.array(SHARPNESS)
        log_d, f = np.repeat(places, len(sharpness)), np.tile(sharpness, len(places))
        bends = f[:, None] * np.logaddexp(0.0, (x[:, 0] - log_d[:, None]) / f[:, None])
        sets = _sets(len(f), self.breaks)
        columns = np.empty((len(sets), len(x), self.breaks + 2 - self.flat_start))
        columns[:, :, 0], columns[:, :, 1] = 1.0, -x[:, 0]  # a flat start has no use for the second
        columns[:, :, -self.breaks :] = -bends[sets].transpose(0, 2, 1)
        # For given floors and breaks log(y - E) is a straight line in what is left; its errors count as those of log y.
        above = 1 - floors[:, None] * np.exp(lowest - log_y)
        lines = _lines(columns, log_y + np.log(above), weights * above**2)
        theta = np.zeros((len(floors), len(sets), len(self.names)))
        theta[:, :, 0] = lowest + np.log(floors)[:, None]
        theta[:, :, 1] = lines[:, :, 0]
        if not self.flat_start:
            theta[:, :, 2] = lines[:, :, 1]
        theta[:, :, 3::3] = lines[:, :, -self.breaks :]
        theta[:, :, 4::3], theta[:, :, 5::3] = log_d[sets], np.log(f[sets])
        theta = self.bounds(x, log_y).clip(theta.reshape(-1, len(self.names)))
        loss = (self.value(theta, x) - log_y) ** 2 @ weights
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
def _sets(kinds: int, breaks: int) -> NDArray[np.int64]:
    """Choices of so many breaks among some kinds, (sets, breaks); at most `MOST_SETS` or so."""
    sets = np.array(list(itertools.combinations(range(kinds), breaks)))
    return sets[:: -(-len(sets) // MOST_SETS)]


def _lines(columns: Array, log_y: Array, weights: Array) -> Array:
    """Least squares in every set of columns for every floor: (floors, sets, columns).

    Args:
        columns: (sets, points, columns); log_y and weights: (floors, points).
    """
    sets, points, size = columns.shape
    products = (columns[:, :, :, None] * columns[:, :, None, :]).transpose(1, 0, 2, 3).reshape(points, -1)
    normal = (weights @ products).reshape(len(weights), sets, size, size)
    right = ((weights * log_y) @ columns.transpose(1, 0, 2).reshape(points, -1)).reshape(len(weights), sets, size)
    ridge = RIDGE * np.einsum("fsii->fs", normal)[:, :, None, None] * np.eye(size)
    return np.asarray(np.linalg.solve(normal + ridge, right[..., None])[..., 0])
