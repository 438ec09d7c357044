"""What a search saves that is told what searches of other tasks found: the library, with one task left out at a time.

Run by `tune.py`: `cold` leaves a record of each task, as a finished study would, and `warm` searches again with the
records of the others.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tune_search import APART, REPEATS, Ledger, searching
from tune_tasks import SEARCHED, workspace

from sizewise import library, stats
from sizewise.loop import Data, Start, train_one, unused
from sizewise.recipe import at_width
from sizewise.records import Proposal, Recipe, Run, Trial
from sizewise.store import Store, read_json, write_json
from sizewise.study import KNOWN, Workspace
from sizewise.tune.confirm import confirm
from sizewise.tune.search import FRACTION, LEADERS, SEED, trial_of
from sizewise.tune.verify import scores

TRIALS = 24
"""Of a search: the default of `sizewise tune`."""

LOOKS = (1, 3, 6, 9, 12, TRIALS)
"""Numbers of runs after which the best recipe so far is scored on fresh samples; 9 are 38 % of all."""

SEEDS = (1, 2)
"""That a recipe's score is the mean of; searches train seed 0."""


@dataclass(frozen=True)
class Searched:
    """One search.

    Attributes:
        losses: of validation, of each run in order; of what diverged it is infinite.
        leaders: its best recipes, best first, at the reference width, as its record has them.
        fresh: score of the best recipe after each of `LOOKS`, over fresh seeds, on samples that no search learned from.
    """

    losses: tuple[float, ...]
    leaders: tuple[Proposal, ...]
    fresh: tuple[float, ...]


@dataclass(frozen=True)
class Known:
    """A task, and its cold searches."""

    kind: tuple[str, str, str]
    features: dict[str, float]
    searches: tuple[Searched, ...]


@dataclass(frozen=True)
class Told:
    """What a search leaves to others, as a precedent has it."""

    recipes: tuple[Proposal, ...]


class Fresh:
    """Scores recipes as a verification does; a recipe that was scored before is not trained again."""

    def __init__(self, space: Workspace, root: Path) -> None:
        self.space, self.data, self.store = space, Data.of(space.task), Store(root / "fresh")
        self.rest = unused(space.task, FRACTION)

    def __call__(self, run: Run) -> float:
        """The mean score of what a run trained, over `SEEDS`."""
        trials = [replace(run.trial, seed=seed) for seed in SEEDS]
        runs = [self.store.find_run(one) or train_one(one, self.data, self.store, Start()) for one in trials]
        return float(np.mean([scores(one, self.rest, self.space.task, self.store).mean() for one in runs]))


def repeats(name: str, root: Path, told: Callable[[int], Sequence[Proposal]]) -> Known:
    """Five searches of a task, each told some recipes."""
    space, width = workspace(name, root), SEARCHED[name]
    fresh, trained, found = Fresh(space, root / name), Store(root / name / "searched"), []
    for repeat in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            ledger = Ledger(space, Path(folder), TRIALS, trained)
            searching(space, width, ledger, APART * repeat, told(repeat))
        led = [run for look in LOOKS if (run := ledger.best(look))]
        known = {round(spent): loss for spent, loss, _ in ledger.curve}
        losses = tuple(known.get(number, math.inf) for number in range(1, TRIALS + 1))
        found.append(Searched(losses, leaders(ledger), tuple(map(fresh, led))))
        print(f"{name}, repeat {repeat}: fresh {found[-1].fresh}", file=sys.stderr, flush=True)
    signature = space.task.signature
    kind = (signature.problem, signature.layout, space.study.family)
    return Known(kind, library.features(space.task), tuple(found))


def leaders(ledger: Ledger) -> tuple[Proposal, ...]:
    """The best recipes of a search, moved back to the reference width from that of their own shape."""
    best = sorted(ledger.curve, key=lambda one: one[1])[:LEADERS]
    return tuple(Proposal(unscaled(run.trial), run.trial.family) for _, _, run in best)


def unscaled(trial: Trial) -> Recipe:
    """The recipe that the rule for widths makes a trial's of."""
    one = trial.recipe
    return replace(one, lr=one.lr / at_width(replace(one, lr=1.0), trial.width).lr)


def cold(names: Sequence[str], root: Path) -> None:
    """Search every task knowing nothing of others, and leave its record."""
    for name in names:
        write_json(root / f"cold-{name}.json", repeats(name, root, lambda repeat: ()))


HEADER = (
    "task, width", "told by, and how far", "metric: cold after 24 runs",
    *(f"warm after {look} less that" for look in LOOKS),
    *(f"cold after {look} less that" for look in LOOKS[:-1]),
    "validation loss: runs until the cold search's mean final one", "the same of the cold ones",
)  # fmt: skip


def warm(names: Sequence[str], root: Path) -> None:
    """Print what a search saves that begins with the best recipes of the other tasks that the library compares it with.

    Repeat k of a task is told what repeat k of each other one found: no more than one finished study of each.
    """
    print(f"| {' | '.join(HEADER)} |\n" + "|---" * len(HEADER) + "|")
    known = {path.stem.removeprefix("cold-"): read_json(path, Known) for path in sorted(root.glob("cold-*.json"))}
    for name in names:
        own = known[name]
        others = {other: one for other, one in known.items() if other != name and one.kind == own.kind}
        far = {other: library.distance(own.features, one.features) for other, one in others.items()}
        near = sorted(far, key=lambda other: far[other])

        def told(repeat: int, near: Sequence[str] = near, far: Mapping[str, float] = far) -> tuple[Proposal, ...]:
            found = [
                library.Similar(Told(known[other].searches[repeat].leaders), far[other])  # type: ignore[arg-type]
                for other in near
            ]
            return library.recipes(found, TRIALS // KNOWN)

        by = ", ".join(f"{other} {far[other]:.2f}" for other in near) or "none"
        print(row(name, root, by, own, repeats(name, root, told)), flush=True)


def row(name: str, root: Path, by: str, own: Known, told: Known) -> str:
    """One line of the table."""
    metric = workspace(name, root).task.metric
    before, after = (np.array([one.fresh for one in known.searches]) for known in (own, told))
    last, sign = before[:, -1], 1 if metric.higher else -1
    final = float(np.mean([min(one.losses) for one in own.searches]))
    cells = [
        f"{name}, {SEARCHED[name]}", by, f"{metric.name} {last.mean():.4f}",
        *(gain(sign * (after[:, look] - last)) for look in range(len(LOOKS))),
        *(gain(sign * (before[:, look] - last)) for look in range(len(LOOKS) - 1)),
        *(", ".join(until(known, final)) for known in (told, own)),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


CONFIRMED = (
    "task, width", "metric: best by the first seed", "best of three by two other seeds, less that",
    "worst repeat: by the first", "by the others", "repeats with another recipe",
)  # fmt: skip


def confirmed(names: Sequence[str], root: Path) -> None:
    """Print what the best recipe of each cold search scores, and its leader that is best over other seeds."""
    print(f"| {' | '.join(CONFIRMED)} |\n" + "|---" * len(CONFIRMED) + "|")
    for name in names:
        print(confirmed_row(name, root), flush=True)


def confirmed_row(name: str, root: Path) -> str:
    """One line of that table."""
    space, width = workspace(name, root), SEARCHED[name]
    task, data, store = space.task, Data.of(space.task), Store(root / name / "searched")
    fresh = Fresh(space, root / name)

    def train(trials: Sequence[Trial]) -> list[Run]:
        return [store.find_run(one) or train_one(one, data, store, Start()) for one in trials]

    scored = []
    for search in read_json(root / f"cold-{name}.json", Known).searches:
        first = search.leaders[0]
        best = confirm(space.study, task, width, tuple(dict.fromkeys(search.leaders)), train).leaders[0]
        runs = train([trial_of(space.study, task, width, one, SEED) for one in (first, best)])
        scored.append((*map(fresh, runs), best != first))
        print(f"{name}: {scored[-1]}", file=sys.stderr, flush=True)
    one, others, other = np.array(scored, float).T
    sign, worst = (1, np.min) if task.metric.higher else (-1, np.max)
    cells = [
        f"{name}, {width}", f"{task.metric.name} {one.mean():.4f}", gain(sign * (others - one)), f"{worst(one):.4f}",
        f"{worst(others):.4f}", f"{other.sum():.0f} of {len(other)}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def gain(better: np.ndarray) -> str:
    """By how much something is better: the mean of the repeats with its 95 % interval."""
    found = stats.mean(better, unit="repeats")
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def until(known: Known, goal: float) -> Iterator[str]:
    """Runs until each search had a loss as low as the goal."""
    for one in known.searches:
        runs = next((number for number, loss in enumerate(one.losses, 1) if loss <= goal), math.inf)
        yield "never" if math.isinf(runs) else str(runs)
