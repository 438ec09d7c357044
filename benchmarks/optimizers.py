"""Optimizers that adapt more than a step's size, beside AdamW with a cosine schedule.

    python benchmarks/optimizers.py            all tasks of tune_tasks.py
    python benchmarks/optimizers.py digits     one of them

Each is compared twice. *As it comes*: AdamW and Schedule-Free AdamW at the study's rate, Prodigy with the factor 1. *At
its best rate*: of five rates around that (of three factors), by mean validation loss over three seeds, for AdamW as for
the others. Comparisons are those of `sizewise tune`: five other seeds, paired, on samples that no run learned from and
no rate was chosen by.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tune_tasks import SEARCHED, TASKS

from sizewise import plan, tune, words
from sizewise.config import Study
from sizewise.records import Proposal, Recipe, Trial, Verification
from sizewise.study import Workspace
from sizewise.tune.search import FRACTION, by_key

OTHERS = ("schedule-free", "prodigy")
FACTORS = {
    "adamw": (1 / 9, 1 / 3, 1.0, 3.0, 9.0),
    "schedule-free": (1 / 9, 1 / 3, 1.0, 3.0, 9.0),
    "prodigy": (1 / 3, 1.0, 3.0),
}
SCANNED = (11, 12, 13)
"""Seeds that rates are chosen by; the comparison takes others."""


def recipe_of(study: Study, optimizer: str, factor: float) -> Recipe:
    """The study's recipe with another optimizer, at a factor of its usual rate."""
    rate = 1.0 if optimizer == "prodigy" else study.recipe.lr
    return replace(study.recipe, optimizer=optimizer, lr=factor * rate, schedule="cosine")


class Bench:
    """One task's study at the width at which recipes are searched for."""

    def __init__(self, name: str, root: Path, workers: int) -> None:
        study = replace(TASKS[name], sweep=replace(TASKS[name].sweep, workers=workers))
        self.name, self.width = name, SEARCHED[name]
        self.space = Workspace.create(study, root / name)

    def best(self, optimizer: str) -> float:
        """The factor with the lowest mean validation loss."""
        space, factors = self.space, FACTORS[optimizer]
        trials = {
            factor: [self._trial(recipe_of(space.study, optimizer, factor), seed) for seed in SCANNED]
            for factor in factors
        }
        runs = by_key(space.run_trials([t for group in trials.values() for t in group], lambda trial: 1.0))

        def loss(factor: float) -> float:
            found = [runs[t.key].validation.loss if t.key in runs else math.inf for t in trials[factor]]
            return float(np.mean([one if math.isfinite(one) else math.inf for one in found]))

        return min(factors, key=loss)

    def _trial(self, recipe: Recipe, seed: int) -> Trial:
        return plan.trial_at(self.space.study, self.space.task, self.width, seed, recipe, FRACTION)

    def beside_adamw(self, optimizer: str, factor: float, adamw: float) -> Verification:
        """One optimizer at a rate beside AdamW at another."""
        space = self.space
        study = replace(space.study, recipe=recipe_of(space.study, "adamw", adamw))
        tried = Proposal(recipe_of(space.study, optimizer, factor), study.family)
        train = lambda trials: space.run_trials(trials, lambda trial: 1.0)  # noqa: E731
        return tune.verify(study, space.task, space.store, tried, (self.width,), train).found[0]


def row(bench: Bench, optimizer: str, how: str, rates: tuple[float, float], v: Verification) -> str:
    """One line of the table."""
    metric, fresh = v.fresh.metric, v.fresh
    cells = (
        f"{bench.name}, {bench.width}",
        optimizer,
        f"{how} ({rates[0]:.2g}; AdamW {rates[1]:.2g})",
        f"{metric.name} {words.score(fresh.a_mean, metric)}, AdamW {words.score(fresh.b_mean, metric)}",
        f"{words.interval(fresh.difference, metric)} over {fresh.difference.n} seeds",
        words.interval(fresh.population, metric),
        v.verdict,
    )
    return f"| {' | '.join(cells)} |"


HEADER = (
    "task, width", "optimizer", "rates, in the usual one", "mean score on fresh samples", "better by",
    "for other samples, too", "verdict",
)  # fmt: skip


def table(names: Sequence[str], root: Path, workers: int) -> None:
    """Print every comparison."""
    print(f"| {' | '.join(HEADER)} |\n" + "|---" * len(HEADER) + "|")
    for name in names:
        bench = Bench(name, root, workers)
        adamw = bench.best("adamw")
        for optimizer in OTHERS:
            factor = bench.best(optimizer)
            for how, rates in (("as it comes", (1.0, 1.0)), ("each at its best rate", (factor, adamw))):
                print(row(bench, optimizer, how, rates, bench.beside_adamw(optimizer, *rates)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"tasks (default: all of {', '.join(TASKS)})")
    parser.add_argument("--out", type=Path, default=Path("runs/optimizers"), help="where runs are kept")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    table(options.names or list(TASKS), options.out, options.workers)


if __name__ == "__main__":
    main()
