"""What an adaptive sweep saves beside the whole grid, and a search for a recipe beside others with the same budget.

    python benchmarks/tune.py grids       train every size of every task over many seeds, into runs/tune
    python benchmarks/tune.py adaptive    replay adaptive sweeps on seeds drawn from these grids, print the table
    python benchmarks/tune.py search      search for recipes five times a task in three ways, print regret by budget
    python benchmarks/tune.py warm        the same of `sizewise tune` that starts with what other tasks' searches found
    python benchmarks/tune.py short       how well short runs rank recipes: rank correlation with whole runs

The grids are a tabulated benchmark: each run is trained once, and a replay draws its seeds from them without repeats,
so that hundreds of studies cost as much as one. Replays of one task share runs and are therefore not independent: their
spread says how much the drawn seeds matter, not how other tasks would do.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from sizewise import library, paired, plan, stats, tune
from sizewise.adaptive import next_step, spending
from sizewise.choose import choose
from sizewise.config import Study, Sweep
from sizewise.loop import Data, Start, train_one, unused
from sizewise.recipe import at_width
from sizewise.records import Choice, Estimate, Reading, Recipe, Run, Trial
from sizewise.store import Store, read_json, write_json
from sizewise.study import Workspace
from sizewise.tune.rates import log_loss
from sizewise.tune.search import FRACTION, LEADERS
from sizewise.tune.verify import scores

DATA = Path(__file__).parents[2] / "shared" / "data"
POOL = 30
"""Seeds of each size that are trained."""

REPLAYS = 12
SEEDS = (10, 20)
WIDER = (1, 4)
"""Times the metric's own margin."""

Sizes = Mapping[int, Sequence[Run]]


def sweep(*widths: int) -> Sweep:
    """Sizes whose seeds make a pool."""
    return Sweep(widths=widths, seeds=POOL, probes=False)


TASKS = {
    "digits": Study("digits", recipe=Recipe(epochs=20, batch_size=32), sweep=sweep(2, 3, 5, 8, 13, 22, 37, 64)),
    "reviews": Study(
        "text",
        data=str(DATA / "rt-polarity"),
        reading=Reading(steps=80),
        recipe=Recipe(lr=3e-3, batch_size=32, epochs=5),
        sweep=sweep(1, 2, 4, 8, 16),
    ),
    "pneumonia": Study(
        "npz",
        data=str(DATA / "pneumonia" / "pneumoniamnist.npz"),
        family="cnn",
        metric="AUROC",
        recipe=Recipe(lr=2e-3, batch_size=32, epochs=6),
        sweep=sweep(1, 2, 3, 5, 8, 13),
    ),
    "news": Study(
        "text",
        data=str(DATA / "ag-news" / "ag_news_7600.csv"),
        reading=Reading(text="2+3", target="1", steps=128),
        recipe=Recipe(lr=3e-3, batch_size=32, epochs=5),
        sweep=sweep(1, 2, 4, 8, 16),
    ),
    "mnist": Study(
        "mnist",
        data=str(DATA / "mnist"),
        family="cnn",
        recipe=Recipe(lr=2e-3, batch_size=64, epochs=1),
        sweep=sweep(1, 2, 4, 8, 16),
    ),
    "keywords": Study(
        "sounds",
        data=str(DATA / "fsdd" / "recordings.zip"),
        family="cnn1d",
        recipe=Recipe(lr=2e-3, batch_size=32, epochs=5),
        sweep=sweep(3, 4, 6, 9, 13),
    ),
}


def grid(name: str, root: Path, workers: int) -> tuple[Workspace, Sizes]:
    """Every run of a task's pool, trained where it is missing."""
    study = replace(TASKS[name], sweep=replace(TASKS[name].sweep, workers=workers))
    space = Workspace.create(study, root / name)
    runs = space.run_trials(plan.base_trials(space.study, space.task, study.sweep.widths), lambda trial: trial.width)
    sizes: dict[int, list[Run]] = {}
    for run in runs:
        sizes.setdefault(run.trial.width, []).append(run)
    return space, sizes


@dataclass(frozen=True)
class Replay:
    """One adaptive study and the grid of the same seeds.

    Attributes:
        again: what another grid chooses, its seeds drawn from the same pool: how far two grids agree.
        share: of the grid's training time that the adaptive study took.
    """

    adaptive: Choice
    grid: Choice
    again: Choice
    share: float


def drawn(sizes: Sizes, seeds: Sequence[int]) -> dict[int, list[Run]]:
    """The runs of some seeds of the pool, in that order."""
    return {width: [runs[seed] for seed in seeds] for width, runs in sizes.items()}


def replay(space: Workspace, sizes: Sizes, most: int, margin: float, rng: np.random.Generator) -> Replay:
    """An adaptive study of up to `most` seeds of each size."""
    order, again = rng.permutation(POOL), rng.permutation(POOL)
    whole, other = drawn(sizes, order[:most]), drawn(sizes, again[:most])
    had = {width: runs[: plan.FEWEST_SEEDS] for width, runs in whole.items()}
    while True:
        step = next_step(had, space.store, most=most, margin=margin, overhead=2 * plan.START_SECONDS)
        if not step.widths:
            break
        had |= {width: whole[width][: max(step.seeds, len(had[width]))] for width in step.widths}
    spent = spending(had, most, step)
    full, again = (choose(one, space.store, margin=margin) for one in (whole, other))
    seconds = sum(run.seconds for runs in whole.values() for run in runs)
    return Replay(choose(had, space.store, margin=margin, looks=most), full, again, spent.seconds / seconds)


def rows(name: str, replays: Sequence[Replay], most: int) -> str:
    """One line of the table."""
    n = len(replays)
    same, again = (stats.proportion(sum(found), n) for found in zip(*map(agreements, replays), strict=True))
    larger = sum(r.adaptive.width > r.grid.width for r in replays)
    smaller = sum(r.adaptive.width < r.grid.width for r in replays)
    share = stats.mean(np.array([r.share for r in replays]), unit="replays")
    cells = (
        name,
        f"{most}",
        f"{n}",
        f"**{share.value:.0%}** [{share.low:.0%}, {share.high:.0%}]",
        shown(same),
        shown(again),
        f"{larger} / {smaller}",
        f"{np.mean([r.grid.status == 'undetermined' for r in replays]):.0%} / "
        f"{np.mean([r.adaptive.status == 'undetermined' for r in replays]):.0%}",
    )
    return f"| {' | '.join(cells)} |"


def agreements(r: Replay) -> tuple[bool, bool]:
    """Whether the adaptive study chose as the grid of its seeds, and whether another grid did."""
    return r.adaptive.width == r.grid.width, r.again.width == r.grid.width


def shown(e: Estimate) -> str:
    """A share of replays."""
    return f"{e.value:.0%} [{e.low:.0%}, {e.high:.0%}]"


HEADER = (
    "task", "seeds at most", "replays", "time of the grid's", "same width as the grid", "another grid: same width",
    "larger / smaller than the grid's", "undetermined: grid / adaptive",
)  # fmt: skip


def adaptive(names: Sequence[str], root: Path, workers: int, replays: int) -> None:
    """Print the table of adaptive sweeps."""
    print(f"| {' | '.join(HEADER)} |\n" + "|---" * len(HEADER) + "|")
    paired.read_weights = functools.cache(paired.read_weights)  # the same few hundred files, again and again
    for name in names:
        space, sizes = grid(name, root, workers)
        for most, wider in product(SEEDS, WIDER):
            rng, margin = np.random.default_rng(0), wider * space.study.margin
            found = [replay(space, sizes, most, margin, rng) for _ in range(replays)]
            print(rows(f"{name}, margin {margin:g}", found, most), flush=True)


SEARCHED = {"digits": 8, "reviews": 4, "pneumonia": 3, "news": 4, "mnist": 2, "keywords": 4}
"""Widths at which recipes are searched for."""

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


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("grids", "adaptive", "search", "warm", "short"))
    parser.add_argument("names", nargs="*", help=f"tasks (default: all of {', '.join(TASKS)})")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/tune"), help="where runs are kept (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--replays", type=int, default=REPLAYS)
    options = parser.parse_args()
    names = options.names or list(TASKS)
    if options.part == "grids":
        for name in names:
            _, sizes = grid(name, options.out, options.workers)
            print(name, {width: f"{np.mean([run.seconds for run in runs]):.2f} s" for width, runs in sizes.items()})
    elif options.part == "adaptive":
        adaptive(names, options.out, options.workers, options.replays)
    else:
        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if options.part == "short":
            short(names, options.out)
        else:
            (warm if options.part == "warm" else searched)(names, options.out)


if __name__ == "__main__":
    main()
