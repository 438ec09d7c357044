"""What limits the models, in plain words: each finding is a paired comparison with one thing changed.

Capacity: the largest size against the one before. Data, tuning, training length: the same size and seeds with half the
data for as many steps, another learning rate, twice the epochs. Over-fitting: the end of each learning curve against
the epoch at which the other seeds were best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sizewise import stats, words
from sizewise.paired import compare_runs, example_scores
from sizewise.records import Comparison, Failure, Finding, Run
from sizewise.store import Store

FEWEST_SEEDS = 3
OVERFIT_RISE = 0.05
"""Relative rise of the validation loss above its lowest point that counts as over-fitting."""

ORDER = (
    "failed-runs",
    "badly-tuned",
    "under-trained",
    "over-fitting",
    "capacity-limited",
    "data-limited",
    "not-enough-evidence",
    "validation-limited",
    "saturated",
    "tuning",
)
"""The most pressing first: what makes the sizes incomparable, then what limits them, then what is open or well."""


def diagnose(
    sizes: Mapping[int, Sequence[Run]],
    probes: Sequence[Run],
    store: Store,
    *,
    margin: float = 0.005,
    failures: Sequence[Failure] = (),
    looks: int = 0,
) -> tuple[Finding, ...]:
    """Findings about a sweep, the most pressing first.

    Args:
        sizes: the sweep's runs by width: one recipe, whole training split, several seeds.
        probes: runs of some of these widths and seeds with one thing changed.
        margin: of the metric, in its unit; a smaller difference does not matter.
        failures: trials that have no run.
        looks: seeds that each size could have had, where the runs decided which to train next; see `compare_runs`.
    """
    findings = [*_failed(failures), *_diverged(sizes, probes), *_capacity(sizes, store, margin, looks)]
    for width in sorted({run.trial.width for run in probes} & sizes.keys()):
        findings += _probed(sizes[width], [r for r in probes if r.trial.width == width], store, margin)
    findings += _overfitting(sizes)
    findings += _evidence(sizes, bool(probes))
    return tuple(sorted(findings, key=lambda finding: ORDER.index(finding.code)))


def _failed(failures: Sequence[Failure]) -> list[Finding]:
    if not failures:
        return []
    widths = sorted({failure.trial.width for failure in failures})
    count = "A trial" if len(failures) == 1 else f"{len(failures)} trials"
    return [
        Finding(
            "failed-runs",
            f"{count} of width {', '.join(map(str, widths))} failed, and sizes are compared without: "
            f"{failures[0].reason}",
            (),
            "mend the cause and give the same command again: only what failed is trained",
        )
    ]


def _diverged(sizes: Mapping[int, Sequence[Run]], probes: Sequence[Run]) -> list[Finding]:
    runs = [run for run in (*chain(*sizes.values()), *probes) if run.diverged]
    if not runs:
        return []
    widths = sorted({run.trial.width for run in runs})
    count = "A run" if len(runs) == 1 else f"{len(runs)} runs"
    return [
        Finding(
            "failed-runs",
            f"{count} of width {', '.join(map(str, widths))} diverged, first in epoch "
            f"{min(run.diverged for run in runs)}: the training loss was no longer a number.",
            (),
            "lower the learning rate (--lr) or bound the gradient (--clip 1)",
        )
    ]


def _capacity(sizes: Mapping[int, Sequence[Run]], store: Store, margin: float, looks: int) -> list[Finding]:
    widths = sorted(sizes)
    if len(widths) < 2 or min(map(len, sizes.values())) < FEWEST_SEEDS:
        return []
    before, largest = widths[-2], widths[-1]
    sides = (f"width {largest}", sizes[largest]), (f"width {before}", sizes[before])
    step = compare_runs(store, *sides, looks=looks)
    found = []
    if step.difference.low > 0 and step.difference.value >= margin:
        found.append(
            Finding(
                "capacity-limited",
                f"Growing from width {before} to {largest} still gains {_points(step)}: the models are too small.",
                (step.difference,),
                f"add larger sizes: --largest {2 * largest}",
            )
        )
    elif step.difference.high < margin:
        found.append(
            Finding(
                "saturated",
                f"Growing from width {before} to {largest} gains {_points(step)}, less than the "
                f"{words.amount(margin, step.metric)} that matter: more parameters are not what is missing.",
                (step.difference,),
                "spend on data or training instead of size",
            )
        )
    else:
        found.append(
            Finding(
                "not-enough-evidence",
                f"Whether growing from width {before} to {largest} matters is open: it gains {_points(step)}.",
                (step.difference,),
                f"train more seeds: --seeds {2 * step.difference.n}",
            )
        )
    examples = example_scores(store, sizes[largest][:1]).shape[1]
    half = (step.population.high - step.population.low) / 2
    if half > margin:
        found.append(
            Finding(
                "validation-limited",
                f"The {examples:,} validation examples resolve differences of ±{words.about(half, step.metric)} for "
                f"unseen data, wider than the margin of {words.amount(margin, step.metric)}: conclusions hold for this "
                "split.",
                (step.population,),
                "put more examples into the validation split, or accept a wider --margin",
            )
        )
    return found


def _probed(base: Sequence[Run], probes: Sequence[Run], store: Store, margin: float) -> list[Finding]:
    found = []
    seeds = {run.trial.seed for run in base}
    # Of many comparisons over three pairs some agree by luck. The scatter of the sweep's own runs tells how much.
    scatter = math.sqrt(2) * float(np.std([run.validation.score for run in base], ddof=min(1, len(base) - 1)))
    for label, group in _variations(base[0], [run for run in probes if run.trial.seed in seeds]).items():
        if len(group) < FEWEST_SEEDS:
            continue
        width = group[0].trial.width
        kind, _, change = label.partition(":")
        changed = compare_runs(store, (change, group), (f"width {width}", base), scatter=scatter)
        gain, loss = changed.difference.low > 0, changed.difference.high < 0
        matters = abs(changed.difference.value) >= margin
        if kind == "lr" and gain and matters:
            found.append(_tuned(width, change, changed))
        elif kind == "epochs" and gain and matters:
            found.append(_undertrained(width, change, changed))
        elif kind == "fraction" and loss and matters:
            found.append(_data(width, change, changed))
    return found


def _variations(base: Run, probes: Sequence[Run]) -> dict[str, list[Run]]:
    """Probes grouped by the one thing that sets them apart from the sweep: "kind:what changed"."""
    groups: dict[str, list[Run]] = {}
    for run in probes:
        trial, recipe = run.trial, base.trial.recipe
        if trial.fraction != base.trial.fraction:
            label = f"fraction:{trial.fraction:.0%} of the data"
        elif trial.recipe.epochs != recipe.epochs:
            label = f"epochs:{trial.recipe.epochs} instead of {recipe.epochs} epochs"
        else:
            label = f"lr:{trial.recipe.lr / recipe.lr:.2g} times the learning rate"
        groups.setdefault(label, []).append(run)
    return groups


def _tuned(width: int, change: str, changed: Comparison) -> Finding:
    return Finding(
        "badly-tuned",
        f"At width {width}, {change} gains {_points(changed)}: this size is not trained fairly.",
        (changed.difference,),
        "tune the learning rate before trusting the size comparison: --lr",
    )


def _undertrained(width: int, change: str, changed: Comparison) -> Finding:
    return Finding(
        "under-trained",
        f"At width {width}, {change} gain {_points(changed)}: training stops too early.",
        (changed.difference,),
        "train longer: --effort standard, or --epochs",
    )


def _data(width: int, change: str, changed: Comparison) -> Finding:
    return Finding(
        "data-limited",
        f"At width {width}, {change} for as many steps costs {_points(changed, sign=-1)}: more data would likely help.",
        (changed.difference,),
        "collect or augment data before growing the model",
    )


def _overfitting(sizes: Mapping[int, Sequence[Run]]) -> list[Finding]:
    worst = None
    for width, runs in sorted(sizes.items()):
        rises = _rises(runs)
        if len(rises) < FEWEST_SEEDS:
            continue
        rise = stats.mean(rises)
        if rise.low > OVERFIT_RISE and (worst is None or rise.value > worst[1].value):
            worst = (width, rise)
    if worst is None:
        return []
    width, rise = worst
    return [
        Finding(
            "over-fitting",
            f"At width {width} the validation loss ends {rise.value:.0%} [{rise.low:.0%}, {rise.high:.0%}] above its "
            f"lowest point while the training loss goes on falling ({rise.n} seeds).",
            (rise,),
            "stop early (--patience 3), add weight decay or data",
        )
    ]


def _rises(runs: Sequence[Run]) -> NDArray[np.float64]:
    """Relative rise of each run's validation loss from the best epoch of the other runs to the end; empty for none.

    A run's own lowest point is low by luck too: measured from there, every noisy curve would rise.
    """
    runs = [run for run in runs if not run.trial.recipe.patience and math.isfinite(run.curve[-1].train_loss)]
    if len(runs) < 2:
        return np.array([])
    train = np.array([[point.train_loss for point in run.curve] for run in runs])
    validation = np.array([[point.validation_loss for point in run.curve] for run in runs])
    best = [int(np.delete(validation, i, axis=0).mean(axis=0).argmin()) for i in range(len(runs))]
    at_best = np.arange(len(runs)), best
    if train[:, -1].mean() >= train[at_best].mean():
        return np.array([])
    with np.errstate(divide="ignore", invalid="ignore"):  # a perfect epoch has a loss of 0, and no relative rise
        return np.asarray(validation[:, -1] / validation[at_best] - 1)


def _evidence(sizes: Mapping[int, Sequence[Run]], probed: bool) -> list[Finding]:
    seeds = min(map(len, sizes.values()), default=0)
    found = []
    if seeds < FEWEST_SEEDS:
        found.append(
            Finding(
                "not-enough-evidence",
                f"Some sizes have {seeds} seeds; with fewer than {FEWEST_SEEDS} nothing can be told from noise.",
                (),
                "train more seeds: --seeds 5",
            )
        )
    if not probed:
        found.append(
            Finding(
                "not-enough-evidence",
                "Learning rate, training length and amount of data were not varied, so they are not diagnosed.",
                (),
                "run without --no-probes, or with a longer --time",
            )
        )
    return found


def _points(comparison: Comparison, sign: int = 1) -> str:
    d, metric = comparison.difference, comparison.metric
    low, high = sorted((sign * d.low, sign * d.high))
    said = words.interval(replace(d, value=sign * d.value, low=low, high=high), metric, sign=False)
    of = f"points of {metric.name}" if metric.share else metric.name
    return f"{said} {of} ({d.n} seeds)"
