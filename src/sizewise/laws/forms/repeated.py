"""Data seen more than once is worth less: L = E + A·N^-alpha + B·D'^-beta with D' = U·(1 + R*·(1 - exp(-R/R*))).

U samples are unique and each is repeated R = D/U - 1 times; after R* repeats little is left to gain. Muennighoff et al.
2023 (arXiv:2305.16264, equations 5 and 6), here for the data alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sizewise.laws.forms.form import Array, Bounds, Form
from sizewise.laws.forms.powers import SumOfPowers, Term

_ADDITIVE = SumOfPowers(
    "worth", "", "", ("params", "samples"), (Term("E"), Term("A", params="alpha"), Term("B", samples="beta"))
)
HALF_LIVES = (1.0, 5.0, 15.0, 60.0)


@dataclass(frozen=True, eq=False)
class Repeated(Form):
    """theta = (log E, log A, log B, alpha, beta, log R*)."""

    name: str = "repeated"
    formula: str = "L = E + A·N^-alpha + B·D'^-beta, D' = U·(1 + R*·(1 - exp(-(D/U - 1)/R*)))"
    source: str = "Muennighoff et al. 2023, arXiv:2305.16264, equations 5 and 6"
    variables: tuple[str, ...] = ("params", "samples", "unique")
    names: tuple[str, ...] = ("E", "A", "B", "alpha", "beta", "R*")

    def _worth(self, theta: Array, x: Array) -> tuple[Array, Array]:
        """log D' and its derivative by log R*, (rows, points)."""
        # The ratio D/U must not depend on where the logs are centred, so D and U share one centre; see `shifted`.
        repeats = np.expm1(np.maximum(x[:, 1] - x[:, 2], 0.0))
        star = np.exp(theta[:, 5, None])
        left = np.exp(-repeats / star)
        worth = 1 + star * (1 - left)
        return x[:, 2] + np.log(worth), star * ((1 - left) - left * repeats / star) / worth

    def value(self, theta: Array, x: Array) -> Array:
        worth, _ = self._worth(theta, x)
        terms = [
            np.broadcast_to(theta[:, 0, None], worth.shape),
            theta[:, 1, None] - theta[:, 3, None] * x[:, 0],
            theta[:, 2, None] - theta[:, 4, None] * worth,
        ]
        return np.asarray(np.logaddexp.reduce(np.stack(terms), axis=0))

    def jacobian(self, theta: Array, x: Array) -> tuple[Array, Array]:
        worth, by_star = self._worth(theta, x)
        value = self.value(theta, x)
        of_params = np.exp(theta[:, 1, None] - theta[:, 3, None] * x[:, 0] - value)
        of_samples = np.exp(theta[:, 2, None] - theta[:, 4, None] * worth - value)
        floor = np.exp(theta[:, 0, None] - value)
        columns = [floor, of_params, of_samples, -of_params * x[:, 0], -of_samples * worth]
        return value, np.stack([*columns, -of_samples * theta[:, 4, None] * by_star], axis=2)

    def starts(self, x: Array, log_y: Array, weights: Array, count: int) -> Array:
        each, rows = -(-count // len(HALF_LIVES)), []
        for star in HALF_LIVES:
            worth, _ = self._worth(np.array([[0.0] * 5 + [np.log(star)]]), x)
            inner = _ADDITIVE.starts(np.stack([x[:, 0], worth[0]], axis=1), log_y, weights, each)
            rows.append(np.column_stack([inner, np.full(len(inner), np.log(star))]))
        return np.concatenate(rows)[:count]

    def bounds(self, x: Array, log_y: Array) -> Bounds:
        inner = _ADDITIVE.bounds(x[:, :2], log_y)
        return Bounds(np.append(inner.low, np.log(0.05)), np.append(inner.high, np.log(1e4)))

    def shifted(self, theta: Array, by: Array) -> Array:
        moved = theta.copy()
        moved[:, 1] -= theta[:, 3] * by[0]
        moved[:, 2] -= theta[:, 4] * by[2]
        return moved

    @property
    def logs(self) -> tuple[int, ...]:
        return 0, 1, 2, 5
