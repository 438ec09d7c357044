"""How the optimizer follows the width, so that every size is trained fairly.

A size ladder trained at one learning rate measures the learning rate as much as the size. The rule here is a start;
whether it holds is checked on the user's data: `plan` adds runs at a third and at three times the rate, and
`diagnose` says so when one of them wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import nn

from sizewise.errors import UsageError
from sizewise.records import Recipe

REFERENCE_WIDTH = 32
"""The width at which a recipe's learning rate is stated."""

OPTIMIZER_SLOTS = {"gd": 0, "sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}
"""Values of optimizer state for each weight."""

EXPONENT = {"gd": 0.0, "sgd": 0.0, "momentum": 0.0, "adam": 0.5, "adamw": 0.5}
"""Learning rate ∝ (reference width / width)^exponent."""


def at_width(recipe: Recipe, width: int) -> Recipe:
    """The recipe with its learning rate moved from the reference width to `width`.

    Adam's steps do not shrink with the gradient, so a layer with more inputs moves its output further at the same
    rate: hidden layers want 1/width and input and output layers none (Yang et al. 2022, arXiv:2203.03466, table 3).
    One rate for all layers takes the middle, 1/√width. Gradient descent's steps scale with the gradient already.
    """
    return replace(recipe, lr=recipe.lr * (REFERENCE_WIDTH / width) ** EXPONENT[recipe.optimizer])


def check(recipe: Recipe) -> None:
    """Refuse values that cannot train.

    Raises:
        UsageError: with the field, its value and its range.
    """
    rules: dict[str, tuple[bool, str]] = {
        "lr": (recipe.lr > 0 and math.isfinite(recipe.lr), "above 0"),
        "momentum": (0 <= recipe.momentum < 1, "in [0, 1)"),
        "weight_decay": (recipe.weight_decay >= 0, "at least 0"),
        "batch_size": (recipe.batch_size >= 1, "at least 1"),
        "epochs": (recipe.epochs >= 1, "at least 1"),
        "warmup": (0 <= recipe.warmup < 1, "in [0, 1)"),
        "label_smoothing": (0 <= recipe.label_smoothing < 1, "in [0, 1)"),
        "clip": (recipe.clip >= 0, "at least 0"),
        "patience": (recipe.patience >= 0, "at least 0"),
    }
    for field, (valid, domain) in rules.items():
        if not valid:
            value = getattr(recipe, field)
            raise UsageError(f"recipe.{field} is {value}", hint=f"it must be {domain}")


def optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a recipe whose learning rate is already that of its width."""
    match recipe.optimizer:
        case "gd" | "sgd":
            return torch.optim.SGD(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        case "momentum":
            return torch.optim.SGD(
                parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
            )
        case "adam":
            return torch.optim.Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def schedule(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at each step in [0, steps)."""
    warm = max(1, round(recipe.warmup * steps))

    def cosine(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))

    return cosine if recipe.schedule == "cosine" else lambda step: 1.0


def batch_of(recipe: Recipe, samples: int) -> int:
    """Samples of one optimizer step when there are `samples` to train on."""
    return samples if recipe.optimizer == "gd" else min(recipe.batch_size, samples)


def batches_per_epoch(recipe: Recipe, samples: int) -> int:
    """Optimizer steps in one pass over `samples`."""
    return math.ceil(samples / batch_of(recipe, samples))
