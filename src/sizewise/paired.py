"""Two sets of runs, paired by seed and by validation example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sizewise import sequential, stats
from sizewise.errors import UsageError
from sizewise.families.weights import read_weights
from sizewise.records import Comparison, Estimate, Run
from sizewise.store import Store

Array = NDArray[np.float64]

Side = tuple[str, Run, Array]

ROUNDING = 6**-0.5
"""Standard deviation, in examples, of the difference of two counts that were rounded to whole examples. Without it two
or three seeds of a small validation split, whose differences often coincide, would be certain of anything."""


def example_scores(store: Store, runs: Sequence[Run]) -> Array:
    """What each validation example contributes to the score of each run, shape (runs, examples)."""
    metric = runs[0].validation.metric.name
    folders = (store.trial_folder(run.trial.key) for run in runs)
    return np.stack([read_weights(folder / "validation.safetensors")[metric].numpy() for folder in folders])


def compare_runs(
    store: Store,
    a: tuple[str, Sequence[Run]],
    b: tuple[str, Sequence[Run]],
    *,
    level: float = stats.LEVEL,
    scatter: float = 0.0,
    looks: int = 0,
) -> Comparison:
    """Compare two labelled sets of runs on the seeds they share: how much better a is than b.

    Args:
        scatter: least standard deviation of a paired difference to believe, where other runs have shown it.
        looks: seeds that there could have been, where runs were looked at while they came in: the intervals then hold
            at all those looks together, see `sequential`. 0 is a number of seeds that was fixed before.

    Raises:
        UsageError: they share no seed.
    """
    (a_label, a_runs), (b_label, b_runs) = a, b
    a_runs, b_runs = _shared_seeds(a_label, a_runs, b_label, b_runs)
    sides = [(label, runs[0], example_scores(store, runs)) for label, runs in ((a_label, a_runs), (b_label, b_runs))]
    return compare_scores(sides[0], sides[1], level=level, scatter=scatter, looks=looks)


def compare_scores(a: Side, b: Side, *, level: float = stats.LEVEL, scatter: float = 0.0, looks: int = 0) -> Comparison:
    """The same of scores that are known: of each side a label, one of its runs, and (seeds, examples), in one order."""
    (a_label, a_run, scores_a), (b_label, b_run, scores_b) = a, b
    metric = a_run.validation.metric
    better, worse = (scores_a, scores_b) if metric.higher else (scores_b, scores_a)
    floor = max(scatter, _rounding(scores_a, scores_b))
    plain = sequential.nominal(len(scores_a), looks, level) if looks else level
    difference, p_value = _over_seeds(better.mean(axis=1), worse.mean(axis=1), plain, floor)
    population = stats.paired_population(better, worse, level=plain) if len(scores_a) > 1 else difference
    if looks:
        difference, population = (_repeated(e, level, looks) for e in (difference, population))
        p_value = math.nan  # the t-test's is that of a single look
    return Comparison(
        a=a_label,
        b=b_label,
        metric=metric,
        a_mean=float(scores_a.mean()),
        b_mean=float(scores_b.mean()),
        a_params=a_run.params,
        b_params=b_run.params,
        difference=difference,
        population=population,
        p_value=p_value,
        verdict=verdict(difference),
    )


def verdict(difference: Estimate) -> Literal["a is better", "b is better", "undetermined"]:
    """Which side an interval is on; a single seed has none and settles nothing."""
    if difference.low > 0:
        return "a is better"
    return "b is better" if difference.high < 0 else "undetermined"


def median_run(runs: Sequence[Run]) -> Run:
    """The run that stands for a group of seeds: the median by validation loss, not the lucky one."""
    ordered = sorted(runs, key=lambda run: math.inf if math.isnan(run.validation.loss) else run.validation.loss)
    return ordered[(len(ordered) - 1) // 2]


def _rounding(a: Array, b: Array) -> float:
    """Scores that count examples come in steps of one example."""
    counts = all(np.isin(scores, (0.0, 1.0)).all() for scores in (a, b))
    return ROUNDING / a.shape[1] if counts else 0.0


def _repeated(e: Estimate, level: float, looks: int) -> Estimate:
    """An interval by the level that it has over all looks."""
    return replace(e, level=level, method=f"{e.method}, repeated: at most {looks} were planned")


def _over_seeds(a: Array, b: Array, level: float, floor: float) -> tuple[Estimate, float]:
    if len(a) < 2:
        nothing = Estimate(float((a - b).mean()), math.nan, math.nan, level, "no interval from a single seed", len(a))
        return nothing, math.nan
    return stats.paired(a, b, level=level, floor=floor)


def _shared_seeds(
    a_label: str, a: Sequence[Run], b_label: str, b: Sequence[Run]
) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    by_seed_a, by_seed_b = {run.trial.seed: run for run in a}, {run.trial.seed: run for run in b}
    seeds = sorted(by_seed_a.keys() & by_seed_b.keys())
    if not seeds:
        raise UsageError(
            f"{a_label!r} and {b_label!r} have no seed in common: {sorted(by_seed_a)} and {sorted(by_seed_b)}",
            hint="train both with the same seeds",
        )
    return tuple(by_seed_a[s] for s in seeds), tuple(by_seed_b[s] for s in seeds)
