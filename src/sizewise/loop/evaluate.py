"""Looks at the validation split between epochs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sizewise.loop.data import Data, Samples, trimmed
from sizewise.records import Recipe, Signature

EVALUATION_BATCH = 512


def validate(module: nn.Module, recipe: Recipe, data: Data, parts: int = 1) -> tuple[float, float]:
    """Loss and score on the validation split; the score is NaN where it needs more than the loss's own outputs.

    Args:
        parts: those that a step is taken in for want of memory; so many times fewer samples are looked at at once.
    """
    loss, answers = _look(module, recipe, data, parts)
    problem = data.task.problem
    return loss, problem.score(problem.joined(answers), data.task.validation) if answers else math.nan


def validation_loss(module: nn.Module, recipe: Recipe, data: Data, parts: int = 1) -> float:
    """Mean loss on the validation split, per sample, or per token where targets have steps."""
    return _look(module, recipe, data, parts)[0]


@torch.no_grad()
def _look(module: nn.Module, recipe: Recipe, data: Data, parts: int) -> tuple[float, list[NDArray[Any]]]:
    """Loss on the validation split, and the answers, batch by batch, if the loss's own outputs tell them."""
    module.eval()
    problem, signature, answers = data.task.problem, data.task.signature, []
    # The smoothed target is a means of training; what is reported is the loss against the true one.
    recipe = replace(recipe, label_smoothing=0.0)
    loss, count = 0.0, 0.0
    at_once = problem.batch(-(-EVALUATION_BATCH // parts))
    for chunk in torch.split(torch.arange(len(data.x_validation)), at_once):
        x, y = trimmed(data.x_validation[chunk], signature), data.y_validation[chunk]
        outputs = problem.forward(module, x, y)
        sums, counts = problem.losses(outputs, y, recipe)
        loss, count = loss + float(sums.double().sum()), count + float(counts.sum())
        if problem.quick:
            answers.append(problem.read(outputs.numpy(), y.numpy()))
    return loss / count, answers


@torch.no_grad()
def predict(module: nn.Module, x: Samples, signature: Signature) -> Tensor:
    """Outputs (n, ...) in evaluation mode."""
    module.eval()
    chunks = torch.split(torch.arange(len(x)), EVALUATION_BATCH)
    return torch.cat([module(trimmed(x[chunk], signature)) for chunk in chunks])
