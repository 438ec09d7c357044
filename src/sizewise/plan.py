"""Which models to train, and what that will cost, before anything runs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from sizewise import families
from sizewise import recipe as recipes
from sizewise.cluster.nodes import pack, parse
from sizewise.config import Study
from sizewise.errors import BudgetError, UsageError
from sizewise.families import Family
from sizewise.laws.decide.budgets import TIMES, more_of
from sizewise.loop import EVALUATION_BATCH, Data, at_once, time_steps, validation_loss
from sizewise.records import Cost, Law, More, Plan, Recipe, Trial
from sizewise.starts import Starts
from sizewise.store import Store
from sizewise.tasks import Task

PROBE_SEEDS = 3
"""Seeds of each variation that the diagnosis compares with the sweep."""

FEWEST_SEEDS, FEWEST_SIZES = 3, 5
"""What a time limit may not cut below: fewer cannot carry an interval or a law."""

FEWEST_PRICED = 3
"""Sizes whose times say how time grows with size."""

START_SECONDS = 3.0
"""Start of a worker process: importing PyTorch and preparing the data."""

ADAPTIVE = (
    f"at most: after {FEWEST_SEEDS} seeds of every size, only what the choice still needs is trained, batch by batch"
)
"""What a plan says that is spent adaptively."""


def plan(study: Study, task: Task, store: Store | None = None, started: Starts | None = None) -> tuple[Study, Plan]:
    """Lay out the sweep of a resolved study and time a few real steps of every size.

    Args:
        store: trials that it holds already cost nothing.
        started: the weights that the trials start from; None is random ones.

    Returns:
        the study, with whatever a time limit took from it, and its plan.

    Raises:
        BudgetError: no size fits `budget.max_params`, or the time limit is too short for the smallest plan.
        DataError: a size can take nothing of the weights to start from.
    """
    family = families.load(study.family, task.signature)
    widths, data = ladder(family, study), Data.of(task)
    families.check_output(family, widths[0])
    said = started.notes(family, base_trials(study, task, widths)) if started else ()
    said += (ADAPTIVE,) if study.sweep.adaptive else ()
    costs = tuple(_cost(family, width, study.recipe, data) for width in widths)

    def assembled(smaller: Study, fewer: tuple[Cost, ...], notes: tuple[str, ...]) -> Plan:
        return _assemble(smaller, task, fewer, store, said + notes, started)

    return _fit_time(study, costs, assembled)


def base_trials(study: Study, task: Task, widths: Iterable[int]) -> tuple[Trial, ...]:
    """The sweep proper: every width with every seed on the whole training split."""
    return tuple(
        trial_at(study, task, width, seed, study.recipe) for width in widths for seed in range(study.sweep.seeds)
    )


def trial_at(study: Study, task: Task, width: int, seed: int, recipe: Recipe, fraction: float = 1.0) -> Trial:
    """One trial of the study; `recipe` is that of the reference width, moved by the rule and by the study's rates."""
    sized = recipes.at_width(recipe, width)
    factors = dict(zip(sorted(set(study.sweep.widths)), study.sweep.rates, strict=False))
    return Trial(
        task=task.name,
        fingerprint=task.fingerprint,
        family=study.family,
        width=width,
        fraction=fraction,
        recipe=replace(sized, lr=sized.lr * factors.get(width, 1.0)),
        seed=seed,
    )


def probe_trials(study: Study, task: Task, widths: tuple[int, ...]) -> tuple[Trial, ...]:
    """The sweep's runs with one thing changed: the learning rate, the epochs or the amount of data.

    Less data is trained for as many steps, or it would be less training too. Probed are the smallest width and the one
    before the largest: both ends of the ladder without its costliest rung.
    """
    if not study.sweep.probes:
        return ()
    recipe = study.recipe
    varied = [(replace(recipe, lr=recipe.lr * factor), 1.0) for factor in (1 / 3, 3.0)]
    varied += [(replace(recipe, epochs=2 * recipe.epochs), 1.0)]
    varied += [(_as_many_steps(recipe, len(task.train), f), f) for f in study.sweep.fractions if f < 1]
    probed = sorted({widths[0], widths[max(len(widths) - 2, 0)]})
    return tuple(
        trial_at(study, task, width, seed, changed, fraction)
        for width in probed
        for changed, fraction in varied
        for seed in range(min(PROBE_SEEDS, study.sweep.seeds))
    )


def _as_many_steps(recipe: Recipe, samples: int, fraction: float) -> Recipe:
    full, part = (recipes.batches_per_epoch(recipe, n) for n in (samples, max(1, round(fraction * samples))))
    return replace(recipe, epochs=round(recipe.epochs * full / part))


def seconds_of(trial: Trial, costs: dict[int, Cost], epochs: int) -> float:
    """Predicted training time of a trial, from the cost of its width at `epochs` epochs."""
    return costs[trial.width].seconds * trial.fraction * trial.recipe.epochs / epochs


def ladder(family: Family, study: Study) -> tuple[int, ...]:
    """The widths of a resolved study.

    Raises:
        UsageError: there is one only.
        BudgetError: no size fits `budget.max_params`.
    """
    sweep, limit = study.sweep, study.budget.max_params
    widths = tuple(sorted(set(sweep.widths))) or family.ladder(
        family.params(sweep.smallest), family.params(sweep.largest), sweep.sizes
    )
    if len(widths) == 1:
        raise UsageError(
            f"the sweep has the single width {widths[0]}",
            hint="give at least two widths, for example --widths 4,8,16,32",
        )
    if limit is None:
        return widths
    smallest = family.params(widths[0])
    if smallest > limit:
        raise BudgetError(
            f"the smallest size has {smallest:,} parameters, and the budget allows {limit:,}",
            hint=f"raise --max-params to at least {smallest:,}, or allow smaller widths",
        )
    # Sizes above the limit cannot be chosen, but they stay: they show what the limit costs, and carry the law.
    return widths


def _cost(family: Family, width: int, recipe: Recipe, data: Data) -> Cost:
    """Time real training steps and one evaluation of a width, on one thread, as the workers will run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module, sized = family.build(width, seed=0), recipes.at_width(recipe, width)
        step = time_steps(module, sized, data)
        evaluation = _time_evaluation(module, sized, data)
    finally:
        torch.set_num_threads(threads)
    steps = recipes.batches_per_epoch(recipe, len(data.x))
    slots = recipes.slots(recipe)
    return Cost(
        width=width,
        params=family.params(width),
        non_embedding=families.non_embedding(module),
        training_flops=families.training_flops(module, family.signature),
        flops=families.flops(module, family.signature),
        memory_bytes=families.training_bytes(module, family.signature, at_once(recipe, len(data.x)), slots),
        step_ms=step * 1e3,
        seconds=recipe.epochs * (steps * step + evaluation),
    )


def _time_evaluation(module: torch.nn.Module, recipe: Recipe, data: Data) -> float:
    """Seconds of one pass over the validation split, from one timed batch."""
    x, y = data.x_validation[:EVALUATION_BATCH], data.y_validation[:EVALUATION_BATCH]
    part = replace(data, x_validation=x, y_validation=y)
    validation_loss(module, recipe, part)
    began = time.perf_counter()
    validation_loss(module, recipe, part)
    return (time.perf_counter() - began) * len(data.x_validation) / len(x)


def _fit_time(
    study: Study, costs: tuple[Cost, ...], build: Callable[[Study, tuple[Cost, ...], tuple[str, ...]], Plan]
) -> tuple[Study, Plan]:
    """The study and its plan, with as few concessions as the time limit needs."""
    limit, plan = study.sweep.time_seconds, build(study, costs, ())
    notes: dict[str, str] = {}
    for smaller, fewer, what, note in _concessions(study, costs):
        if limit is None or plan.seconds <= limit:
            break
        notes[what] = note
        study, plan = smaller, build(smaller, fewer, tuple(notes.values()))
    if limit is not None and plan.seconds > limit:
        raise BudgetError(
            f"the smallest honest plan takes about {plan.seconds:.0f} s, and the limit is {limit:.0f} s",
            hint=f"give --time {plan.seconds * 1.2:.0f}s or more, or fewer and smaller --widths",
        )
    return study, plan


def _concessions(study: Study, costs: tuple[Cost, ...]) -> Iterator[tuple[Study, tuple[Cost, ...], str, str]]:
    """Ever smaller studies: half the epochs, seeds down to three, no probes, two epochs, no large sizes."""
    full = study.recipe.epochs
    half = max(2, full // 2)

    def at(epochs: int) -> tuple[Study, tuple[Cost, ...], str, str]:
        scaled = tuple(replace(cost, seconds=cost.seconds * epochs / full) for cost in costs)
        shorter = replace(study, recipe=replace(study.recipe, epochs=epochs))
        return shorter, scaled, "epochs", f"epochs cut from {full} to {epochs} to fit the time limit"

    for epochs in range(full - 1, half - 1, -1):
        yield at(epochs)
    shorter, scaled, _, _ = at(min(half, full))
    study, sweep = shorter, study.sweep
    for seeds in range(sweep.seeds - 1, FEWEST_SEEDS - 1, -1):
        study = replace(study, sweep=replace(study.sweep, seeds=seeds))
        yield study, scaled, "seeds", f"seeds cut from {sweep.seeds} to {seeds} to fit the time limit"
    study = replace(study, sweep=replace(study.sweep, probes=False))
    yield study, scaled, "probes", "probes left out to fit the time limit: tuning and training length go unchecked"
    for epochs in range(half - 1, 1, -1):
        yield at(epochs)
    study, costs, _, _ = at(min(2, full))
    for count in range(len(costs) - 1, FEWEST_SIZES - 1, -1):
        widths = tuple(cost.width for cost in costs[:count])
        study = replace(study, sweep=replace(study.sweep, widths=widths))
        yield study, costs[:count], "sizes", f"only the {count} smallest sizes fit the time limit"


def _assemble(
    study: Study,
    task: Task,
    costs: tuple[Cost, ...],
    store: Store | None,
    notes: tuple[str, ...],
    started: Starts | None = None,
) -> Plan:
    widths = tuple(cost.width for cost in costs)
    workers = study.sweep.workers or os.cpu_count() or 1
    trials, probes = base_trials(study, task, widths), probe_trials(study, task, widths)
    if started:
        trials, probes = started.begin(trials), started.begin(probes)
    return priced(study, Plan(trials, probes, costs, workers, 0.0, 0, notes), store)


def retuned(
    study: Study, planned: Plan, rates: tuple[float, ...], task: Task, store: Store, started: Starts | None
) -> tuple[Study, Plan]:
    """The study with a factor of the learning rate for each width, and its plan again."""
    widths = tuple(cost.width for cost in planned.costs)
    study = replace(study, sweep=replace(study.sweep, widths=widths, rates=rates))
    again = _assemble(study, task, planned.costs, store, planned.notes, started)
    return study, replace(again, request=planned.request)


def priced(study: Study, plan: Plan, store: Store | None) -> Plan:
    """The plan with its predicted wall time: the work shared out evenly, but never less than the longest trial."""
    trials = (*plan.trials, *plan.probes)
    finished = {trial.key for trial in trials if store is not None and store.find_run(trial)}
    costs = {cost.width: cost for cost in plan.costs}
    left = {t.key: seconds_of(t, costs, study.recipe.epochs) for t in trials if t.key not in finished}
    plan = replace(plan, finished=len(finished))
    if study.cluster.nodes:
        cluster = study.cluster
        packing = pack(left, list(map(parse, cluster.nodes)), start=START_SECONDS, currency=cluster.currency)
        return replace(plan, seconds=packing.seconds, workers=packing.workers, packing=packing)
    share = sum(left.values()) / max(1, min(plan.workers, len(left)))
    seconds = max(share, *left.values(), 0.0) + START_SECONDS if left else 0.0
    return replace(plan, seconds=seconds)


def more(planned: Plan, found: Sequence[Law], samples: int) -> tuple[More, ...]:
    """What runs longer than the largest size's would give: the law's loss at the sizes that they pay for.

    A run takes seconds ∝ parameters^b; b is that of the planned sizes, by least squares in logarithms.

    Args:
        found: laws of the study's own runs; only a supported one of the loss by parameters says anything.
        samples: that a run sees.
    """
    known = [law for law in found if law.metric == "loss" and law.variables == ("params",)]
    largest = max(planned.costs, key=lambda cost: cost.params)
    if not known or known[0].status != "supported" or len(planned.costs) < FEWEST_PRICED:
        return ()
    sized, taken = (np.log(values) for values in zip(*((c.params, c.seconds) for c in planned.costs), strict=True))
    slope = float(np.polyfit(sized, taken, 1)[0])
    here = np.log([largest.params])
    sizes = [here + math.log(times) / slope for times in TIMES] if slope > 0 else []
    hours = largest.seconds / 3600
    return tuple(
        more_of(known[0], here, there, times=times, extra=(times - 1) * hours, samples=samples)
        for times, there in zip(TIMES, sizes, strict=False)
    )
