"""Chains of methods: the trials that they are made of, step by step, and what a run has behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from sizewise import families
from sizewise import recipe as recipes
from sizewise.compress.factorize import factorize
from sizewise.compress.prune import prune
from sizewise.compress.qat import Rounding
from sizewise.compress.shorten import shorten
from sizewise.compress.sparsify import Zeros
from sizewise.compress.start import trained
from sizewise.compress.trials import FINE_TUNING_RATE, Sizes, shortened
from sizewise.config import Study
from sizewise.errors import SizewiseError
from sizewise.loop import features
from sizewise.methods import (
    DONE,
    QAT,
    Chain,
    Distil,
    Factorize,
    Prune,
    Quantize,
    Shorten,
    Sparsify,
    Training,
    label,
    parse,
)
from sizewise.records import Choice, Origin, Run, Trial
from sizewise.store import Store
from sizewise.tasks import Task


def of(run: Run, store: Store) -> Chain:
    """What was done to make a run's weights, from a trained model on, first method first."""
    origin = run.trial.origin
    if origin is None:
        return ()
    fresh = isinstance(origin.method, Distil) and origin.method.start == "random"
    return (*(() if fresh else of(store.run(origin.parent), store)), origin.method)


def trained_seconds(run: Run, store: Store) -> float:
    """Seconds of training that a chain's steps took, to the run from the trained model that it began with."""
    origin = run.trial.origin
    return run.seconds + trained_seconds(store.run(origin.parent), store) if origin is not None else 0.0


def name(chain: Chain) -> str:
    """What was done, as part of a file's name: the weights' part of a chain."""
    return "-".join(map(label, chain)) or DONE["trained"]


def groups(runs: Sequence[Run], store: Store) -> dict[tuple[str, int], list[Run]]:
    """Runs of the same chain and width, by both; those that were trained from scratch are left out."""
    found: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        if run.trial.origin is not None:
            found.setdefault((name(of(run, store)), run.trial.width), []).append(run)
    return found


def steps(chain: Chain) -> tuple[Training, ...]:
    """The methods of a chain that make weights."""
    return tuple(method for method in chain if not isinstance(method, Quantize))


def quantization(chain: Chain) -> Quantize | None:
    """How a chain quantizes in the end, if it does."""
    return chain[-1] if chain and isinstance(chain[-1], Quantize) else None


def step(study: Study, parent: Run, method: Training, teachers: Sequence[str]) -> Trial:
    """The trial that does one method to a run and lets it recover at a part of the rate that trained it.

    Args:
        teachers: keys of the runs that teach, where the method is distillation.
    """
    recipe = recipes.at_width(shortened(study), parent.trial.width)
    recipe = replace(recipe, lr=recipe.lr * FINE_TUNING_RATE)
    if isinstance(method, Distil):
        method = replace(method, start="parent", teachers=tuple(teachers))
    return replace(parent.trial, recipe=recipe, origin=Origin(method, parent.trial.key), start=None)


def teachers(choice: Choice, sizes: Sizes) -> list[str]:
    """Keys of the runs that teach: the seeds of the best size, trained already."""
    return [run.trial.key for run in sizes[choice.reference]]


def done(
    texts: Sequence[str],
    study: Study,
    choice: Choice,
    sizes: Sizes,
    task: Task,
    store: Store,
    train: Callable[[Sequence[Trial]], Sequence[Run]],
) -> tuple[list[Run], tuple[str, ...]]:
    """Chains done step by step to the chosen size, over the seeds that compression has.

    Returns:
        the runs, and for each chain that ends at a step that cannot be done, one sentence why.
    """
    first = sorted(sizes[choice.width], key=lambda run: run.trial.seed)[: study.compress.seeds]
    made, left_out = [], []
    for text in texts:
        runs: Sequence[Run] = first
        for method in steps(parse(text)):
            if why := cannot(method, runs[0], task, store):
                left_out.append(f"{text}: {why}")
                break
            runs = train([step(study, run, method, teachers(choice, sizes)) for run in runs])
        else:
            made += [run for run in runs if run.trial.origin is not None]
    return made, tuple(left_out)


def cannot(method: Training, parent: Run, task: Task, store: Store) -> str:
    """Why a method cannot be done to a run, in one sentence; empty if it can. Nothing is trained for it."""
    signature = task.signature
    try:
        match method:
            case Distil(lesson="features"):
                features(trained(parent.trial, store, signature), families.example(signature, 2)[0], signature)
            case Distil() if not task.problem.distils:
                return f"{signature.problem} has no single vector of logits a sample"
            case Prune():
                module = trained(parent.trial, store, signature)
                # Which units go makes no difference to whether they can.
                prune(module, method, signature, {n: torch.rand(p.shape) for n, p in module.named_parameters()})
            case Factorize():
                factorize(trained(parent.trial, store, signature), method, signature)
            case Shorten():
                # Nor does it matter which layers go.
                shorten(trained(parent.trial, store, signature), method, signature, lambda module: 0.0)
            case Sparsify():
                Zeros(method).begin(trained(parent.trial, store, signature))
            case QAT():
                Rounding().begin(trained(parent.trial, store, signature))
    except SizewiseError as error:
        return error.message
    return ""
