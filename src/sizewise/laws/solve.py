"""Finds the best parameters of a form, for many problems at once.

A problem is a row of weights over the same points: the sample itself, a bootstrap resample, or the sample with its
largest runs hidden. The loss is Huber's on log residuals (Huber 1964; Hoffmann et al. 2022, arXiv:2203.15556, section
3.3). Newton's method with Levenberg's damping descends from every start of every problem at once; rows that have
converged leave the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sizewise.laws.forms.form import Array, Bounds, Form

FINE, COARSE = 1e-8, 1e-4
"""Relative decrease of a loss, promised and seen, below which a row has converged: the answer, and a start's valley."""

LONGEST, SHORT = 30, 20
"""Most iterations of either."""

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
    """Rows to descend: which problem each belongs to, and what that asks of it."""

    form: Form
    x: Array
    log_y: Array
    weights: Array
    delta: Array
    bounds: Bounds

    def take(self, rows: NDArray[np.int64]) -> _Batch:
        bounds = Bounds(self.bounds.low[rows], self.bounds.high[rows])
        return _Batch(self.form, self.x, self.log_y, self.weights[rows], self.delta[rows], bounds)

    def losses(self, theta: Array) -> Array:
        return huber(self.form.value(theta, self.x) - self.log_y, self.weights, self.delta)


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
    return _Batch(form, x, log_y, weights, np.broadcast_to(delta, len(weights)).astype(float), Bounds(low, high))


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
    theta = batch.bounds.clip(theta)
    total = batch.weights.sum(axis=1)
    loss = batch.losses(theta)
    damping = np.full(len(theta), 0.1)
    active, rows = np.arange(len(theta)), batch
    gradient, hessian = _model(rows, theta)
    for _ in range(most):
        step, promise = _step(gradient[active], hessian[active], damping[active], theta[active], rows.bounds)
        trial = rows.bounds.clip(theta[active] + step)
        trial_loss = rows.losses(trial)
        gain = loss[active] - trial_loss
        better = gain > 0
        moved = active[better]
        theta[moved], loss[moved] = trial[better], trial_loss[better]
        damping[active] *= _trust(gain / np.maximum(promise, 1e-300))
        small = tolerance * loss[active] + 1e-300
        done = ((np.abs(gain) <= small) & (promise <= 10 * small)) | (damping[active] > 1e12)
        if done.any():
            active = active[~done]
            if not len(active):
                break
            rows, better = batch.take(active), better[~done]
        if better.any():
            moved = active[better]
            gradient[moved], hessian[moved] = _model(rows if better.all() else batch.take(moved), theta[moved])
    return theta, loss / total


def _trust(ratio: Array) -> Array:
    """By how much to change the damping, from the ratio of the decrease that was seen to the one that was promised."""
    return np.where(ratio > 0.4, 0.2, np.where(ratio > 0.15, 1.0, np.where(ratio > 0, 3.0, 6.0)))


def _model(batch: _Batch, theta: Array) -> tuple[Array, Array]:
    """Gradient and Hessian of the summed loss: (rows, p) and (rows, p, p)."""
    value, jacobian = batch.form.jacobian(theta, batch.x)
    residual, delta = value - batch.log_y, batch.delta[:, None]
    size = np.abs(residual)
    pull = batch.weights * np.clip(residual, -delta, delta)
    gradient = np.matmul(pull[:, None, :], jacobian)[:, 0]
    curvature = batch.form.curvature(theta, batch.x, pull)
    if curvature is None:  # Gauss-Newton with Huber's weights
        bend = batch.weights * np.minimum(1.0, delta / np.maximum(size, 1e-300))
        return gradient, np.matmul((jacobian * bend[:, :, None]).transpose(0, 2, 1), jacobian)
    bend = batch.weights * (size <= delta)
    # The second derivatives of log y are `curvature` minus the outer products of its first ones.
    return gradient, curvature + np.matmul((jacobian * (bend - pull)[:, :, None]).transpose(0, 2, 1), jacobian)


def _step(gradient: Array, hessian: Array, damping: Array, theta: Array, bounds: Bounds) -> tuple[Array, Array]:
    """A damped Newton step downhill, and the decrease that it promises."""
    stuck = ((theta <= bounds.low) & (gradient > 0)) | ((theta >= bounds.high) & (gradient < 0))
    gradient = np.where(stuck, 0.0, gradient)
    values, vectors = np.linalg.eigh(np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, hessian))
    bend = np.abs(values)  # directions of negative curvature are followed downhill too
    top = bend.max(axis=1, keepdims=True) + 1e-300
    lifted = np.maximum(bend, 1e-14 * top) + damping[:, None] * np.maximum(bend, 1e-4 * top)
    along = np.matmul(vectors.transpose(0, 2, 1), gradient[:, :, None])[:, :, 0]
    step = -np.matmul(vectors, (along / lifted)[:, :, None])[:, :, 0]
    return np.where(stuck, 0.0, step), (along**2 / lifted).sum(axis=1)


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
