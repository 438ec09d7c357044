"""Finds the best parameters of a form, for many problems at once.

A problem is a row of weights over the same points: the sample itself, a bootstrap resample, or the sample with its
largest runs hidden. The loss is Huber's on log residuals (Huber 1964; Hoffmann et al. 2022, arXiv:2203.15556, section
3.3). A few damped Gauss-Newton steps from every start of every problem at once tell which starts are worth following;
from there Newton's method goes on, with second derivatives where the form knows them. Rows that have converged leave
the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sizewise.laws.forms.form import Array, Bounds, Form

FINE, COARSE = 1e-8, 1e-4
"""Relative decrease of a loss, promised and seen, below which a row has converged: the answer, and a start's valley."""

LONGEST, SHORT = 20, 6
"""Most iterations of either."""

DAMPING = 1e-3
"""Where damping begins, as a share of the curvature."""

HUBER = 1.345
"""Huber's constant in units of the residual scale: 95 % efficient under normal noise."""

LEAST_SCALE = 1e-7
"""Residual scale below which numbers are taken for exact."""

STARTS, FEWER, KEPT = 12, 5, 2
MOST_VIEWS = 16
BLOCK = 250_000
"""Points × rows × parameters handled at a time, so that a block stays in the processor's cache."""

AGREE = 1e-2
"""Relative difference of two coarse losses that are the same optimum."""


@dataclass(frozen=True)
class Solution:
    """The best fit of each problem.

    Attributes:
        theta: (problems, parameters).
        loss: mean weighted loss (problems,).
        delta: where Huber's loss turns linear (problems,).
        agreeing: of the starts of a problem the share that ended in its best valley (problems,).
    """

    theta: Array
    loss: Array
    delta: Array
    agreeing: Array


@dataclass(frozen=True)
class _Batch:
    """Rows to descend: which problem each belongs to, and what that asks of it.

    Floors move in units of the lowest y and not in their logarithm, where the way to no floor at all would be endless;
    gradients and Hessians are those of such moves.
    """

    form: Form
    x: Array
    log_y: Array
    weights: Array
    delta: Array
    bounds: Bounds
    lowest: float

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> _Batch:
        bounds = Bounds(self.bounds.low[rows], self.bounds.high[rows])
        return _Batch(self.form, self.x, self.log_y, self.weights[rows], self.delta[rows], bounds, self.lowest)

    def look(self, theta: Array, exact: bool) -> _Place:
        """The loss at theta and how it bends: exactly, or as Gauss and Newton took it."""
        value, jacobian = self.form.jacobian(theta, self.x)
        residual, delta = value - self.log_y, self.delta[:, None]
        pull = self.weights * np.clip(residual, -delta, delta)
        gradient = np.matmul(pull[:, None, :], jacobian)[:, 0]
        curvature = self.form.curvature(jacobian, self.x, pull) if exact else None
        if curvature is None:  # with Huber's weights
            bend = self.weights * np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300))
        else:  # the second derivatives of log y are `curvature` minus the outer products of its first ones
            bend = self.weights * (np.abs(residual) <= delta) - pull
        hessian = np.matmul((jacobian * bend[:, :, None]).transpose(0, 2, 1), jacobian)
        if curvature is not None:
            hessian += curvature
        if self._floored:
            floor = np.exp(theta[:, 0] - self.lowest)
            if curvature is not None:
                hessian[:, 0, 0] -= gradient[:, 0]
            gradient[:, 0] /= floor
            hessian[:, 0, :] /= floor[:, None]
            hessian[:, :, 0] /= floor[:, None]
        return _Place(theta, huber(residual, self.weights, self.delta), gradient, hessian)

    def moved(self, theta: Array, step: Array) -> Array:
        trial = theta + step
        if self._floored:
            floor = np.exp(theta[:, 0] - self.lowest) + step[:, 0]
            trial[:, 0] = np.where(step[:, 0] == 0, theta[:, 0], np.log(np.maximum(floor, 1e-300)) + self.lowest)
        return self.bounds.clip(trial)

    @property
    def _floored(self) -> bool:
        return self.form.names[0] == "E"


@dataclass(frozen=True)
class _Place:
    """Where rows are: theta (rows, p), summed loss (rows,), its gradient (rows, p) and Hessian (rows, p, p)."""

    theta: Array
    loss: Array
    gradient: Array
    hessian: Array

    def take(self, rows: NDArray[np.bool_]) -> _Place:
        return _Place(self.theta[rows], self.loss[rows], self.gradient[rows], self.hessian[rows])

    def where(self, better: NDArray[np.bool_], other: _Place) -> _Place:
        """The other place for the rows that are better there."""
        if better.all():
            return other
        one = better[:, None]
        return _Place(
            np.where(one, other.theta, self.theta),
            np.where(better, other.loss, self.loss),
            np.where(one, other.gradient, self.gradient),
            np.where(one[:, :, None], other.hessian, self.hessian),
        )


def search(form: Form, x: Array, log_y: Array, weights: Array, delta: float | None = None) -> Solution:
    """The global optimum of each problem, from a deterministic grid of starts.

    Args:
        x: (points, variables); log_y: (points,); weights: (problems, points).
        delta: where Huber's loss turns linear, in log y; None takes 1.345 times the scale of the residuals, which is
            estimated from a first fit of least squares.
    """
    problems = len(weights)
    starts = np.stack([_starts(form, x, log_y, row, STARTS if i == 0 else FEWER) for i, row in enumerate(weights)])
    batch = _batch(form, x, log_y, weights, np.inf if delta is None else delta)
    theta, loss = _fall(batch, starts, COARSE, SHORT)
    best = loss.min(axis=1)
    agreeing = (loss <= best[:, None] * (1 + AGREE) + 1e-300).sum(axis=1) / np.isfinite(loss).sum(axis=1)
    theta, loss = _kept(theta, loss, KEPT)
    # Every problem also starts from the best answer to the first one.
    theta = np.concatenate([theta, np.broadcast_to(theta[:1, :1], theta[:, :1].shape)], axis=1)
    if delta is None:
        batch = _batch(form, x, log_y, weights, HUBER * scales(form, theta[:, 0], x, log_y, weights))
    theta, loss = _kept(*_fall(batch, theta, FINE, LONGEST), 1)
    return Solution(theta[:, 0], loss[:, 0], np.broadcast_to(batch.delta, problems), agreeing)


def _starts(form: Form, x: Array, log_y: Array, weights: Array, count: int) -> Array:
    """The form's most promising starts for what these weights see, (STARTS, parameters); missing ones are NaN."""
    used = weights > 0
    found = form.starts(x[used], log_y[used], weights[used], count)
    missing = np.full((STARTS - len(found), found.shape[1]), np.nan)
    return np.concatenate([found, missing])


def refit(form: Form, start: Array, x: Array, log_y: Array, weights: Array, delta: float) -> Solution:
    """The optimum of each resample, from the parameters of the whole sample, (parameters,)."""
    batch = _batch(form, x, log_y, weights, delta)
    starts = np.broadcast_to(start, (len(weights), 1, len(start)))
    theta, loss = _fall(batch, starts, FINE, LONGEST)
    return Solution(theta[:, 0], loss[:, 0], batch.delta, np.ones(len(weights)))


def held(
    form: Form, starts: Array, index: NDArray[np.int64], x: Array, log_y: Array, weights: Array, delta: float
) -> Array:
    """Summed loss of each row's best fit with its parameter `index` kept as it starts, (rows,).

    Args:
        starts: (rows, parameters); index: (rows,); weights: (points,).
    """
    rows = np.arange(len(starts))
    batch = _batch(form, x, log_y, np.broadcast_to(weights, (len(starts), len(weights))), delta)
    low, high = batch.bounds.low.copy(), batch.bounds.high.copy()
    low[rows, index] = high[rows, index] = starts[rows, index]
    batch = replace(batch, bounds=Bounds(low, high))
    _, loss = _fall(batch, starts[:, None, :], FINE, LONGEST)
    return np.asarray(loss[:, 0] * weights.sum())


def _batch(form: Form, x: Array, log_y: Array, weights: Array, delta: float | Array) -> _Batch:
    # A problem's bounds follow from the points it sees; resamples see nearly all of them and share one set.
    views = weights if len(weights) <= MOST_VIEWS else np.ones((1, len(x)))
    bounds = [form.bounds(x[row > 0], log_y[row > 0]) for row in views]
    shape = (len(weights), len(bounds[0].low))
    low = np.broadcast_to(np.stack([b.low for b in bounds]), shape)
    high = np.broadcast_to(np.stack([b.high for b in bounds]), shape)
    deltas = np.broadcast_to(delta, len(weights)).astype(float)
    return _Batch(form, x, log_y, weights, deltas, Bounds(low, high), float(log_y.min()))


def _kept(theta: Array, loss: Array, count: int) -> tuple[Array, Array]:
    """The best few rows of each problem, best first."""
    order = np.argsort(loss, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(theta, order[:, :, None], axis=1), np.take_along_axis(loss, order, axis=1)


def _fall(batch: _Batch, starts: Array, tolerance: float, most: int) -> tuple[Array, Array]:
    """From each start down to the bottom of its valley: theta (problems, starts, p), mean loss (problems, starts)."""
    problems, count, size = starts.shape
    theta = np.array(starts, dtype=float).reshape(-1, size)
    owner = np.repeat(np.arange(problems), count)
    loss = np.full(len(theta), np.inf)
    rows = np.flatnonzero(np.isfinite(theta[:, 0]))
    step = max(1, BLOCK // (size * max(len(batch.x), 1)))
    for at in range(0, len(rows), step):
        part = rows[at : at + step]
        theta[part], loss[part] = _descend(batch.take(owner[part]), theta[part], tolerance, most)
    return theta.reshape(starts.shape), loss.reshape(problems, count)


def _descend(batch: _Batch, theta: Array, tolerance: float, most: int) -> tuple[Array, Array]:
    exact = batch.form.curved and tolerance < COARSE
    total, rows = batch.weights.sum(axis=1), np.arange(len(theta))
    best, lowest = np.empty_like(theta), np.empty(len(theta))
    damping = np.full(len(theta), DAMPING)
    at = batch.look(batch.bounds.clip(theta), exact)
    for _ in range(most):
        step, promise = _step(at, damping, batch.bounds, exact)
        trial = batch.look(batch.moved(at.theta, step), exact)
        gain = at.loss - trial.loss
        at = at.where(gain > 0, trial)
        damping *= _trust(gain / np.maximum(promise, 1e-300))
        small = tolerance * at.loss + 1e-300
        left = ~((np.abs(gain) <= small) & (promise <= 10 * small)) & (damping < 1e12)
        if not left.all():
            best[rows[~left]], lowest[rows[~left]] = at.theta[~left], at.loss[~left]
            rows, at, batch, damping = rows[left], at.take(left), batch.take(left), damping[left]
            if not len(rows):
                break
    best[rows], lowest[rows] = at.theta, at.loss
    return best, lowest / total


def _trust(ratio: Array) -> Array:
    """By how much to change the damping, from the ratio of the decrease that was seen to the one that was promised."""
    return np.where(ratio > 0.4, 0.2, np.where(ratio > 0.15, 1.0, np.where(ratio > 0, 3.0, 6.0)))


def _step(at: _Place, damping: Array, bounds: Bounds, exact: bool) -> tuple[Array, Array]:
    """A damped step downhill, and the decrease that it promises."""
    stuck = ((at.theta <= bounds.low) & (at.gradient > 0)) | ((at.theta >= bounds.high) & (at.gradient < 0))
    gradient = np.where(stuck, 0.0, at.gradient)
    hessian = np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, at.hessian)
    if exact:
        step, promise = _newton(gradient, hessian, damping)
    else:
        step, promise = _marquardt(gradient, hessian, damping, stuck)
    return np.where(stuck, 0.0, step), promise


def _newton(gradient: Array, hessian: Array, damping: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh(hessian)
    bend = np.abs(values)  # directions of negative curvature are followed downhill too
    top = bend.max(axis=1, keepdims=True) + 1e-300
    lifted = np.maximum(bend, 1e-14 * top) + damping[:, None] * np.maximum(bend, 1e-4 * top)
    along = np.matmul(vectors.transpose(0, 2, 1), gradient[:, :, None])[:, :, 0]
    return -np.matmul(vectors, (along / lifted)[:, :, None])[:, :, 0], (along**2 / lifted).sum(axis=1)


def _marquardt(gradient: Array, hessian: Array, damping: Array, stuck: NDArray[np.bool_]) -> tuple[Array, Array]:
    """For Hessians without negative curvature: damping in the units of each parameter (Marquardt 1963)."""
    place = np.arange(gradient.shape[1])
    bend = hessian[:, place, place]
    top = bend.max(axis=1, keepdims=True) + 1e-300
    hessian[:, place, place] += np.where(stuck, top, damping[:, None] * np.maximum(bend, 1e-6 * top) + 1e-12 * top)
    step = np.asarray(-np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0])
    return step, -(gradient * step).sum(axis=1)


def huber(residual: Array, weights: Array, delta: Array) -> Array:
    """Summed weighted loss of each row: r²/2 within delta, delta·(|r| - delta/2) beyond."""
    size = np.abs(residual)
    near = np.minimum(size, delta[:, None])
    return np.asarray(np.einsum("kp,kp->k", weights, near * (size - 0.5 * near)))


def scales(form: Form, theta: Array, x: Array, log_y: Array, weights: Array) -> Array:
    """Scale of each fit's residuals: their median size, consistent for normal noise, corrected for what was fitted."""
    residual = np.abs(form.value(theta, x) - log_y)
    order = np.argsort(residual, axis=1)
    cumulative = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    at = (cumulative < cumulative[:, -1:] / 2).sum(axis=1, keepdims=True)
    middle = np.take_along_axis(np.take_along_axis(residual, order, axis=1), at, axis=1)[:, 0]
    points = (weights > 0).sum(axis=1)
    correction = np.sqrt(points / np.maximum(points - theta.shape[1], 1))
    return np.asarray(np.maximum(1.4826 * middle * correction, LEAST_SCALE))
