"""Whether every size is trained at a fair learning rate, and what is done where it is not.

A recipe's rate follows the width by a rule from the literature (`recipe.at_width`). Before the sweep, short runs at the
smallest, the middle and the largest width try a third of that rate and three times it. Where one of them is surely
better, the rule does not hold for this model on this data: every width is then scanned, and trains at the rate that
did best. Short runs judge a rate by less training than it will get; the probes of the sweep judge it at full length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sizewise import plan, stats
from sizewise.config import Study
from sizewise.records import Estimate, Finding, RateCheck, Recipe, Run, Trial, Tuning
from sizewise.tasks import Task

STEP = 3.0
"""Ratio of neighbouring rates."""

SHARE = 0.5
"""Length of a scan's runs, in those of the sweep."""

SEEDS = 3
TOLERANCE = 0.05
"""Share of the loss that another rate may be better by."""

FURTHEST = 4
"""Steps that a scan may go away from the rule."""

DIVERGED = 1e6
"""The loss that a run without one counts with."""

Train = Callable[[Sequence[Trial]], Sequence[Run]]


def scans(study: Study, task: Task, widths: Sequence[int]) -> tuple[Trial, ...]:
    """The short runs that check the rule: none where the study does not ask, or has too few seeds to tell."""
    if not study.sweep.tune or study.sweep.rates or study.sweep.seeds < SEEDS:
        return ()
    checked = sorted({widths[0], widths[len(widths) // 2], widths[-1]})
    return tuple(trial for width in checked for steps in (-1, 0, 1) for trial in _trials(study, task, width, steps))


def check(study: Study, task: Task, widths: Sequence[int], train: Train) -> Tuning:
    """Check the rule, and scan every width if it does not hold.

    Args:
        study: resolved; its `sweep.rates` are not looked at.
        train: trains trials, or finds the runs of those that are trained already.
    """
    trials = scans(study, task, widths)
    checks = _checks(trials, _losses(trials, train))
    beaten = [check for check in checks if check.ratio.high < 1 - TOLERANCE]
    if not beaten:
        return Tuning("rule", checks, (), _short(study.recipe).epochs)
    best = _scan(study, task, sorted(widths), train)
    return Tuning("scanned", checks, tuple(STEP**steps for steps in best.values()), _short(study.recipe).epochs)


def finding(tuning: Tuning) -> Finding:
    """What was found, in words, with the evidence."""
    evidence = tuple(check.ratio for check in tuning.checks)
    best = min(tuning.checks, key=lambda check: check.ratio.value)
    at = f"{best.factor:.2g} times the rate at width {best.width} has {_times(best.ratio)} its loss"
    widths = ", ".join(map(str, sorted({check.width for check in tuning.checks})))
    if tuning.verdict == "rule":
        return Finding(
            "tuning",
            f"In runs of {tuning.epochs} epochs at widths {widths}, neither a third of the learning rate nor three "
            f"times it is surely better by {TOLERANCE:.0%} of the loss: the nearest, {at}.",
            evidence,
            "trust the comparison of sizes as far as their learning rates go",
        )
    rates = ", ".join(f"{rate:.2g}" for rate in tuning.rates)
    return Finding(
        "tuning",
        f"The rule by which the learning rate follows the width does not hold: in runs of {tuning.epochs} epochs, {at}."
        f" Each width was scanned, and trained at {rates} times the rule's rate.",
        evidence,
        "see whether the probes at full length agree; to keep the rule: --no-tune",
    )


def _times(ratio: Estimate) -> str:
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] times"


def _trials(study: Study, task: Task, width: int, steps: int) -> tuple[Trial, ...]:
    """The seeds of one width at a rate some steps from the rule's."""
    recipe = _short(study.recipe)
    moved = replace(recipe, lr=recipe.lr * STEP**steps)
    plain = replace(study, sweep=replace(study.sweep, rates=()))
    return tuple(plan.trial_at(plain, task, width, seed, moved) for seed in range(SEEDS))


def _short(recipe: Recipe) -> Recipe:
    return replace(recipe, epochs=max(1, round(SHARE * recipe.epochs)))


def _losses(trials: Sequence[Trial], train: Train) -> list[float]:
    """Logarithm of each trial's validation loss; one that failed counts as diverged."""
    found = {_place(run.trial): log_loss(run) for run in train(trials)}
    return [found.get(_place(trial), math.log(DIVERGED)) for trial in trials]


def _place(trial: Trial) -> tuple[int, float, int]:
    return trial.width, trial.recipe.lr, trial.seed


def _checks(trials: Sequence[Trial], logs: Sequence[float]) -> tuple[RateCheck, ...]:
    """The loss at each other rate over that at the rule's, paired by seed."""
    losses: dict[tuple[int, float], list[float]] = {}
    for trial, log in zip(trials, logs, strict=True):
        losses.setdefault((trial.width, trial.recipe.lr), []).append(log)
    found = []
    for width in sorted({width for width, _ in losses}):
        low, rule, high = sorted(rate for w, rate in losses if w == width)
        for rate in (low, high):
            off = np.array(losses[width, rate]) - np.array(losses[width, rule])
            found.append(RateCheck(width, rate / rule, _exponential(stats.mean(off))))
    return tuple(found)


def _exponential(e: Estimate) -> Estimate:
    value, low, high = (math.exp(min(x, 50.0)) for x in (e.value, e.low, e.high))
    return replace(e, value=value, low=low, high=high, method=f"{e.method}, of the logarithm")


def _scan(study: Study, task: Task, widths: Sequence[int], train: Train) -> dict[int, int]:
    """For each width, steps from the rule to the rate with the lowest loss, which has a worse one on either side.

    All widths are tried together, and those whose best lies at an end again, one step further.
    """
    means: dict[int, dict[int, float]] = {width: {} for width in widths}
    best: dict[int, int] = {}
    wanted = [(width, steps) for width in widths for steps in (-1, 0, 1)]
    while wanted:
        trials = {place: _trials(study, task, *place) for place in wanted}
        losses = iter(_losses([trial for group in trials.values() for trial in group], train))
        for width, steps in wanted:
            means[width][steps] = float(np.mean([next(losses) for _ in range(SEEDS)]))
        best = {width: min(found, key=lambda steps: found[steps]) for width, found in means.items()}
        around = [(width, steps + side) for width, steps in best.items() for side in (-1, 1)]
        wanted = [(width, steps) for width, steps in around if steps not in means[width] and abs(steps) <= FURTHEST]
    return best


def log_loss(run: Run) -> float:
    """Logarithm of a run's validation loss; one that diverged has a large one."""
    loss = run.validation.loss
    return math.log(max(loss, 1e-12) if math.isfinite(loss) else DIVERGED)
