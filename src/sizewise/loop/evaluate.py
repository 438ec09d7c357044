"""Looks at the validation split between epochs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sizewise.loop.data import Data, Samples, trimmed
from sizewise.loop.group import ALONE, Group
from sizewise.records import Recipe, Signature

EVALUATION_BATCH = 512


def validate(
    module: nn.Module, recipe: Recipe, data: Data, parts: int = 1, group: Group = ALONE
) -> tuple[float, float]:
    """Loss and score on the validation split; the score is NaN where it needs more than the loss's own outputs.

    Args:
        parts: those that a step is taken in for want of memory; so many times fewer samples are looked at at once.
        group: workers that share the split; only the first knows the score.
    """
    loss, answers = _look(module, recipe, data, parts, group)
    problem = data.task.problem
    return loss, problem.score(problem.joined(answers), data.task.validation) if answers else math.nan


def validation_loss(module: nn.Module, recipe: Recipe, data: Data, parts: int = 1) -> float:
    """Mean loss on the validation split, per sample, or per token where targets have steps."""
    return _look(module, recipe, data, parts)[0]


@torch.no_grad()
def _look(
    module: nn.Module, recipe: Recipe, data: Data, parts: int, group: Group = ALONE
) -> tuple[float, list[NDArray[Any]]]:
    """Loss on the validation split, and the answers, batch by batch, if the loss's own outputs tell them."""
    module.eval()
    problem, signature = data.task.problem, data.task.signature
    answers: list[NDArray[Any] | None] = []
    # The smoothed target is a means of training; what is reported is the loss against the true one.
    recipe = replace(recipe, label_smoothing=0.0)
    loss, count = 0.0, 0.0
    at_once = problem.batch(-(-EVALUATION_BATCH // parts)) * group.size
    for chunk in torch.split(torch.arange(len(data.x_validation)), at_once):
        own, weight = group.share(chunk)
        x, y = trimmed(data.x_validation[own], signature), data.y_validation[own]
        outputs = problem.forward(module, x, y)
        sums, counts = problem.losses(outputs, y, recipe)
        loss, count = loss + weight * float(sums.double().sum()), count + weight * float(counts.sum())
        if problem.quick:
            answers.append(problem.read(outputs.numpy(), y.numpy()) if weight else None)
    loss, count = group.sums(loss, count)
    in_order = (answer for chunk in zip(*group.gathered(answers), strict=True) for answer in chunk)
    return loss / count, [answer for answer in in_order if answer is not None]


@torch.no_grad()
def predict(module: nn.Module, x: Samples, signature: Signature) -> Tensor:
    """Outputs (n, ...) in evaluation mode."""
    module.eval()
    chunks = torch.split(torch.arange(len(x)), EVALUATION_BATCH)
    return torch.cat([module(trimmed(x[chunk], signature)) for chunk in chunks])
