"""Searches for recipes with one budget: `sizewise tune`, cold and told of others, random search, and Optuna's default.

Run by `tune.py`.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from tune_tasks import SEARCHED, TASKS

from sizewise import library, plan, stats, tune
from sizewise.loop import Data, Start, train_one, unused
from sizewise.recipe import at_width
from sizewise.records import Recipe, Run, Trial
from sizewise.store import Store, read_json, write_json
from sizewise.study import Workspace
from sizewise.tune.rates import log_loss
from sizewise.tune.search import FRACTION, LEADERS
from sizewise.tune.verify import scores

REPEATS = 5
SUGGESTED = 3
"""Recipes of other tasks that a search begins with: one in four of its runs, as in the product."""

APART = 100
"""Seeds of one repeat and the next."""

BUDGET = 12.0
"""Of a search, in runs of full length: a run of a third of the epochs is a third of one."""

CHECKPOINTS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0)
TUNE = "`sizewise tune`"


class Ledger:
    """Trains trials in this process, keeps the best loss of full-length runs, and what all of them cost."""

    def __init__(self, space: Workspace, root: Path) -> None:
        self.data, self.store, self.epochs = Data.of(space.task), Store(root), space.study.recipe.epochs
        self.spent, self.curve, self.fresh = 0.0, list[tuple[float, float, Run]](), math.nan

    def __call__(self, trials: Sequence[Trial]) -> list[Run]:
        """The runs of the trials; as a whole they may exceed the budget, and what exceeds it is not looked at."""
        return [self.train(trial) for trial in trials]

    def train(self, trial: Trial) -> Run:
        """One run."""
        run = self.store.find_run(trial) or train_one(trial, self.data, self.store, Start())
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
    run, rest = ledger.best(BUDGET), unused(space.task, FRACTION)
    assert run is not None
    return float(scores(run, rest, space.task, ledger.store).mean())


class SpentError(Exception):
    """The budget of a search is used up."""


def searching(space: Workspace, width: int, ledger: Ledger, seed: int, first: Sequence[Recipe] = ()) -> None:
    """`sizewise tune`, with recipes of other tasks if there are any."""

    def train(trials: Sequence[Trial]) -> list[Run]:
        if ledger.spent >= BUDGET:
            raise SpentError
        return ledger(trials)

    with contextlib.suppress(SpentError):
        tune.search(space.study, space.task, width, ledger.store, train, trials=1000, seed=seed, first=first)


def whole_runs(space: Workspace, width: int, ledger: Ledger, sampler: Any) -> None:
    """Optuna with a sampler, every proposal trained to the end, the study's own recipe first."""
    around = tune.Space.of(space.study, space.task.signature, width)
    made = optuna.create_study(sampler=sampler)
    made.enqueue_trial(around.values_of(space.study.recipe) or {})
    while ledger.spent < BUDGET:
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


@dataclass(frozen=True)
class Known:
    """What a task's cold searches came to.

    Attributes:
        features: of the task, as the library compares them.
        least: the lowest loss of any search.
        leaders: the best recipes of each repeat of `sizewise tune`, best first, at the reference width.
        losses, fresh: of each repeat: of the best run, and its score on the samples that no search learned from.
    """

    family: str
    features: dict[str, float]
    least: float
    leaders: tuple[tuple[Recipe, ...], ...]
    losses: tuple[float, ...]
    fresh: tuple[float, ...]


def searched(names: Sequence[str], root: Path) -> None:
    """Print the table of searches: regret against the lowest loss that any search of the task found."""
    header = ("task, width", "search", *(f"regret after {b:g} runs" for b in CHECKPOINTS), "score on fresh samples")
    print(f"| {' | '.join(header)} |\n" + "|---" * len(header) + "|")
    for name in names:
        space, width = Workspace.create(TASKS[name], root / name), SEARCHED[name]
        found = searches(name, space, cold(space, width))
        known = learned(space, width, found)
        write_json(root / f"searched-{name}.json", known)
        for way, ledgers in found.items():
            cells = [regret(ledgers, budget, known.least) for budget in CHECKPOINTS]
            score = stats.mean(np.array([ledger.fresh for ledger in ledgers]), unit="repeats")
            cells.append(f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]")
            print(f"| {name}, {width} | {way} | {' | '.join(cells)} |", flush=True)


@dataclass(frozen=True)
class Told:
    """What one repeat of a task's search leaves to the others, as a precedent has it."""

    recipes: tuple[Recipe, ...]


def warm(names: Sequence[str], root: Path) -> None:
    """Print what a search saves that starts with the best recipes of other tasks of its family, as the library says.

    Repeat k of a task is told what repeat k of each other one found: no more than one finished study of each.
    """
    header = (
        "task, width", "told by, and how far", "cold: least loss after 12 runs", "runs until the warm one had it",
        "share of the cold one's", "warm: least loss", "fresh score, warm less cold",
    )  # fmt: skip
    print(f"| {' | '.join(header)} |\n" + "|---" * len(header) + "|")
    records = {name: root / f"searched-{name}.json" for name in TASKS}
    everything = {name: read_json(path, Known) for name, path in records.items() if path.exists()}
    for name in names:
        own = everything[name]
        others = {other: known for other, known in everything.items() if other != name and known.family == own.family}
        far = {other: library.distance(own.features, known.features) for other, known in others.items()}
        if far:
            by = ", ".join(f"{other} {far[other]:.2f}" for other in sorted(far, key=lambda other: far[other]))
            first = [library.recipes(similar(others, far, repeat), SUGGESTED) for repeat in range(REPEATS)]
            print(saved(name, root, own, by, first), flush=True)


def similar(others: Mapping[str, Known], far: Mapping[str, float], repeat: int) -> list[library.Similar]:
    """One repeat of each other task, nearest first."""
    near = sorted(others, key=lambda other: far[other])
    return [library.Similar(Told(others[other].leaders[repeat]), far[other]) for other in near]  # type: ignore[arg-type]


def saved(name: str, root: Path, own: Known, by: str, first: Sequence[Sequence[Recipe]]) -> str:
    """One line of the table."""
    space, width = Workspace.create(TASKS[name], root / name), SEARCHED[name]
    told: Way = lambda ledger, seed: searching(space, width, ledger, seed, first[seed // APART])  # noqa: E731
    ledgers, goal = searches(name, space, {"warm": told})["warm"], float(np.mean(own.losses))
    runs = [next((spent for spent, loss, _ in one.curve if loss <= goal), math.inf) for one in ledgers]
    reached = [one for one in runs if one <= BUDGET]
    least = [run.validation.loss for one in ledgers if (run := one.best(BUDGET))]
    gain = stats.mean(np.array([one.fresh for one in ledgers]) - np.array(own.fresh), unit="repeats")
    often = "" if len(reached) == len(runs) else f" in {len(reached)} of {len(runs)}"
    cells = (
        f"{name}, {width}", by, f"{goal:.4f}",
        ", ".join(f"{one:g}" if one <= BUDGET else "never" for one in runs),
        f"{np.mean(reached) / BUDGET:.0%}{often}" if reached else "never",
        f"{np.mean(least):.4f}",
        f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def cold(space: Workspace, width: int) -> dict[str, Way]:
    """Searches that know nothing of other tasks."""
    samplers = {"random search": optuna.samplers.RandomSampler, "Optuna's default": optuna.samplers.TPESampler}

    def whole(sampler: Callable[..., Any]) -> Way:
        return lambda ledger, seed: whole_runs(space, width, ledger, sampler(seed=seed))

    ours: Way = lambda ledger, seed: searching(space, width, ledger, seed)  # noqa: E731
    return {way: whole(sampler) for way, sampler in samplers.items()} | {TUNE: ours}


def learned(space: Workspace, width: int, found: Mapping[str, Sequence[Ledger]]) -> Known:
    """What a task's searches leave to others, and to be compared with."""
    ours = found[TUNE]
    best = [run for ledger in ours if (run := ledger.best(BUDGET))]
    return Known(
        family=space.study.family,
        features=library.features(space.task),
        least=min(loss for ledgers in found.values() for ledger in ledgers for _, loss, _ in ledger.curve),
        leaders=tuple(leaders(ledger, width) for ledger in ours),
        losses=tuple(run.validation.loss for run in best),
        fresh=tuple(ledger.fresh for ledger in ours),
    )


def leaders(ledger: Ledger, width: int) -> tuple[Recipe, ...]:
    """The best recipes of a search, as its record has them: moved back to the reference width."""
    runs = sorted(ledger.curve, key=lambda one: one[1])[:LEADERS]
    found = [run.trial.recipe for _, _, run in runs]
    return tuple(replace(one, lr=one.lr / at_width(replace(one, lr=1.0), width).lr) for one in found)


RANKED = 40
"""Recipes that are drawn at random and trained for several lengths."""


def short(names: Sequence[str], root: Path) -> None:
    """Print Spearman's correlation of the losses of short and whole runs, with its interval by Fisher's z."""
    lengths = (1 / 9, 1 / 3, 1 / 2)
    print(f"| task, width | recipes | {' | '.join(f'of {share:.2f} of the epochs' for share in lengths)} |")
    print("|---" * (2 + len(lengths)) + "|")
    for name in names:
        space = Workspace.create(TASKS[name], root / name)
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
