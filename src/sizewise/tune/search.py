"""The search for a recipe at one size.

What a proposal is worth is the validation loss of one whole run. Short runs cost less and rank recipes badly where
models are far from fitted: see the benchmark. Where only few of them could be finished, "halving" trains each for a
ninth, a third and all of the epochs, and after each rung the best third goes on (successive halving; Jamieson &
Talwalkar 2016, without waiting: Li et al. 2020, arXiv:1810.05934). A rung is a whole run, with its schedule to the end:
what a proposal is judged by early is what so short a training would give, not the middle of a longer one. What was
stopped early has cost its runs, which are counted.

Every run learns from `FRACTION` of the training split, always the same: the rest is for the verification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from sizewise import plan, recipe
from sizewise.config import Study
from sizewise.errors import SizewiseError
from sizewise.proposals import REASON, Search, opened
from sizewise.records import Proposal, Run, Trial
from sizewise.store import Store
from sizewise.tasks import Task
from sizewise.tune.rates import log_loss
from sizewise.tune.space import Space, equal_width, optimizers

JOURNAL = "tune.journal"
"""File of the study's folder that Optuna writes."""

FRACTION = 0.85
SEED = 0
"""Of every run; the verification leaves it out."""

REDUCTION = 3
RUNGS = 3
LEADERS = 3
KEYS, LOSS, SECONDS = "runs", "validation loss", "seconds of training"
LOG_LOSS = "logarithm of the validation loss"
"""Of one objective: the losses of a search differ by orders of magnitude, which a Gaussian process has no sense for."""

How = Literal["whole runs", "halving", "loss and time"]
"""Whole runs judged by their loss, rungs of longer and longer runs, or runs of any length judged by their time, too."""

Train = Callable[[Sequence[Trial]], Sequence[Run]]


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        tried, stopped, failed: proposals in all, those that were stopped early, and why others could not be done.
        runs: keys of all runs; `early` of those that were stopped.
        leaders: the `LEADERS` with the lowest validation losses of all that went to the end, lowest first.
        frontier: where training time was to be short, too: what nothing else was as good as in both, with its loss and
            its seconds, fastest first.
    """

    tried: int
    stopped: int
    failed: tuple[str, ...]
    runs: tuple[str, ...]
    early: tuple[str, ...]
    leaders: tuple[Proposal, ...]
    frontier: tuple[tuple[Proposal, float, float], ...]


def search(
    study: Study,
    task: Task,
    width: int,
    store: Store,
    train: Train,
    *,
    trials: int,
    at_once: int = 1,
    first: Sequence[Proposal] = (),
    seed: int = 0,
    shaped: bool = True,
    how: How = "whole runs",
    on_batch: Callable[[int], None] = lambda told: None,
) -> Searched:
    """Try recipes at a width until so many were told, in this and earlier calls.

    Args:
        study: resolved; its own recipe is tried first.
        train: trains trials, or finds them trained; what fails has no run.
        first: recipes to try before others, such as those of similar studies.
        seed: of the proposals.
        shaped: whether depths are tried, too, of families that have any.
        how: what proposals are judged by.
        on_batch: called with the number told before each batch.

    Raises:
        MissingExtraError: Optuna is not installed.
        SizewiseError: no proposal went to the end.
    """
    timed, halving = how == "loss and time", how == "halving"
    space = Space.of(study, task.signature, width, shaped=shaped, shortened=timed)
    goals, halve = (LOSS, SECONDS) if timed else (LOG_LOSS,), REDUCTION if halving else 0
    train_batch = _climb if halving else partial(_finish, timed=timed)
    name = f"recipe at width {width} by {how}"
    about = (task.fingerprint, study.recipe.decisive(), study.family, *space.shapes, *optimizers(study.recipe))
    with opened(store / JOURNAL, name, goals, needed_for="tune", about=about, halve=halve, seed=seed) as asked:
        asked.resume()
        for values in space.first(first):
            asked.suggest(values)
        while (told := len(asked.told())) < trials:
            on_batch(told)
            batch = [asked.ask() for _ in range(min(at_once, trials - told))]
            proposed = [(trial, space.propose(trial)) for trial in batch]
            train_batch(asked, proposed, partial(_trial, study, task, space), train)
        return _summary(asked, space)


def by_key(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by the key of their trial as it was asked for, without the weights that a study may start from."""
    return {replace(run.trial, start=None).key: run for run in runs}


def trial_of(study: Study, task: Task, width: int, tried: Proposal, seed: int) -> Trial:
    """A whole run of a proposal, with as many parameters as the study's own family has at a width."""
    made = replace(study, family=tried.family)
    width = equal_width(study.family, width, tried.family, task.signature)
    return plan.trial_at(made, task, width, seed, tried.recipe, FRACTION)


def rungs(epochs: int) -> list[int]:
    """Lengths of the runs of one proposal, in epochs."""
    return sorted({max(1, round(epochs / REDUCTION**rung)) for rung in range(RUNGS)})


TrialOf = Callable[[Proposal, int], Trial]
"""The trial of a proposal that is trained for so many epochs."""


def _climb(asked: Search, proposed: list[tuple[Any, Proposal]], trial_of: TrialOf, train: Train) -> None:
    """Train a batch of proposals rung by rung, each until it is stopped, fails, or is at the top."""
    lengths = rungs(proposed[0][1].recipe.epochs)  # of all: no proposal of this search varies them
    for number, epochs in enumerate(lengths):
        kept = []
        made = [(trial, tried, trial_of(tried, epochs)) for trial, tried in proposed]
        for trial, tried, run in _trained(asked, made, train):
            trial.report(log_loss(run), REDUCTION**number)
            if epochs == lengths[-1]:
                asked.tell(trial, log_loss(run))
            elif trial.should_prune():
                asked.stop(trial)
            else:
                kept.append((trial, tried))
        proposed = kept


def _finish(
    asked: Search, proposed: list[tuple[Any, Proposal]], trial_of: TrialOf, train: Train, *, timed: bool
) -> None:
    """Train each of a batch of proposals for the epochs that it asks for."""
    made = [(trial, tried, trial_of(tried, tried.recipe.epochs)) for trial, tried in proposed]
    for trial, _, run in _trained(asked, made, train):
        asked.tell(trial, (run.validation.loss, run.seconds) if timed else log_loss(run))


def _trained(
    asked: Search, made: Sequence[tuple[Any, Proposal, Trial]], train: Train
) -> Iterator[tuple[Any, Proposal, Run]]:
    """The runs of proposals; what has none, or diverged, is told to have failed."""
    runs = by_key(train([one for _, _, one in made]))
    for trial, tried, one in made:
        run = runs.get(one.key)
        if run is None or not math.isfinite(run.validation.loss):
            asked.fail(trial, "it failed" if run is None else "its loss diverged")
            continue
        trial.set_user_attr(KEYS, [*trial.user_attrs.get(KEYS, ()), run.trial.key])
        yield trial, tried, run


def _trial(study: Study, task: Task, space: Space, tried: Proposal, epochs: int) -> Trial:
    """The one run of a proposal at a length."""
    short = replace(tried.recipe, epochs=epochs)
    recipe.check(short)
    made = replace(study, family=tried.family)
    return plan.trial_at(made, task, space.shapes[tried.family], SEED, short, FRACTION)


def _summary(asked: Search, space: Space) -> Searched:
    told = asked.told()
    ended = [one for one in told if asked.finished(one)]
    if not ended:
        raise SizewiseError(
            f"none of {len(told)} proposals was trained to the end", hint="look at the first warning above"
        )
    ended.sort(key=lambda one: one.values[0])
    proposals = [space.propose(one) for one in ended]
    keys = {one.number: tuple(one.user_attrs.get(KEYS, ())) for one in told}
    early = [one.number for one in told if not asked.finished(one)]
    return Searched(
        tried=len(told),
        stopped=sum(asked.stopped(one) for one in told),
        failed=tuple(dict.fromkeys(one.user_attrs[REASON] for one in told if REASON in one.user_attrs)),
        runs=tuple(dict.fromkeys(key for found in keys.values() for key in found)),
        early=tuple(dict.fromkeys(key for number in early for key in keys[number])),
        leaders=tuple(dict.fromkeys(proposals))[:LEADERS],
        frontier=tuple((space.propose(one), *one.values) for one in asked.frontier()) if space.shortened else (),
    )
