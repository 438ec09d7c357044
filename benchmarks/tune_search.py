"""Searches for recipes with one budget: `sizewise tune`, random search, and Optuna's default.

Run by `tune.py`.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from tune_tasks import SEARCHED, workspace

from sizewise import plan, stats, tune
from sizewise.loop import Data, Start, train_one, unused
from sizewise.records import Proposal, Recipe, Run, Trial
from sizewise.store import Store
from sizewise.study import Workspace
from sizewise.tune.rates import log_loss
from sizewise.tune.search import FRACTION
from sizewise.tune.verify import scores

REPEATS = 5
APART = 100
"""Seeds of one repeat and the next."""

BUDGET = 12.0
"""Of a search, in runs of full length: a run of a third of the epochs is a third of one."""

CHECKPOINTS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0)
TUNE = "`sizewise tune`"


class Ledger:
    """Trains trials in this process, keeps the best loss of full-length runs, and what all of them cost.

    What another search has trained already, in `trained`, costs as much again.
    """

    def __init__(self, space: Workspace, root: Path, budget: float = BUDGET, trained: Store | None = None) -> None:
        self.data, self.store, self.epochs = Data.of(space.task), Store(root), space.study.recipe.epochs
        self.budget, self.trained = budget, trained or self.store
        self.spent, self.curve, self.fresh = 0.0, list[tuple[float, float, Run]](), math.nan

    def __call__(self, trials: Sequence[Trial]) -> list[Run]:
        """The runs of the trials; as a whole they may exceed the budget, and what exceeds it is not looked at."""
        return [self.train(trial) for trial in trials]

    def train(self, trial: Trial) -> Run:
        """One run."""
        run = self.trained.find_run(trial) or train_one(trial, self.data, self.trained, Start())
        self.spent += trial.recipe.epochs / self.epochs
        if trial.recipe.epochs == self.epochs and math.isfinite(run.validation.loss):
            self.curve.append((self.spent, run.validation.loss, run))
        return run

    def best(self, budget: float) -> Run | None:
        """The run with the lowest validation loss of those that the budget paid for."""
        paid = [(loss, run) for spent, loss, run in self.curve if spent <= budget + 1e-9]
        return min(paid, key=lambda one: one[0])[1] if paid else None


def fresh_score(ledger: Ledger, space: Workspace) -> float:
    """What the best run of a search scores on the samples that no search learned from."""
    run, rest = ledger.best(ledger.budget), unused(space.task, FRACTION)
    assert run is not None
    return float(scores(run, rest, space.task, ledger.trained).mean())


class SpentError(Exception):
    """The budget of a search is used up."""


def searching(space: Workspace, width: int, ledger: Ledger, seed: int, first: Sequence[Proposal] = ()) -> None:
    """`sizewise tune`, with recipes of other tasks if there are any."""

    def train(trials: Sequence[Trial]) -> list[Run]:
        if ledger.spent >= ledger.budget:
            raise SpentError
        return ledger(trials)

    with contextlib.suppress(SpentError):
        tune.search(space.study, space.task, width, ledger.store, train, trials=1000, seed=seed, first=first)


def whole_runs(space: Workspace, width: int, ledger: Ledger, sampler: Any) -> None:
    """Optuna with a sampler, every proposal trained to the end, the study's own recipe first."""
    around = tune.Space.of(space.study, space.task.signature, width)
    made = optuna.create_study(sampler=sampler)
    made.enqueue_trial(around.values_of(space.study.recipe) or {})
    while ledger.spent < ledger.budget:
        asked = made.ask()
        recipe = around.propose(asked).recipe
        run = ledger.train(plan.trial_at(space.study, space.task, width, 0, recipe, FRACTION))
        made.tell(asked, log_loss(run))


Way = Callable[[Ledger, int], None]


def searches(name: str, space: Workspace, ways: Mapping[str, Way]) -> dict[str, list[Ledger]]:
    """Every search of a task, by its way."""
    found: dict[str, list[Ledger]] = {way: [] for way in ways}
    for repeat in range(REPEATS):
        for way, search in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                ledger = Ledger(space, Path(folder))
                search(ledger, APART * repeat)
                ledger.fresh = fresh_score(ledger, space)
            found[way].append(ledger)
            print(f"{name}, {way}, repeat {repeat}: {len(ledger.curve)} full runs", file=sys.stderr, flush=True)
    return found


def searched(names: Sequence[str], root: Path) -> None:
    """Print the table of searches: regret against the lowest loss that any search of the task found."""
    header = ("task, width", "search", *(f"regret after {b:g} runs" for b in CHECKPOINTS), "score on fresh samples")
    print(f"| {' | '.join(header)} |\n" + "|---" * len(header) + "|")
    for name in names:
        space, width = workspace(name, root), SEARCHED[name]
        found = searches(name, space, cold(space, width))
        least = min(loss for ledgers in found.values() for ledger in ledgers for _, loss, _ in ledger.curve)
        for way, ledgers in found.items():
            cells = [regret(ledgers, budget, least) for budget in CHECKPOINTS]
            score = stats.mean(np.array([ledger.fresh for ledger in ledgers]), unit="repeats")
            cells.append(f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]")
            print(f"| {name}, {width} | {way} | {' | '.join(cells)} |", flush=True)


def cold(space: Workspace, width: int) -> dict[str, Way]:
    """Searches that know nothing of other tasks."""
    samplers = {"random search": optuna.samplers.RandomSampler, "Optuna's default": optuna.samplers.TPESampler}

    def whole(sampler: Callable[..., Any]) -> Way:
        return lambda ledger, seed: whole_runs(space, width, ledger, sampler(seed=seed))

    ours: Way = lambda ledger, seed: searching(space, width, ledger, seed)  # noqa: E731
    return {way: whole(sampler) for way, sampler in samplers.items()} | {TUNE: ours}


RANKED = 40
"""Recipes that are drawn at random and trained for several lengths."""


def short(names: Sequence[str], root: Path) -> None:
    """Print Spearman's correlation of the losses of short and whole runs, with its interval by Fisher's z."""
    lengths = (1 / 9, 1 / 3, 1 / 2)
    print(f"| task, width | recipes | {' | '.join(f'of {share:.2f} of the epochs' for share in lengths)} |")
    print("|---" * (2 + len(lengths)) + "|")
    for name in names:
        space = workspace(name, root)
        around, made = tune.Space.of(space.study, space.task.signature, SEARCHED[name]), optuna.create_study()
        made.sampler = optuna.samplers.RandomSampler(seed=0)
        tried = [around.propose(made.ask()).recipe for _ in range(RANKED)]
        whole = losses(space, SEARCHED[name], tried, 1.0)
        cells = [correlation(losses(space, SEARCHED[name], tried, share), whole) for share in lengths]
        print(f"| {name}, {SEARCHED[name]} | {RANKED} | {' | '.join(cells)} |", flush=True)


def losses(space: Workspace, width: int, tried: Sequence[Recipe], share: float) -> list[float]:
    """Logarithm of the validation loss of each recipe, trained for a share of its epochs."""
    short = [replace(one, epochs=max(1, round(share * one.epochs))) for one in tried]
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(space, Path(folder))
        trials = [plan.trial_at(space.study, space.task, width, 0, one, FRACTION) for one in short]
        return [log_loss(run) for run in ledger(trials)]


def correlation(a: Sequence[float], b: Sequence[float]) -> str:
    """Spearman's, with a 95 % interval (the variance of Bonett & Wright 2000)."""
    from scipy.stats import spearmanr

    rho = float(spearmanr(a, b).statistic)
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    low, high = (math.tanh(math.atanh(rho) + side * half) for side in (-1, 1))
    return f"{rho:.2f} [{low:.2f}, {high:.2f}]"


def regret(ledgers: Sequence[Ledger], budget: float, least: float) -> str:
    """Loss of the best so far over the least known, less 1: the mean of the repeats with its interval."""
    runs = [ledger.best(budget) for ledger in ledgers]
    e = stats.mean(np.array([run.validation.loss / least - 1 for run in runs if run]), unit="repeats")
    return f"{e.value:.1%} [{e.low:.1%}, {e.high:.1%}]"
