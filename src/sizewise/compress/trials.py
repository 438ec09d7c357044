"""The trials that compression adds to a sweep: the chosen width pruned, and smaller widths distilled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sizewise import families
from sizewise.compress.narrow import narrow
from sizewise.config import Study
from sizewise.errors import SizewiseError
from sizewise.families import Family
from sizewise.methods import Distil, Narrow
from sizewise.plan import trial_at
from sizewise.records import Choice, Origin, Recipe, Run, Trial
from sizewise.tasks import Task

FINE_TUNING_RATE = 0.3
"""Learning rate of fine-tuning, as a share of the rate that trained the parent."""

Sizes = Mapping[int, Sequence[Run]]


def plan_trials(study: Study, sizes: Sizes, choice: Choice, task: Task) -> tuple[tuple[Trial, ...], tuple[str, ...]]:
    """Trials for the widths just below the chosen one, each over the first seeds of the sweep.

    A pruned trial descends from the chosen width's run of its own seed. A distilled one learns from the same seed's run
    of the largest width. Both are compared with the sweep's own run at that width and seed, which costs nothing.

    Returns:
        the trials and, for each method that this task or family does not allow, one sentence why.
    """
    methods, trials, skipped = study.compress.methods, [], []
    family, largest = families.load(study.family, task.signature), max(sizes)
    for width in targets(study, sizes, choice):
        pruned_from = choice.width if width < choice.width else largest
        cannot = _cannot_prune(family, pruned_from, width) if "prune" in methods and width < pruned_from else ""
        skipped += [f"pruning width {pruned_from} to {width}: {cannot}"] if cannot else []
        for seed in _seeds(study, sizes, choice):
            if "prune" in methods and width < pruned_from and not cannot:
                trials.append(_prune(study, task, _of_seed(sizes[pruned_from], seed), width))
            if "distil" in methods and width < largest and task.problem.distils:
                trials.append(_distil(study, task, _of_seed(sizes[largest], seed), _of_seed(sizes[width], seed)))
    if "distil" in methods and not task.problem.distils:
        skipped.append(f"distillation: {task.signature.problem} has no single vector of logits a sample")
    return tuple(trials), tuple(skipped)


def within(
    trials: Sequence[Trial], cost: Callable[[Trial], float], seconds: float
) -> tuple[tuple[Trial, ...], tuple[str, ...]]:
    """Those of the trials that can be trained in a time, at least one: all methods and widths before a further seed.

    Returns:
        the trials and, if some are left out, a sentence that says so.
    """
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: trial.seed):
        if kept and sum(map(cost, kept)) + cost(trial) > seconds:
            break
        kept.append(trial)
    left = len(trials) - len(kept)
    why = f"{left} of {len(trials)} pruned and distilled models: no time for so many seeds or widths, give a longer one"
    return tuple(kept), (why,) if left else ()


def _cannot_prune(family: Family, start: int, width: int) -> str:
    """Why a model cannot be cut to a width; empty if it can. Tried on one that was never trained."""
    try:
        narrow(family.build(start, seed=0), family, width)
    except SizewiseError as error:
        return error.message
    return ""


def targets(study: Study, sizes: Sizes, choice: Choice) -> tuple[int, ...]:
    """The widths below the chosen one that are compressed to; the chosen one itself when there is none below."""
    below = sorted((width for width in sizes if width < choice.width), reverse=True)
    return tuple(below[: study.compress.steps]) or (choice.width,)


def _seeds(study: Study, sizes: Sizes, choice: Choice) -> tuple[int, ...]:
    """The first seeds that both the pruned and the teaching width were trained with."""
    pruned, teaching = ({run.trial.seed for run in sizes[width]} for width in (choice.width, max(sizes)))
    return tuple(sorted(pruned & teaching))[: study.compress.seeds]


def _of_seed(runs: Sequence[Run], seed: int) -> Run:
    return next(run for run in runs if run.trial.seed == seed)


def _prune(study: Study, task: Task, parent: Run, width: int) -> Trial:
    recipe = trial_at(study, task, width, parent.trial.seed, shortened(study)).recipe
    recipe = replace(recipe, lr=recipe.lr * FINE_TUNING_RATE)
    return replace(parent.trial, width=width, recipe=recipe, origin=Origin(Narrow(), parent.trial.key), start=None)


def _distil(study: Study, task: Task, teacher: Run, alone: Run) -> Trial:
    # A student trains as long as the model it is compared with and starts like it: only the teacher sets them apart.
    recipe = trial_at(study, task, alone.trial.width, alone.trial.seed, study.recipe).recipe
    return replace(alone.trial, recipe=recipe, origin=Origin(Distil(), teacher.trial.key))


def shortened(study: Study) -> Recipe:
    """The study's recipe with the epochs that fine-tuning gets."""
    return replace(study.recipe, epochs=max(1, round(study.recipe.epochs * study.compress.epochs)))
