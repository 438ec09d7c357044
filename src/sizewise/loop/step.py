"""One optimizer step, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sizewise import families
from sizewise import recipe as recipes
from sizewise.loop.data import Data, batches, generator, trimmed
from sizewise.loop.lessons import alignment_loss, read, soft_loss
from sizewise.loop.state import State
from sizewise.methods import Distil
from sizewise.records import Recipe, Trial

FULL_BATCH_CHUNK = 4096
"""Batch gradient descent adds up its gradient over chunks of this many samples, to bound its memory."""


def step(state: State, trial: Trial, data: Data, teacher: Tensor | None, batch: Tensor) -> Tensor:
    """One optimizer step on the samples `batch`; the mean loss before it."""
    if state.gradients is not None and state.gradients.fits(len(batch)):
        total = state.gradients(*inputs(state, trial, data, teacher, batch))
    else:
        total = _differentiated(state, trial, data, teacher, batch)
    if trial.recipe.clip:
        nn.utils.clip_grad_norm_(state.module.parameters(), trial.recipe.clip)
    state.optimizer.step()
    if state.average is not None and trial.recipe.average == "ema":
        state.average.update_parameters(state.module)
    return total


def _differentiated(state: State, trial: Trial, data: Data, teacher: Tensor | None, batch: Tensor) -> Tensor:
    """The mean loss of the samples `batch`; its gradients are those of the weights."""
    state.optimizer.zero_grad(set_to_none=True)
    group, net = state.group, state.called
    chunks = torch.split(batch, at_a_time(len(batch), state.parts))
    total, targets = torch.zeros(()), 0.0
    for number, chunk in enumerate(chunks, 1):
        own, weight = group.share(chunk)
        with group.adding(net, last=number == len(chunks)):
            loss, count = _loss(net, trial, data, *inputs(state, trial, data, teacher, own))
            if len(chunks) > 1 or not group.alone:
                # Each counts by its targets: samples, or tokens, of which chunks have different numbers.
                targets += weight * float(count)
                loss = loss * (weight * float(count) / len(batch))
            loss.backward(group.seed_of_gradients)  # type: ignore[no-untyped-call]
        total += loss.detach()
    if not group.alone:
        summed, targets = group.sums(float(total), targets)
        total = torch.tensor(summed)
    if targets and targets != len(batch):
        total *= len(batch) / targets
        _scale_gradients(state.module, len(batch) / targets)
    return total


def inputs(state: State, trial: Trial, data: Data, teacher: Tensor | None, chunk: Tensor) -> tuple[Tensor, ...]:
    """What the loss of the samples `chunk` is computed from: samples, targets and, to distil, what the teacher says."""
    x, y = trimmed(data.x[chunk], data.task.signature), data.y[chunk]
    if trial.recipe.augment:  # by its first sample, which no other batch of the epoch has
        x, y = data.task.problem.augment(x, y, generator(trial.seed, state.epoch + 1, 1 + int(chunk[0])))
    return (x, y) if teacher is None or trial.origin is None else (x, y, teacher[chunk])


def mean_loss(trial: Trial, data: Data) -> Callable[..., Tensor]:
    """The mean loss over the targets of a batch, as a function of the module and what `inputs` gives."""
    return lambda module, *batch: _loss(module, trial, data, *batch)[0]


def _loss(
    module: nn.Module, trial: Trial, data: Data, x: Tensor, y: Tensor, teacher: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean loss over the targets of a batch, and how many those are."""
    problem = data.task.problem
    method = trial.origin.method if trial.origin else None
    from_features = isinstance(method, Distil) and method.lesson == "features"
    with (
        torch.autocast(x.device.type, torch.bfloat16, enabled=trial.recipe.precision == "bf16"),
        read(module, wanted=from_features) as found,
    ):
        outputs = problem.forward(module, x, y)
    outputs = outputs.float()  # losses are sums of small differences
    sums, counts = problem.losses(outputs, y, trial.recipe)
    loss = sums.sum() / counts.sum()
    if teacher is not None and isinstance(method, Distil):
        taught = alignment_loss(found[-1], teacher) if found else soft_loss(outputs, teacher, method.temperature)
        loss = torch.lerp(loss, taught, method.weight)
    return loss, counts.sum()


def _scale_gradients(module: nn.Module, factor: float) -> None:
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad *= factor


def at_a_time(batch: int, parts: int) -> int:
    """Samples of a batch whose activations a step holds at a time, when its gradient is added up in parts."""
    return min(FULL_BATCH_CHUNK, -(-batch // parts))


def time_steps(module: nn.Module, recipe: Recipe, data: Data, steps: int = 12) -> float:
    """Median seconds of a real training step at this recipe's batch size, after a warm-up."""
    module = families.arrange_module(module, data.task.signature)
    state = State(module, recipes.optimizer(recipe, module))
    recipes.training(state.optimizer)
    trial = Trial("", "", "", 1, 1.0, recipe, 0)
    part, ready = at_once(recipe, len(data.x)), batches(data, recipe, generator(0, 1))
    times = []
    for number in range(steps + 3):
        began = time.perf_counter()
        step(state, trial, data, None, ready[number % len(ready)][:part])
        times.append(time.perf_counter() - began)
    return float(np.median(times[3:])) * recipes.batch_of(recipe, len(data.x)) / part


def at_once(recipe: Recipe, samples: int) -> int:
    """Samples whose activations a training step holds at a time."""
    return at_a_time(recipes.batch_of(recipe, samples), recipe.accumulate)
