"""The search for a recipe at one size: proposals are trained for longer the better they do.

A rung is a whole run, with its schedule to the end, of a ninth, a third and all of the epochs: what a proposal is
judged by early is what so short a training would give, not the middle of a longer one. After each rung the best third
goes on (successive halving; Jamieson & Talwalkar 2016, without waiting: Li et al. 2020, arXiv:1810.05934). What was
stopped early has cost its runs, which are counted.

Every run learns from `FRACTION` of the training split, always the same: the rest is for the verification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sizewise import plan, recipe
from sizewise.config import Study
from sizewise.errors import SizewiseError
from sizewise.proposals import REASON, Search, opened
from sizewise.records import Recipe, Run, Trial
from sizewise.store import Store
from sizewise.tasks import Task
from sizewise.tune.space import Proposal, Space

JOURNAL = "tune.journal"
"""File of the study's folder that Optuna writes."""

FRACTION = 0.85
REDUCTION = 3
RUNGS = 3
KEYS, LOSS = "runs", "validation loss"

Train = Callable[[Sequence[Trial]], Sequence[Run]]


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        best: what had the lowest validation loss of all that went to the end.
        loss: of its one run.
        tried, stopped, failed: proposals in all, those that were stopped early, and why others could not be done.
        runs: keys of all runs; `early` of those that were stopped.
    """

    best: Proposal
    loss: float
    tried: int
    stopped: int
    failed: tuple[str, ...]
    runs: tuple[str, ...]
    early: tuple[str, ...]


def search(
    study: Study,
    task: Task,
    width: int,
    store: Store,
    train: Train,
    *,
    trials: int,
    at_once: int = 1,
    first: Sequence[Recipe] = (),
    seed: int = 0,
    shaped: bool = True,
    on_batch: Callable[[int], None] = lambda told: None,
) -> Searched:
    """Try recipes at a width until so many were told, in this and earlier calls.

    Args:
        study: resolved; its own recipe is tried first.
        train: trains trials, or finds them trained; what fails has no run.
        first: recipes to try before others, such as those of similar studies.
        seed: of the proposals.
        shaped: whether depths are tried, too, of families that have any.
        on_batch: called with the number told before each batch.

    Raises:
        MissingExtraError: Optuna is not installed.
        SizewiseError: no proposal went to the end.
    """
    space = Space.of(study, task.signature, width, shaped=shaped)
    with opened(
        store / JOURNAL, f"tune width {width}", (LOSS,), needed_for="tune", halve=REDUCTION, seed=seed
    ) as asked:
        asked.resume()
        for known in (study.recipe, *first):
            if values := space.values_of(known):
                asked.suggest(values)
        while (told := len(asked.told())) < trials:
            on_batch(told)
            batch = [asked.ask() for _ in range(min(at_once, trials - told))]
            proposed = [(trial, space.propose(trial)) for trial in batch]
            _climb(asked, proposed, lambda tried, epochs: _trial(study, task, space, tried, epochs), train)
        return _summary(asked, space)


def by_key(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by the key of their trial as it was asked for, without the weights that a study may start from."""
    return {replace(run.trial, start=None).key: run for run in runs}


def rungs(epochs: int) -> list[int]:
    """Lengths of the runs of one proposal, in epochs."""
    return sorted({max(1, round(epochs / REDUCTION**rung)) for rung in range(RUNGS)})


def _climb(
    asked: Search, proposed: list[tuple[Any, Proposal]], trial_of: Callable[[Proposal, int], Trial], train: Train
) -> None:
    """Train a batch of proposals rung by rung, each until it is stopped, fails, or is at the top.

    Args:
        trial_of: the trial of a proposal that is trained for so many epochs.
    """
    lengths = rungs(proposed[0][1].recipe.epochs)
    for number, epochs in enumerate(lengths):
        made = {t: trial_of(tried, epochs) for t, tried in proposed}
        runs = by_key(train(list(made.values())))
        kept = []
        for trial, tried in proposed:
            run = runs.get(made[trial].key)
            if run is None or not math.isfinite(run.validation.loss):
                asked.fail(trial, "it failed" if run is None else "its loss diverged")
                continue
            trial.set_user_attr(KEYS, [*trial.user_attrs.get(KEYS, ()), run.trial.key])
            trial.report(run.validation.loss, REDUCTION**number)
            if epochs == lengths[-1]:
                asked.tell(trial, run.validation.loss)
            elif trial.should_prune():
                asked.stop(trial)
            else:
                kept.append((trial, tried))
        proposed = kept


def _trial(study: Study, task: Task, space: Space, tried: Proposal, epochs: int) -> Trial:
    """The one run of a proposal at a rung: seed 0, which the verification leaves out."""
    short = replace(tried.recipe, epochs=epochs)
    recipe.check(short)
    made = replace(study, family=tried.family)
    return plan.trial_at(made, task, space.shapes[tried.family], 0, short, FRACTION)


def _summary(asked: Search, space: Space) -> Searched:
    told = asked.told()
    ended = [one for one in told if asked.finished(one)]
    if not ended:
        raise SizewiseError(
            f"none of {len(told)} proposals was trained to the end", hint="look at the first warning above"
        )
    best = min(ended, key=lambda one: one.value)
    keys = {one.number: tuple(one.user_attrs.get(KEYS, ())) for one in told}
    early = [one.number for one in told if not asked.finished(one)]
    return Searched(
        best=space.propose(best),
        loss=best.value,
        tried=len(told),
        stopped=sum(asked.stopped(one) for one in told),
        failed=tuple(dict.fromkeys(one.user_attrs[REASON] for one in told if REASON in one.user_attrs)),
        runs=tuple(dict.fromkeys(key for found in keys.values() for key in found)),
        early=tuple(dict.fromkeys(key for number in early for key in keys[number])),
    )
