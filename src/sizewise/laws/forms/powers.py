"""Sums of powers, y = Σ_k A_k·Π_v x_v^-exponent: nearly every published law is one.

With x in logarithms each term is a straight line, log y their log-sum-exp, and first and second derivatives are
moments of the terms' shares. For given exponents y is linear in the amplitudes, so the search for a start runs over
exponents alone (variable projection, Golub & Pereyra 1973).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sizewise.laws.forms.form import LOWEST_SHARE, Array, Bounds, Form

LARGEST_EXPONENT = 4.0
GRID = {1: np.geomspace(0.02, 2.5, 24), 2: np.geomspace(0.03, 2.0, 11), 3: np.geomspace(0.05, 1.5, 6)}
"""Exponents tried for a start, by the number of free exponents."""


@dataclass(frozen=True)
class Term:
    """An amplitude times powers: `Term("A", params="alpha")` is A·N^-alpha; without variables it is a floor."""

    amplitude: str
    exponents: dict[str, str] = field(default_factory=dict)

    def __init__(self, amplitude: str, **exponents: str) -> None:
        object.__setattr__(self, "amplitude", amplitude)
        object.__setattr__(self, "exponents", exponents)


@dataclass(frozen=True, eq=False)
class SumOfPowers(Form):
    """y = Σ of terms. theta holds the logarithms of the amplitudes, in the order of the terms, then the exponents."""

    name: str
    formula: str
    source: str
    variables: tuple[str, ...]
    terms: tuple[Term, ...]
    curved = True

    @cached_property
    def exponent_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for term in self.terms for name in term.exponents.values()))

    @cached_property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(term.amplitude for term in self.terms) + self.exponent_names

    @cached_property
    def _uses(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each term its (index of the exponent in theta, index of the variable) pairs."""
        offset = len(self.terms)
        return tuple(
            tuple(
                (offset + self.exponent_names.index(name), self.variables.index(variable))
                for variable, name in term.exponents.items()
            )
            for term in self.terms
        )

    def _lines(self, theta: Array, x: Array) -> list[Array]:
        """log of each term, (rows, points)."""
        lines = []
        for k, uses in enumerate(self._uses):
            line = np.broadcast_to(theta[:, k, None], (len(theta), len(x)))
            for exponent, variable in uses:
                line = line - theta[:, exponent, None] * x[:, variable]
            lines.append(line)
        return lines

    def _shares(self, theta: Array, x: Array) -> tuple[Array, list[Array]]:
        """log y and each term's share of y."""
        lines = self._lines(theta, x)
        top = lines[0] if len(lines) == 1 else np.maximum.reduce(lines)
        parts = [np.exp(line - top) for line in lines]
        total = parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0])
        return top + np.log(total), [part / total for part in parts]

    def value(self, theta: Array, x: Array) -> Array:
        return self._shares(theta, x)[0]

    def jacobian(self, theta: Array, x: Array) -> tuple[Array, Array]:
        value, shares = self._shares(theta, x)
        jacobian = np.zeros((*value.shape, theta.shape[1]))
        for k, (share, uses) in enumerate(zip(shares, self._uses, strict=True)):
            jacobian[:, :, k] = share
            for exponent, variable in uses:
                jacobian[:, :, exponent] -= share * x[:, variable]
        return value, jacobian

    def curvature(self, jacobian: Array, x: Array, pull: Array) -> Array:
        rows, _, size = jacobian.shape
        total = np.zeros((rows, size, size))
        basis = np.concatenate([np.ones((len(x), 1)), -x], axis=1)
        products = basis[:, :, None] * basis[:, None, :]
        for k, uses in enumerate(self._uses):
            columns = [k, *(exponent for exponent, _ in uses)]
            inputs = [0, *(1 + variable for _, variable in uses)]
            share = jacobian[:, :, k]
            moments = ((pull * share) @ products.reshape(len(x), -1)).reshape(rows, *products.shape[1:])
            for (i, a), (j, b) in itertools.product(zip(columns, inputs, strict=True), repeat=2):
                total[:, i, j] += moments[:, a, b]
        return total

    def starts(self, x: Array, log_y: Array, weights: Array, count: int) -> Array:
        scale = float(np.average(log_y, weights=weights))
        y = np.exp(log_y - scale)
        free = len(self.exponent_names)
        grid = np.array(list(itertools.product(GRID[free], repeat=free))) if free else np.zeros((1, 0))
        amplitudes, losses = self._project(grid, x, y, weights)
        best = np.argsort(losses, kind="stable")[:count]
        floor = LOWEST_SHARE * float(y.min())
        return np.concatenate([np.log(np.maximum(amplitudes[best], floor)) + scale, grid[best]], axis=1)

    def _project(self, grid: Array, x: Array, y: Array, weights: Array) -> tuple[Array, Array]:
        """For each row of exponents the amplitudes that fit best, none negative, and their squared relative error."""
        zero = np.concatenate([np.zeros((len(grid), len(self.terms))), grid], axis=1)
        columns = np.exp(np.stack(self._lines(zero, x), axis=2))  # (grid, points, terms)
        relative = weights / y**2
        normal = np.einsum("gpi,p,gpj->gij", columns, relative, columns, optimize=True)
        right = np.einsum("gpi,p->gi", columns, relative * y)
        constant = float((relative * y**2).sum())
        return _nonnegative(normal, right, constant)

    def bounds(self, x: Array, log_y: Array) -> Bounds:
        lowest = float(log_y.min()) + np.log(LOWEST_SHARE)
        # Where a variable's logs reach far from their centre a term's amplitude there can be far from y.
        reach = LARGEST_EXPONENT * float(np.abs(x).max(initial=0.0)) * max(len(self.variables), 1)
        free = len(self.exponent_names)
        low = np.array([lowest] * len(self.terms) + [0.0] * free)
        high = np.array([float(log_y.max()) + 3 + reach] * len(self.terms) + [LARGEST_EXPONENT] * free)
        return Bounds(low, high)

    def shifted(self, theta: Array, by: Array) -> Array:
        moved = theta.copy()
        for k, uses in enumerate(self._uses):
            for exponent, variable in uses:
                moved[:, k] -= theta[:, exponent] * by[variable]
        return moved

    @property
    def logs(self) -> tuple[int, ...]:
        return tuple(range(len(self.terms)))


def _nonnegative(normal: Array, right: Array, constant: float) -> tuple[Array, Array]:
    """Least squares with no negative coefficient, for many small problems: the best of all supports.

    Args:
        normal: Gram matrices (problems, k, k); right: (problems, k); constant: the squared norm of the target.
    """
    problems, k = right.shape
    best = np.full(problems, np.inf)
    solution = np.zeros((problems, k))
    for support in _supports(k):
        index = np.array(support)
        matrix = normal[:, index[:, None], index[None, :]]
        ridge = 1e-12 * np.einsum("gii->g", matrix)[:, None, None] * np.eye(len(index))
        found = np.linalg.solve(matrix + ridge, right[:, index, None])[:, :, 0]
        loss = constant - (found * right[:, index]).sum(axis=1)
        better = (found >= 0).all(axis=1) & (loss < best)
        best[better] = loss[better]
        solution[better] = 0.0
        solution[np.flatnonzero(better)[:, None], index] = found[better]
    return solution, best


def _supports(k: int) -> Sequence[tuple[int, ...]]:
    return [c for size in range(k, 0, -1) for c in itertools.combinations(range(k), size)]
