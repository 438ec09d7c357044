"""What an adaptive sweep saves beside the whole grid, and a search for a recipe beside others with the same budget.

    python benchmarks/tune.py grids       train every size of every task over many seeds, into runs/tune
    python benchmarks/tune.py adaptive    replay adaptive sweeps on seeds drawn from these grids, print the table
    python benchmarks/tune.py search      search for recipes five times a task in three ways, print regret by budget
    python benchmarks/tune.py short       how well short runs rank recipes: rank correlation with whole runs
    python benchmarks/tune.py cold        search each task five times as `sizewise tune` does, and leave records of it
    python benchmarks/tune.py warm        the same, told the records of the other tasks: what that saves
    python benchmarks/tune.py confirm     the leaders of the cold searches over other seeds: what that gains

The grids are a tabulated benchmark: each run is trained once, and a replay draws its seeds from them without repeats,
so that hundreds of studies cost as much as one. Replays of one task share runs and are therefore not independent: their
spread says how much the drawn seeds matter, not how other tasks would do.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import torch
from tune_search import searched, short
from tune_tasks import POOL, TASKS
from tune_warm import cold, confirmed, warm

from sizewise import paired, plan, stats
from sizewise.adaptive import next_step, spending
from sizewise.choose import choose
from sizewise.records import Choice, Estimate, Run
from sizewise.study import Workspace

REPLAYS = 12
SEEDS = (10, 20)
WIDER = (1, 4)
"""Times the metric's own margin."""

Sizes = Mapping[int, Sequence[Run]]


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


PARTS = {"search": searched, "short": short, "cold": cold, "warm": warm, "confirm": confirmed}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("grids", "adaptive", *PARTS))
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
        PARTS[options.part](names, options.out)


if __name__ == "__main__":
    main()
