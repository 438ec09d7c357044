"""The compute-optimal size straight from the runs, without a law: approaches 1 and 2 of Hoffmann et al. 2022.

Each is a function of many resamples at once, given as weights (resamples, runs) in which a run that was not drawn has
none; the runs themselves are the resample of ones. Both find places (log C, log N) of optimal models and put a power
law N = G·C^a through them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizewise.laws.intake.evidence import Array, Ints

Mask = NDArray[np.bool_]

LIKE = np.log(2.0)
"""Runs are of comparable compute within this factor."""

GROUP = np.log(1.25)
"""Width of an iso-FLOP group: runs meant to cost the same differ by rounding."""

FEWEST_SIZES = 5
FEWEST_GROUPS = 3
FEWEST_ON_ENVELOPE = 5
LEAST_SPAN = np.log(4.0)
"""The places must reach over this much compute for a slope to mean something."""

DISTINCT = 0.02
"""Sizes closer than this in log N are one size."""


@dataclass(frozen=True)
class Line:
    """log N = level + slope·(log C - pivot), for each resample; NaN where it has too few places.

    Attributes:
        level, slope: (resamples,).
        places: how many each went through, (resamples,).
    """

    level: Array
    slope: Array
    places: Ints
    pivot: float

    def at(self, log_c: float) -> Array:
        return np.asarray(self.level + self.slope * (log_c - self.pivot))


def envelope(log_n: Array, log_c: Array, log_y: Array, weights: Array) -> Line:
    """Approach 1: the runs that no cheaper run beats.

    A run at an end of the sizes that were tried with comparable compute says only that the optimum lies beyond it, so
    it is left out.

    Args:
        log_n, log_c, log_y: (runs,).
    """
    order = np.lexsort([log_y, log_c])
    n, c, y = log_n[order], log_c[order], log_y[order]
    drawn = weights[:, order] > 0
    here = np.where(drawn, y, np.inf)
    before = np.concatenate([np.full((len(here), 1), np.inf), np.minimum.accumulate(here, axis=1)[:, :-1]], axis=1)
    like = np.abs(c[:, None] - c) < LIKE
    apart = n - n[:, None]  # row i: how much larger each other run is than run i
    seen = drawn.astype(np.float64)
    smaller = seen @ (like & (apart < -DISTINCT)).T.astype(np.float64) > 0
    larger = seen @ (like & (apart > DISTINCT)).T.astype(np.float64) > 0
    on = drawn & (here < before) & smaller & larger
    return _line(np.broadcast_to(c, on.shape), np.broadcast_to(n, on.shape), on, FEWEST_ON_ENVELOPE)


def groups(log_n: Array, log_c: Array) -> list[Ints]:
    """Runs of nearly equal compute and enough sizes, (members,) each, in order of compute: the fullest groups first."""
    order = np.argsort(log_c, kind="stable")
    c, free = log_c[order], np.ones(len(order), dtype=bool)
    found: list[Ints] = []
    while True:
        ends = np.searchsorted(c, c + GROUP, side="right")
        sizes = [_sizes(log_n[order[i:e][free[i:e]]]) for i, e in enumerate(ends)]
        best = int(np.argmax(sizes)) if sizes else 0
        if not sizes or sizes[best] < FEWEST_SIZES:
            return sorted(found, key=lambda g: float(log_c[g].mean()))
        window = slice(best, ends[best])
        found.append(order[window][free[window]])
        free[window] = False


def _sizes(log_n: Array) -> int:
    return int((np.diff(np.sort(log_n)) > DISTINCT).sum()) + 1 if len(log_n) else 0


def iso_flop(log_n: Array, log_c: Array, log_y: Array, weights: Array, members: list[Ints]) -> Line:
    """Approach 2: a parabola of log y over log N in each group, and a line through their minima.

    A group counts where its parabola opens upwards with the minimum among its sizes. Within a group runs are moved to
    its mean compute along the general fall of log y with compute.
    """
    fall = float(np.polyfit(log_c, log_y, 1)[0])
    at_c, at_n, good = [], [], []
    for rows in members:
        u, c = log_n[rows], log_c[rows]
        middle, total = float(u.mean()), weights[:, rows].sum(axis=1)
        lowest, ok = _parabola(u - middle, log_y[rows] - fall * (c - c.mean()), weights[:, rows])
        at_c.append((weights[:, rows] @ c) / np.maximum(total, 1e-300))
        at_n.append(lowest + middle)
        good.append(ok)
    if not members:
        nothing = np.full(len(weights), np.nan)
        return Line(nothing, nothing, np.zeros(len(weights), dtype=np.int64), 0.0)
    return _line(np.stack(at_c, 1), np.stack(at_n, 1), np.stack(good, 1), FEWEST_GROUPS)


def _parabola(u: Array, y: Array, weights: Array) -> tuple[Array, Mask]:
    """Where each resample's parabola has its minimum, (resamples,), and whether it has one between its sizes."""
    basis = np.stack([np.ones_like(u), u, u**2], axis=1)
    normal = np.einsum("rm,mi,mj->rij", weights, basis, basis, optimize=True)
    right = np.einsum("rm,mi,m->ri", weights, basis, y, optimize=True)
    drawn = weights > 0
    levels = np.unique(np.round(u / DISTINCT), return_inverse=True)[1].reshape(-1)
    different = (drawn.astype(float) @ (levels[:, None] == np.arange(levels.max() + 1)).astype(float) > 0).sum(axis=1)
    solid = different >= 3
    normal[~solid] = np.eye(3)
    bend = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    up = solid & (bend[:, 2] > 0)
    lowest = -bend[:, 1] / (2 * np.where(up, bend[:, 2], 1.0))
    least = np.where(drawn, u, np.inf).min(axis=1)
    most = np.where(drawn, u, -np.inf).max(axis=1)
    return lowest, up & (lowest > least) & (lowest < most)


def _line(log_c: Array, log_n: Array, on: Mask, fewest: int) -> Line:
    """Least squares through the places that are on, (resamples, places)."""
    pivot = float(log_c[0].mean())
    count = on.sum(axis=1)
    share = on / np.maximum(count, 1)[:, None]
    c, n = np.where(on, log_c - pivot, 0.0), np.where(on, log_n, 0.0)
    mean_c, mean_n = (share * c).sum(axis=1), (share * n).sum(axis=1)
    away = np.where(on, c - mean_c[:, None], 0.0)
    spread = (away**2).sum(axis=1)
    reach = np.where(on, c, -np.inf).max(axis=1) - np.where(on, c, np.inf).min(axis=1)
    enough = (count >= fewest) & (reach >= LEAST_SPAN)
    slope = np.where(enough, (away * n).sum(axis=1) / np.where(enough, spread, 1.0), np.nan)
    return Line(np.where(enough, mean_n - slope * mean_c, np.nan), slope, count.astype(np.int64), pivot)
