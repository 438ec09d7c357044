"""What a law can be asked: its logarithm, how it bends, and where to start looking for its best parameters.

Every form works in logarithms: x = log of the variables, theta = its free parameters, f(theta, x) = log y. A residual
f - log y is then a relative error, the same for a loss of 3 nats and an error of 0.3 %.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LOWEST_SHARE = 1e-6
"""Least amplitude of a term, as a share of the lowest y: its logarithm has to stay finite."""


@dataclass(frozen=True)
class Bounds:
    """Box that theta must stay in, each of shape (parameters,)."""

    low: Array
    high: Array

    def clip(self, theta: Array) -> Array:
        return np.minimum(np.maximum(theta, self.low), self.high)


class Form(ABC):
    """A law y = f(x).

    Attributes:
        name: what it is called on the command line.
        formula: as people write it.
        source: author, year, arXiv id.
        variables: what x holds, in order: "params", "samples", "compute", "unique".
        names: its parameters as people name them, in the order of theta.
        curved: whether it knows its second derivatives, see `curvature`.
    """

    name: str
    formula: str
    source: str
    variables: tuple[str, ...]
    names: tuple[str, ...]
    curved: ClassVar[bool] = False

    @abstractmethod
    def value(self, theta: Array, x: Array) -> Array:
        """log y. Shapes: theta (rows, parameters), x (points, variables) -> (rows, points)."""

    @abstractmethod
    def jacobian(self, theta: Array, x: Array) -> tuple[Array, Array]:
        """log y (rows, points) and its derivatives (rows, points, parameters)."""

    def curvature(self, jacobian: Array, x: Array, pull: Array) -> Array:
        """Sum over points of pull times (second derivatives of log y + outer products of its first ones).

        Args:
            jacobian: of log y, (rows, points, parameters).
            pull: weight times derivative of the loss at each residual, (rows, points).

        Returns:
            (rows, parameters, parameters).
        """
        raise NotImplementedError(f"{self.name} is fitted by Gauss-Newton steps")

    @abstractmethod
    def starts(self, x: Array, log_y: Array, weights: Array, count: int) -> Array:
        """The `count` most promising thetas of a grid, (count, parameters). Shapes: log_y and weights (points,)."""

    @abstractmethod
    def bounds(self, x: Array, log_y: Array) -> Bounds:
        """Where theta may be, given what was observed."""

    @abstractmethod
    def shifted(self, theta: Array, by: Array) -> Array:
        """The theta whose value at x - by is that of `theta` at x. Shape (rows, parameters)."""

    @property
    @abstractmethod
    def logs(self) -> tuple[int, ...]:
        """Columns of theta that hold logarithms of what people write."""

    def natural(self, theta: Array) -> Array:
        """The parameters as people write them, for example E for theta's log E."""
        natural, logs = theta.copy(), list(self.logs)
        natural[:, logs] = np.exp(theta[:, logs])
        return natural

    def theta(self, natural: Array) -> Array:
        """The inverse of `natural`."""
        theta, logs = natural.copy(), list(self.logs)
        theta[:, logs] = np.log(natural[:, logs])
        return theta
