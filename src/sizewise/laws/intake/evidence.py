"""What a law is fitted to: runs as rows of positive numbers, with what was left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sizewise.records import Exclusion, Run

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_ROWS = 5_000
"""Forms compete on at most this many rows; the winner is fitted to all of them."""

MOST_EVIDENCE = 1_000_000
"""A law is fitted to at most this many rows."""

BINS = 64


@dataclass(frozen=True)
class Evidence:
    """Runs, one a row.

    Attributes:
        metric: what y is, for example "loss".
        variables: what the columns of x are.
        x: (rows, variables), y: (rows,), all positive; weight: (rows,), mean 1.
        cluster: rows of one cluster share their luck (checkpoints of one run), so they are resampled together.
        stratum: clusters are resampled within strata: repeats of one setting are, since the settings were chosen.
        label: the row number in the user's table, from 1.
        score: (rows,) accuracies or errors in [0, 1] that go with y, NaN where a run has none; None without any.
        excluded: what was left out, and why.
        notes: how the columns were read.
    """

    metric: str
    variables: tuple[str, ...]
    x: Array
    y: Array
    weight: Array
    cluster: Ints
    stratum: Ints
    label: Ints
    excluded: tuple[Exclusion, ...] = ()
    notes: tuple[str, ...] = ()
    subject: str = field(default="runs")
    score: Array | None = None

    @classmethod
    def of_runs(cls, runs: Sequence[Run], metric: str) -> Evidence:
        """A sweep: validation loss (nats) or error against parameters.

        The error is 1 - score, or the score where less is better. k errors of n examples count as (k + 1/2)/(n + 1), so
        that none is zero.
        """
        x = np.array([[run.params] for run in runs], dtype=float).reshape(-1, 1)
        y = np.array([_outcome(run, metric) for run in runs], dtype=float)
        rows = np.arange(len(runs))
        _, stratum = np.unique(x[:, 0], return_inverse=True)
        made = cls(metric, ("params",), x, y, np.ones(len(y)), rows, stratum, rows + 1)
        good = np.isfinite(y) & (y > 0)
        return made.take(good).without(rows[~good], "its outcome is not a positive number")

    @cached_property
    def log_x(self) -> Array:
        return np.log(self.x)

    @cached_property
    def log_y(self) -> Array:
        return np.log(self.y)

    @cached_property
    def scale(self) -> Array:
        """log of the geometric mean of the variables, (rows,): how large a run is."""
        return np.asarray(self.log_x[:, : _sized(self.variables)].mean(axis=1))

    @property
    def decades(self) -> float:
        """Decades of compute between the smallest run and the largest, or of the one variable there is."""
        return float(np.ptp(self.scale)) * _sized(self.variables) / np.log(10) if len(self.x) else 0.0

    @cached_property
    def setting(self) -> Ints:
        """Rows of the same x have the same number, (rows,)."""
        if len(self.x) == 0:
            return np.zeros(0, dtype=np.int64)
        _, inverse = np.unique(self.x, axis=0, return_inverse=True)
        return np.asarray(inverse).reshape(-1)

    @property
    def settings(self) -> int:
        return int(self.setting.max(initial=-1)) + 1

    @cached_property
    def clusters(self) -> int:
        return len(np.unique(self.cluster))

    @cached_property
    def repeats(self) -> int:
        """Runs of the setting that has fewest."""
        return int(np.bincount(self.setting).min()) if len(self.x) else 0

    def take(self, rows: NDArray[np.bool_] | Ints) -> Evidence:
        return replace(
            self,
            x=self.x[rows],
            y=self.y[rows],
            weight=self.weight[rows],
            cluster=self.cluster[rows],
            stratum=self.stratum[rows],
            label=self.label[rows],
            score=None if self.score is None else self.score[rows],
        )

    def without(self, rows: Ints, reason: str) -> Evidence:
        """With a note that these rows, numbered from 0, were left out."""
        if not len(rows):
            return self
        left_out = Exclusion(reason, len(rows), tuple(int(r) + 1 for r in rows[:10]))
        return replace(self, excluded=(*self.excluded, left_out))

    def thinned(self, most: int = MOST_ROWS) -> Evidence:
        """A sample of the rows that stands for all of them, when there are more; see `sample`."""
        if len(self.x) <= most:
            return self
        rows, times = sample(self.scale, most)
        weight = self.weight[rows] * times
        return replace(self.take(rows), weight=weight / weight.mean())


def sample(scale: Array, most: int) -> tuple[Ints, Array]:
    """At most so many rows, and how many rows each of them stands for.

    Rows are drawn at random, but always the same, from bins of their scale. Full bins are thinned and thin ones are
    kept whole, so that the few largest runs, which a law needs most, are never lost among many small ones.

    Args:
        scale: how large each row's run is, (rows,), as a logarithm.
    """
    span = max(float(np.ptp(scale)), 1e-12)
    bins = np.minimum((BINS / span * (scale - scale.min())).astype(np.int8), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    limit = _level(counts, most)
    order = np.argsort(np.random.default_rng(0).random(len(bins), dtype=np.float32) + bins)
    first = np.cumsum(counts) - counts
    kept = np.minimum(counts, limit)
    rows = np.sort(np.concatenate([order[a : a + k] for a, k in zip(first, kept, strict=True)]))
    return rows, (counts / np.maximum(kept, 1))[bins[rows]]


def _level(counts: Ints, most: int) -> int:
    """The largest number that, as a limit to each of the counts, leaves no more than `most` together."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= most else (low, middle - 1)
    return low


def _sized(variables: tuple[str, ...]) -> int:
    """How many of the variables say how large a run is: unique samples do not."""
    return len(variables) - ("unique" in variables)


def _outcome(run: Run, metric: str) -> float:
    if metric == "loss":
        return run.validation.loss
    if run.validation.metric.name != "accuracy":
        return run.validation.error
    examples = sum(map(sum, run.validation.confusion))
    return (run.validation.error * examples + 0.5) / (examples + 1)
