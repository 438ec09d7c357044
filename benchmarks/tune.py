"""What an adaptive sweep saves beside the whole grid, and a search for a recipe beside others with the same budget.

    python benchmarks/tune.py grids       train every size of every task over many seeds, into runs/tune
    python benchmarks/tune.py adaptive    replay adaptive sweeps on seeds drawn from these grids, print the table
    python benchmarks/tune.py search      search for recipes five times a task in three ways, print regret by budget
    python benchmarks/tune.py warm        the same of `sizewise tune` that starts with what other tasks' searches found

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

from sizewise import paired, plan, stats, tune
from sizewise.adaptive import next_step, spending
from sizewise.choose import choose
from sizewise.config import Study, Sweep
from sizewise.loop import Data, Start, train_one, unused
from sizewise.recipe import at_width
from sizewise.records import Choice, Estimate, Reading, Recipe, Run, Trial
from sizewise.store import Store, read_json, write_json
from sizewise.study import Workspace
from sizewise.tune.search import FRACTION
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


SEARCHED = {"digits": 8, "reviews": 4, "pneumonia": 3}
"""Widths at which recipes are searched for."""

REPEATS = 5
BUDGET = 12.0
"""Of a search, in runs of full length: a run of a third of the epochs is a third of one."""

CHECKPOINTS = (3.0, 6.0, 12.0)
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


def halving(space: Workspace, width: int, ledger: Ledger, seed: int, first: Sequence[Recipe] = ()) -> None:
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
    made.enqueue_trial(around.values_of(space.study.recipe))
    while ledger.spent < BUDGET:
        asked = made.ask()
        recipe = around.propose(asked).recipe
        run = ledger.train(plan.trial_at(space.study, space.task, width, 0, recipe, FRACTION))
        made.tell(asked, run.validation.loss if math.isfinite(run.validation.loss) else 1e9)


Way = Callable[[Ledger, int], None]


def searches(name: str, space: Workspace, ways: Mapping[str, Way]) -> dict[str, list[Ledger]]:
    """Every search of a task, by its way."""
    found: dict[str, list[Ledger]] = {way: [] for way in ways}
    for repeat in range(REPEATS):
        for way, search in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                ledger = Ledger(space, Path(folder))
                search(ledger, 100 * repeat)
                ledger.fresh = fresh_score(ledger, space)
            found[way].append(ledger)
            print(f"{name}, {way}, repeat {repeat}: {len(ledger.curve)} full runs", file=sys.stderr, flush=True)
    return found


@dataclass(frozen=True)
class Known:
    """What a task's searches came to: the least loss, and the recipe of `sizewise tune` at the reference width."""

    family: str
    least: float
    recipe: Recipe


def recipes(names: Sequence[str], root: Path, *, warm: bool) -> None:
    """Print the table of searches: regret against the lowest loss that any cold search of the task found."""
    header = ("task, width", "search", *(f"regret after {b:g} runs" for b in CHECKPOINTS), "score on fresh samples")
    print(f"| {' | '.join(header)} |\n" + "|---" * len(header) + "|")
    path = root / "searched.json"
    for name in names:
        known = read_json(path, dict[str, Known]) if path.exists() else {}
        space, width = Workspace.create(TASKS[name], root / name), SEARCHED[name]
        others = [k.recipe for n, k in known.items() if n != name and k.family == space.study.family]
        if warm and (not others or name not in known):
            continue
        found = searches(name, space, {TUNE + ", warm": tuning(space, width, others)} if warm else cold(space, width))
        if not warm:
            known[name] = learned(space, width, found)
            write_json(path, known)
        for way, ledgers in found.items():
            cells = [regret(ledgers, budget, known[name].least) for budget in CHECKPOINTS]
            score = stats.mean(np.array([ledger.fresh for ledger in ledgers]), unit="repeats")
            cells.append(f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]")
            print(f"| {name}, {width} | {way} | {' | '.join(cells)} |", flush=True)


def cold(space: Workspace, width: int) -> dict[str, Way]:
    """Searches that know nothing of other tasks."""
    samplers = {"random search": optuna.samplers.RandomSampler, "Optuna's default": optuna.samplers.TPESampler}

    def whole(sampler: Callable[..., Any]) -> Way:
        return lambda ledger, seed: whole_runs(space, width, ledger, sampler(seed=seed))

    return {way: whole(sampler) for way, sampler in samplers.items()} | {TUNE: tuning(space, width, ())}


def tuning(space: Workspace, width: int, first: Sequence[Recipe]) -> Way:
    """`sizewise tune` of one task."""
    return lambda ledger, seed: halving(space, width, ledger, seed, first)


def learned(space: Workspace, width: int, found: Mapping[str, Sequence[Ledger]]) -> Known:
    """What a task's searches leave to others."""
    least = min(loss for ledgers in found.values() for ledger in ledgers for _, loss, _ in ledger.curve)
    best = min(
        (ledger.best(BUDGET) for ledger in found[TUNE]), key=lambda run: run.validation.loss if run else math.inf
    )
    assert best is not None
    recipe = best.trial.recipe
    rate = recipe.lr / at_width(replace(recipe, lr=1.0), width).lr
    return Known(space.study.family, least, replace(recipe, lr=rate))


def regret(ledgers: Sequence[Ledger], budget: float, least: float) -> str:
    """Loss of the best so far over the least known, less 1: the mean of the repeats with its interval."""
    runs = [ledger.best(budget) for ledger in ledgers]
    e = stats.mean(np.array([run.validation.loss / least - 1 for run in runs if run]), unit="repeats")
    return f"{e.value:.1%} [{e.low:.1%}, {e.high:.1%}]"


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("grids", "adaptive", "search", "warm"))
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
        recipes(names, options.out, warm=options.part == "warm")


if __name__ == "__main__":
    main()
